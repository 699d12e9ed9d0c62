"""Small weight files: float16, and int8 rows with one float scale each where that costs nothing.

A big table (the token embedding) is stored as int8 with a float32 scale per row, `value = int8 * scale`; its
scales stand beside it under `<name>.int8_scale`. Everything else is float16; integers stay as they are.
Loading gives float32 back. The file's bytes depend on the tensors alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError

if TYPE_CHECKING:
    import torch

_SCALE = ".int8_scale"


def save_compact(state_dict: Mapping[str, torch.Tensor], path: Path, int8: Collection[str] = ()) -> None:
    """Write a state dict; the matrices (N, ...) named in `int8` with one scale per row of the first axis."""
    from safetensors.torch import save

    out: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(state_dict.items()):
        value = tensor.detach().cpu()
        if name in int8:
            out[name], out[name + _SCALE] = _quantise(value.float())
        elif value.is_floating_point():
            out[name] = value.half().contiguous()
        else:
            out[name] = value.contiguous()
    path.write_bytes(save(out))


def load_compact(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of such a file, float32. Raises ModelError when the file is missing or damaged."""
    import torch

    return {name: torch.from_numpy(value) for name, value in load_compact_arrays(path).items()}


def load_compact_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The same as NumPy arrays, without torch; any safetensors file will do. `names`: those alone, where they are
    there. Raises ModelError as well."""
    from safetensors import SafetensorError, safe_open

    state: dict[str, npt.NDArray[Any]] = {}
    try:
        with safe_open(str(path), "np") as file:
            stored = set(file.keys())
            for name in sorted(stored if names is None else stored.intersection(names)):
                if name.endswith(_SCALE):
                    continue
                value = file.get_tensor(name)
                if np.issubdtype(value.dtype, np.floating) or name + _SCALE in stored:
                    value = value.astype(np.float32, copy=False)
                if name + _SCALE in stored:
                    value *= file.get_tensor(name + _SCALE).reshape(-1, *[1] * (value.ndim - 1))
                state[name] = value
    except (OSError, SafetensorError) as fault:
        raise ModelError(f"cannot read model weights {path}: {fault}; install vsearch again") from fault
    return state


def _quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, ...) float32 -> int8 of that shape and (N,) float32 scales."""
    import torch

    scale = rows.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    quantised = (rows / scale.view(-1, *[1] * (rows.ndim - 1))).round().clamp(-127, 127)
    return quantised.to(torch.int8), scale
