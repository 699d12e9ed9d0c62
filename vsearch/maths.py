"""The few formulas that many rooms need: unit vectors, probabilities, overlap in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def normalise(vectors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """(..., D) -> the same as float32, its last axis of unit length; a zero row stays zero."""
    wide = np.asarray(vectors, dtype=np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


def tiou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Temporal intersection over union of (N, 2) and (M, 2) intervals -> (N, M); 0 for two empty ones."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    inside = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    inside = np.maximum(inside, 0.0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Over the last axis."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
