"""From what a library keeps of an encoder to the encoder: its backbone, and its head, with weights or without."""

from __future__ import annotations

from typing import Any

from vsearch.models.backbone import exported_towers, load_backbone
from vsearch.models.encoder import Encoder, Head, ZeroShotHead


def load_encoder(spec: dict[str, Any], device: str = "auto") -> Encoder:
    """The encoder that a library's spec names. The caller compares identities."""
    backbone = load_backbone(spec["model"], device, spec.get("backbone"))
    if "checkpoint" in spec["head"]:
        from vsearch.models.recipes import restored_encoder

        return restored_encoder(spec["head"], backbone)
    return Encoder(backbone, load_head(spec["head"]))


def load_quick_encoder(spec: dict[str, Any]) -> Encoder | None:
    """The encoder that a library's spec names, if it embeds sentences without torch on this machine; else None. The
    caller compares identities."""
    if spec["head"]["recipe"] != "zero-shot":
        return None
    towers = exported_towers(spec["model"], spec.get("backbone"))
    return load_encoder(spec, "cpu") if towers is not None and towers.reads_texts else None


def load_head(spec: dict[str, Any]) -> Head:
    """The head of a stored spec, to embed stored frame vectors with.

    A trained one is read from its checkpoint and checked: raises ModelError when that is gone, damaged or another.
    """
    if "checkpoint" in spec:
        from vsearch.models.recipes import head_alone

        kept = (spec[name] for name in ("checkpoint", "identity", "model", "window_s", "overlap"))
        return head_alone(*kept)
    return ZeroShotHead(spec["window_s"], spec["overlap"], tuple(spec["templates"]))
