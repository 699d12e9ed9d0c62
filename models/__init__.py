"""Everything with weights: backbones, heads, the built-in model. Knows nothing of libraries, SQL or the CLI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.action_prompts import (
        ACTION_TEMPLATES,
        Pairs,
        PromptOptions,
        embed_names,
        train_prompts,
    )
    from vsearch.models.backbone import Backbone, list_backbones, load_backbone, resolve_devices
    from vsearch.models.encoder import Encoder, TextEncoder, Window, ZeroShotHead, plan_windows
    from vsearch.models.generator import (
        Generator,
        TrainingOptions,
        TrainingVideo,
        load_generator,
        train_generator,
    )
    from vsearch.models.loading import load_encoder, load_head, load_quick_encoder
    from vsearch.models.preprocess import Preprocess

# fmt: off
__all__ = [
    "ACTION_TEMPLATES", "Backbone", "Encoder", "Generator", "Pairs", "Preprocess", "PromptOptions",
    "TextEncoder", "TrainingOptions", "TrainingVideo", "Window", "ZeroShotHead", "embed_names",
    "list_backbones", "load_backbone", "load_encoder", "load_generator", "load_head", "load_quick_encoder",
    "plan_windows", "resolve_devices", "train_generator", "train_prompts",
]
__getattr__ = face(__name__, {
    "action_prompts": "ACTION_TEMPLATES Pairs PromptOptions embed_names train_prompts",
    "backbone": "Backbone list_backbones load_backbone resolve_devices",
    "encoder": "Encoder TextEncoder Window ZeroShotHead plan_windows",
    "generator": "Generator TrainingOptions TrainingVideo load_generator train_generator",
    "loading": "load_encoder load_head load_quick_encoder",
    "preprocess": "Preprocess",
})
