"""From candidate moments to an ordered answer: re-rank with frames, merge overlaps, group by video.

Pure functions over numpy arrays; nothing here knows of files, SQL or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.maths import normalise
from vsearch.retriever.answer import Scored

# Temperature of query-scored pooling: Bain et al., "A CLIP-Hitchhiker's Guide to Long Video Retrieval", 2022.
POOLING_TAU = 0.3
MIN_EVENT_MS = 2000  # shorter answers are hard to watch
MERGE_WITHIN = 0.25  # of the score spread: overlapping moments this near to the best show the same event
EVENT_CONTRAST = 0.35  # of the score spread: frames that vary less show the same thing throughout


@dataclass(frozen=True)
class VideoAnswer:
    """A video's best moment first, then its other moments, by score."""

    moments: tuple[Scored, ...]

    @property
    def best(self) -> Scored:
        return self.moments[0]


def query_scored_similarity(
    frames: npt.NDArray[np.floating[Any]], query: npt.NDArray[np.float32], tau: float = POOLING_TAU
) -> float:
    """Cosine of the query with frames pooled by how well each fits it: v(q) = sum_t softmax_t(cos/tau) x_t.

    frames: (T, D), any length of row; query: (D,), unit.
    """
    unit = normalise(frames)
    cosines = unit @ query  # (T,)
    weights = np.exp((cosines - cosines.max()) / tau)
    pooled = (weights / weights.sum()) @ unit
    return float(normalise(pooled) @ query)


def mean_similarity(frames: npt.NDArray[np.floating[Any]], query: npt.NDArray[np.float32]) -> float:
    """Cosine of the query with the mean of the unit frames: what the index of a head that averages says."""
    mean = normalise(frames).mean(axis=0)
    return float(normalise(mean) @ query)


def frame_cosines(
    frames: npt.NDArray[np.floating[Any]], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(T, D) frames of any length, unit query (D,) -> (T,) cosines."""
    return normalise(frames) @ query


def merge_overlaps(moments: Sequence[Scored], margin: float) -> list[Scored]:
    """One moment for each run of overlapping ones of a video, best first.

    From the best moment down: overlapping (or touching) neighbours that score within `margin` of it belong to
    the same event and widen it; weaker neighbours that overlap the result are dropped. Ties: earlier first.
    """
    rest = sorted(moments, key=_order)
    merged: list[Scored] = []
    while rest:
        best = rest.pop(0)
        start, end = best.start_ms, best.end_ms
        grown = True
        while grown:
            grown = False
            for m in rest:
                touches = m.start_ms <= end and m.end_ms >= start
                if touches and m.score >= best.score - margin and (m.start_ms < start or m.end_ms > end):
                    start, end, grown = min(start, m.start_ms), max(end, m.end_ms), True
        merged.append(replace(best, start_ms=start, end_ms=end))
        rest = [m for m in rest if m.end_ms <= start or m.start_ms >= end]
    return merged


def group_by_video(moments: Sequence[Scored]) -> list[VideoAnswer]:
    """Merge each video's overlapping moments, then order videos by their best one. Deterministic."""
    margin = MERGE_WITHIN * score_spread(moments)
    by_video: dict[int, list[Scored]] = {}
    for m in moments:
        by_video.setdefault(m.video_id, []).append(m)
    answers = [VideoAnswer(tuple(merge_overlaps(found, margin))) for found in by_video.values()]
    return sorted(answers, key=lambda a: _order(a.best))


def score_spread(moments: Sequence[Scored]) -> float:
    """How far a query's best moment stands out from the usual one: the model's scale, for this query."""
    scores = [m.score for m in moments]
    return max(scores) - float(np.median(scores)) if scores else 0.0


def split_into_events(
    moment: Scored, times_ms: npt.NDArray[np.int64], cosines: npt.NDArray[np.float32], least_contrast: float
) -> list[Scored]:
    """Where, inside a moment, the frames fit the query: one moment or several, best first.

    times_ms, cosines: (T,) of the video's sampled frames and their fit. Frames above half way between the lowest
    and the highest fit are the event; runs no more than 2 s apart are one. The moment stays whole when the fit
    varies by less than `least_contrast`: then all of it shows what was asked. The best run keeps the moment's
    score; the score of another is lower by how much less its best frame fits.
    """
    first, last = (int(i) for i in np.searchsorted(times_ms, [moment.start_ms, moment.end_ms]))
    if last - first < 3:
        return [moment]
    inside = np.pad(cosines[first:last], 1, mode="edge")
    smooth = (inside[:-2] + inside[1:-1] + inside[2:]) / 3  # one odd frame is no event
    low, high = float(smooth.min()), float(smooth.max())
    if not high - low >= least_contrast:  # nor when a value is not finite
        return [moment]
    fits = np.flatnonzero(smooth >= (low + high) / 2)
    times = times_ms[first:last]
    step = int(np.median(np.diff(times)))
    cuts = np.flatnonzero(np.diff(times[fits]) > MIN_EVENT_MS + step) + 1
    events = []
    for run in np.split(fits, cuts):
        start, end = int(times[run[0]]) - step, int(times[run[-1]]) + 2 * step
        short = max(0, MIN_EVENT_MS - (end - start))
        start, end = start - short // 2, end + short - short // 2
        score = moment.score - (high - float(smooth[run].max()))
        start, end = max(moment.start_ms, start), min(moment.end_ms, end)
        events.append(replace(moment, start_ms=start, end_ms=end, score=score))
    return sorted(events, key=_order)


def _order(m: Scored) -> tuple[float, int, int, int]:
    return (-m.score, m.video_id, m.start_ms, m.end_ms)
