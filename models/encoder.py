"""Encoders: a backbone and a head together turn frames into moment vectors and sentences into query vectors.

The head is the light part on top of stored frame vectors: it decides the windows, pools the frames of a
window into a moment, and wraps a sentence in prompts. The zero-shot head below has no weights; trained heads
(recipes) offer the same few methods.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vsearch.maths import normalise
from vsearch.models.backbone import Backbone, mini_calibration

Vectors = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Window:
    """A moment to be: start and end in ms of the video, and its frames `first_frame:last_frame` (last exclusive)."""

    start_ms: int
    end_ms: int
    first_frame: int
    last_frame: int


class Head(Protocol):
    """What an encoder needs of a head. `identity` = recipe + weights hash + windowing."""

    @property
    def identity(self) -> str: ...
    @property
    def window_s(self) -> float: ...
    @property
    def overlap(self) -> float: ...

    def spec(self) -> dict[str, Any]: ...

    def embed_windows(
        self, frames: Vectors, times_ms: npt.NDArray[np.int64], windows: Sequence[Window]
    ) -> npt.NDArray[np.float32]: ...

    def embed_texts(self, texts: Sequence[str], backbone: Backbone) -> npt.NDArray[np.float32]: ...


class TextEncoder(Protocol):
    """What answers a query needs of an encoder: its name, and sentences to vectors."""

    @property
    def identity(self) -> str: ...

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class ZeroShotHead:
    """Two-step L2 mean pooling (CLIP4Clip meanP, section 3.3) and hand-written sentence templates.

    The vectors of several templates are normalised and averaged.
    """

    window_s: float = 8.0
    overlap: float = 0.5
    templates: tuple[str, ...] = ("{}",)

    @property
    def identity(self) -> str:
        return "zero-shot@" + _digest(self.spec())

    def spec(self) -> dict[str, Any]:
        return {
            "recipe": "zero-shot",
            "window_s": self.window_s,
            "overlap": self.overlap,
            "templates": list(self.templates),
            "frame_space": True,  # moments live in the space of frame vectors, so frames can re-rank them
        }

    def embed_windows(
        self, frames: Vectors, times_ms: npt.NDArray[np.int64], windows: Sequence[Window]
    ) -> npt.NDArray[np.float32]:
        """(T, D) frame vectors -> (M, D) float32 unit vectors, one a window."""
        unit = normalise(frames)
        return normalise(np.stack([unit[w.first_frame : w.last_frame].mean(axis=0) for w in windows]))

    def embed_texts(self, texts: Sequence[str], backbone: Backbone) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors."""
        per_template = [
            normalise(backbone.encode_texts([t.format(text) for text in texts])) for t in self.templates
        ]
        return normalise(np.mean(per_template, axis=0))


@dataclass(frozen=True)
class Encoder:
    """A backbone and a head. `spec` is what the library keeps, enough to load it again or to refuse."""

    backbone: Backbone
    head: Head

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}+{self.head.identity}"

    def spec(self) -> dict[str, Any]:
        zero_shot = isinstance(self.head, ZeroShotHead)  # a trained head's scores are on a scale of their own
        return {
            "model": self.backbone.name,
            "backbone": self.backbone.identity,
            "dim": self.backbone.dim,
            "head": self.head.spec(),
            "calibration": mini_calibration() if zero_shot and self.backbone.name == "mini" else None,
        }

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors."""
        return self.head.embed_texts(texts, self.backbone)


def plan_windows(
    times_ms: npt.NDArray[np.int64], duration_ms: int, window_s: float, overlap: float
) -> list[Window]:
    """Windows over a video's sampled frames: every `window_s * (1 - overlap)` s, the last one ending with it.

    times_ms: (T,) sorted. A video no longer than a window is one moment. Windows without a frame (a hole in a
    damaged file) are left out.
    """
    if len(times_ms) == 0:
        return []
    duration_ms = max(duration_ms, int(times_ms[-1]) + 1)
    length = round(window_s * 1000)
    stride = max(1, round(length * (1 - overlap)))
    starts = list(range(0, max(1, duration_ms - length + 1), stride))
    tail = duration_ms - starts[-1] - length
    if tail > (length * overlap / 2 if len(starts) > 1 else 0):
        starts.append(duration_ms - length)
    elif tail > 0:  # a short rest is no moment of its own: the last window shifts to end with the video
        starts[-1] += tail
    ends = [min(start + length, duration_ms) for start in starts]
    bounds = np.searchsorted(times_ms, [starts, ends]).tolist()
    return [Window(*window) for window in zip(starts, ends, *bounds, strict=True) if window[2] < window[3]]


def _digest(spec: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(spec, sort_keys=True).encode(), digest_size=8).hexdigest()
