"""Search: a sentence (or a frame) against the moments of a library.

embed -> nearest moments (FAISS) -> exact re-ranking with the stored frames -> merge and group -> words.
A sentence asked before costs no model: its vector is cached in the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import LibraryError, ModelError, VsearchError
from vsearch.retriever.calibrate import strength
from vsearch.retriever.rank import Scored, group_by_video, query_scored_similarity

if TYPE_CHECKING:
    from vsearch.library import Library, VideoInfo

# Candidates for re-ranking: enough that n videos remain after merging overlaps of long videos.
CANDIDATES_PER_VIDEO, MIN_CANDIDATES = 20, 200


@dataclass(frozen=True)
class Hit:
    """A video's best moment. `score` is a cosine; `more` are its other moments, `also_at` copies of the file."""

    rank: int
    path: str
    video_id: int
    start_ms: int
    end_ms: int
    score: float
    strength: str | None
    more: tuple[Scored, ...]
    also_at: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Hits best first. `confident` is False when even the best is no better than unrelated moments."""

    query: str
    model: str
    confident: bool
    hits: tuple[Hit, ...]


def search(
    library: Library, text: str, *, number: int = 10, threshold: float | None = None, device: str = "auto"
) -> Answer:
    """The moments that a sentence describes, at most `number` videos, each with its best moment first.

    Raises VsearchError for an empty sentence, LibraryError when there is no index, ModelError when the
    library's model is not the one at hand.
    """
    text = " ".join(text.split())
    if not text:
        raise VsearchError("the query is empty; describe what should be seen, like a caption")
    live = library.live_encoder()
    query = library.cached_text_vector(live.id, text)
    if query is None:
        query = _embed_text(live.identity, live.spec, text, device)
        library.cache_text_vector(live.id, text, query)
    return _answer(library, text, query, live.spec, number, threshold)


def search_similar(library: Library, video: VideoInfo, time_ms: int, *, number: int = 10) -> Answer:
    """Moments that look like the frame of `video` at `time_ms`; the place itself is left out."""
    live = library.live_encoder()
    frames = library.frame_set(video)
    if frames is None or len(frames.times_ms) == 0:
        raise LibraryError(f"{video.path} has no frame vectors; index it first")
    if video.duration_ms is not None and time_ms > video.duration_ms:
        raise VsearchError(f"the video ends before that time: it is {video.duration_ms / 1000:.1f} s long")
    i = max(0, int(np.searchsorted(frames.times_ms, time_ms, side="right")) - 1)
    frame = np.asarray(frames.vectors[i], dtype=np.float32)
    query = frame / max(float(np.linalg.norm(frame)), 1e-12)

    def elsewhere(m: Scored) -> bool:
        return m.video_id != video.id or not m.start_ms <= time_ms <= m.end_ms

    # Scores between pictures say nothing on the scale of scores between sentences and pictures.
    spec = {**live.spec, "calibration": None}
    return _answer(library, f"{video.path}@{time_ms / 1000:.3f}", query, spec, number, None, keep=elsewhere)


def _embed_text(identity: str, spec: Mapping[str, Any], text: str, device: str) -> npt.NDArray[np.float32]:
    from vsearch.models import load_encoder

    encoder = load_encoder(dict(spec), device)
    if encoder.identity != identity:
        raise ModelError(
            f"this library was indexed with {identity}, but this installation has {encoder.identity}; "
            "index it again into a new library: vsearch index FOLDER --library NEW"
        )
    return encoder.embed_texts([text])[0]


def _answer(
    library: Library,
    label: str,
    query: npt.NDArray[np.float32],
    spec: Mapping[str, Any],
    number: int,
    threshold: float | None,
    keep: Callable[[Scored], bool] = lambda m: True,
) -> Answer:
    wanted = max(MIN_CANDIDATES, CANDIDATES_PER_VIDEO * number)
    nearest = library.search_moments(query, wanted)  # [(MomentInfo, score)], only moments of present videos
    scored = []
    copies: dict[int, tuple[VideoInfo, tuple[str, ...]]] = {}
    for moment, score in nearest:
        if spec["head"].get("frame_space"):
            frames = library.moment_frames(moment)
            score = query_scored_similarity(frames, query)
        copies[moment.video.id] = (moment.video, moment.also_at)
        scored.append(Scored(moment.video.id, moment.start_ms, moment.end_ms, score))
    answers = group_by_video([m for m in scored if keep(m) and (threshold is None or m.score >= threshold)])
    calibration = spec.get("calibration")
    hits = []
    for rank, found in enumerate(answers[:number], start=1):
        best, (video, also_at) = found.best, copies[found.best.video_id]
        word = strength(best.score, calibration)
        hits.append(
            Hit(rank, video.path, video.id, best.start_ms, best.end_ms, best.score, word, found.moments[1:], also_at)
        )
    confident = bool(hits) and hits[0].strength != "unlikely"
    return Answer(label, str(spec["model"]), confident, tuple(hits))
