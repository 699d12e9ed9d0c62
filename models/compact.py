"""Compact weights: safetensors with int8 rows where that is enough, float16 elsewhere, float32 after loading.

A tensor `name` stored as int8 has a companion `name::scale`, one float16 a row; value = int8 * scale. Every file
is checked for shape and finiteness by safetensors and the loader; nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SCALE = "::scale"


def save_compact(tensors: Mapping[str, Tensor], path: Path, int8: Collection[str] = ()) -> None:
    """Write tensors: those named in `int8` (N, D) as rows of int8 with a scale each, floats as float16, others as
    they are. The same tensors give the same bytes."""
    import torch
    from safetensors.torch import save_file

    stored: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if name in int8:
            scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-6).half()
            stored[name] = (
                (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8).contiguous()
            )
            stored[name + SCALE] = scale.contiguous()
        else:
            stored[name] = (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
    save_file(stored, path)


def load_compact(path: Path) -> dict[str, Tensor]:
    """Read what `save_compact` wrote, as float32 (integers as they are). Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the weights {path.name} are missing or damaged ({error}); install vsearch again"
        ) from error
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if name + SCALE in stored:
            tensor = tensor.float() * stored[name + SCALE].float()
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors
