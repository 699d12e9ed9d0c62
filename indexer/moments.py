"""Encoders in a library: entering one, making its moments, and their vectors, all from stored frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import DamagedFramesError

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo, Library, NewMoment
    from vsearch.models import Encoder


def register(library: Library, encoder: Encoder) -> int:
    """The encoder's id in the library, which gets a copy of a trained head."""
    return register_head(library, encoder.backbone.identity, encoder.head.identity, encoder.spec())


def register_head(library: Library, backbone: str, head: str, spec: dict[str, Any]) -> int:
    """The same for an encoder with these identities and that spec."""
    if "checkpoint" in spec["head"]:
        from vsearch.models.checkpoint import CARD, WEIGHTS

        folder = Path(spec["head"]["checkpoint"])
        spec["head"]["checkpoint"] = library.keep_head([folder / CARD, folder / WEIGHTS])
    return library.register_encoder(f"{backbone}+{head}", backbone, head, spec)


def renew_moments(library: Library, encoder_id: int) -> int:
    """Moments for stored frames that have none of this encoder, or not all: after a repair or damage, or with a new
    head. Their number."""
    encoder = library.encoder(encoder_id)
    moments = {}
    for frame_set in library.frame_sets_without_moments(encoder_id):
        try:
            times = library.frame_store.read(frame_set.frames).times_ms
        except DamagedFramesError:  # costs that video alone
            library.report_frames(frame_set.frames.fingerprint)
            continue
        moments[frame_set.id] = windows_of(encoder, times, frame_set.duration_ms)
    if moments:
        library.add_moments(encoder_id, moments)
    return sum(map(len, moments.values()))


def windows_of(encoder: EncoderInfo, times_ms: npt.NDArray[np.int64], duration_ms: int) -> list[NewMoment]:
    """The moments that an encoder has of frames at these times (T,) of a video this long."""
    from vsearch.library import NewMoment
    from vsearch.models import plan_windows

    head = encoder.spec["head"]
    windows = plan_windows(np.ascontiguousarray(times_ms), duration_ms, head["window_s"], head["overlap"])
    return [NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows]


def embedder(library: Library, encoder_id: int) -> Callable[..., npt.NDArray[np.float32]]:
    """Moment vectors from stored frames by an encoder's head: (vectors, times_ms, moments) -> (M, D).

    The head is loaded at the first use: there may be nothing to embed, and a trained one brings its text tower.
    """
    from vsearch.models import load_head

    spec = library.encoder(encoder_id).spec["head"]

    def embed(vectors: Any, times_ms: Any, moments: Any) -> npt.NDArray[np.float32]:
        return load_head(spec).embed_windows(vectors, times_ms, moments)

    return embed
