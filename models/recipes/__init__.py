"""The five systems as recipes over shared parts, and what a training leaves of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.recipes.blocks import heads_for, mlp
    from vsearch.models.recipes.checkpoint import CARD, WEIGHTS, load, read_card
    from vsearch.models.recipes.frame_side import load_frame_side
    from vsearch.models.recipes.recipe import Recipe, load_recipe
    from vsearch.models.recipes.text_tower import read, text_parts
    from vsearch.models.recipes.trained_head import head_alone, restored_encoder, trained_encoder
    from vsearch.models.recipes.video_text import Batch, VideoSide, VideoText

# fmt: off
__all__ = [
    "CARD",
    "WEIGHTS",
    "Batch",
    "Recipe",
    "VideoSide",
    "VideoText",
    "head_alone",
    "heads_for",
    "load",
    "load_frame_side",
    "load_recipe",
    "mlp",
    "read",
    "read_card",
    "restored_encoder",
    "text_parts",
    "trained_encoder",
]
__getattr__ = face(__name__, {
    "blocks": "heads_for mlp",
    "checkpoint": "CARD WEIGHTS load read_card",
    "frame_side": "load_frame_side",
    "recipe": "Recipe load_recipe",
    "text_tower": "read text_parts",
    "trained_head": "head_alone restored_encoder trained_encoder",
    "video_text": "Batch VideoSide VideoText",
})
