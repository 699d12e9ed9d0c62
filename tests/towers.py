"""Small random CLIPs for tests of what is built on them."""

from __future__ import annotations

from typing import Any

import torch


def small_clip(**text: int) -> Any:
    """64-pixel pictures, 16 patches, two vision and three text layers, joint dimension 32."""
    import open_clip

    torch.manual_seed(0)
    return open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3, **text},
    ).eval()


def tokens(sentences: list[str]) -> torch.Tensor:
    import open_clip

    return open_clip.SimpleTokenizer()(sentences)


def shape_of(name: str) -> Any:
    """A published architecture without memory behind it: for counting."""
    import open_clip

    with torch.device("meta"):
        return open_clip.model.CLIP(**open_clip.get_model_config(name))
