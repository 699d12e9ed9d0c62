"""How a frame becomes a tower's input, and the name of a backbone that is made of that and its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError


@dataclass(frozen=True)
class Preprocess:
    """How a frame becomes a tower's input: size in pixels, RGB mean and std of values in 0..1."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"  # 'shortest' (then centre crop), 'squash' or 'longest' (then pad)


def preprocess_of(cfg: Mapping[str, Any]) -> Preprocess:
    """open_clip's preprocessing settings, in our words. Raises ModelError for pictures that are not square."""
    size = cfg["size"]
    if isinstance(size, (list, tuple)):
        if len(set(size)) != 1:
            raise ModelError(
                f"this model takes pictures of {size[0]}x{size[1]}; only square inputs are supported"
            )
        size = size[0]
    return Preprocess(
        int(size), tuple(cfg["mean"]), tuple(cfg["std"]), cfg.get("interpolation", "bicubic"),
        cfg.get("resize_mode", "shortest"),
    )  # fmt: skip


def identity_of(name: str, state: Mapping[str, npt.NDArray[Any]], pre: Preprocess) -> str:
    """Name, and a hash over preprocessing and weights as they are in memory, which is how they count."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps(asdict(pre), sort_keys=True).encode())
    for key, array in sorted(state.items()):
        digest.update(f"{key}{tuple(array.shape)}torch.{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    label = Path(name).name if Path(name).exists() else name.partition(":")[0] if ":/" in name else name
    return f"{label}@{digest.hexdigest()}"
