"""Everything with weights: backbones, heads, the built-in model. Knows nothing of libraries, SQL or the CLI."""

from vsearch.models.backbone import Backbone, list_backbones, load_backbone, resolve_devices
from vsearch.models.encoder import Encoder, Head, TextEncoder, Window, ZeroShotHead, plan_windows
from vsearch.models.loading import load_encoder, load_head
from vsearch.models.preprocess import Preprocess
from vsearch.models.recipes.checkpoint import Card, read_card

__all__ = [
    "Backbone",
    "Card",
    "Encoder",
    "Head",
    "Preprocess",
    "TextEncoder",
    "Window",
    "ZeroShotHead",
    "list_backbones",
    "load_backbone",
    "load_encoder",
    "load_head",
    "plan_windows",
    "read_card",
    "resolve_devices",
]
