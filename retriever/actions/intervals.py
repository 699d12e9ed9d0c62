"""Free-text moments inside one video: ranked intervals with their own borders, not fixed windows.

A pure function over a video's dense features, their times and a query vector. Candidates are the training-free
proposals (where the picture changes) and the runs of frames above several levels of fit to the query (where the
meaning changes); each is judged by how far its fit stands out from the rest of the video, and by its borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vsearch.maths import normalise
from vsearch.retriever.actions.proposals import Floats, Ints, Timeline, distinctness, propose

LEVELS = np.linspace(0.2, 0.9, 8)  # of the way from the lowest to the highest fit
# Chosen on one half of benchmarks/moments.py.
LENGTH_POWER = (
    0.25  # 0: the highest mean wins, however short; 0.5: the scan statistic, which favours long runs
)
DISTINCTNESS_POWER = 0.5  # how much an interval that holds together and differs from both sides is worth
APART = 0.3  # share of the shorter of two answers that may lie in the other


@dataclass(frozen=True)
class Interval:
    """A ranked answer. `score`: cosine of the query with the interval's mean frame, -1..1."""

    start_ms: int
    end_ms: int
    score: float


def find_intervals(timeline: Timeline, query: Floats, number: int = 10) -> list[Interval]:
    """At most `number` intervals that the query describes, best first.

    timeline: of dense features (see `Timeline.of`); query: (D,), unit.
    """
    if len(timeline) == 0:
        return []
    fit = timeline.unit @ query  # (T,)
    spans = np.unique(np.concatenate([_proposed(timeline), _above_levels(fit)]), axis=0)
    first, last = spans[:, 0], spans[:, 1]
    worth = _standing_out(fit, timeline, first, last)
    order = np.lexsort((last, first, -worth))
    order = order[: max(1, int((worth > 0).sum()))]  # what fits less than the video's median is no answer
    kept = order[_apart(timeline.edges_ms[spans[order]], number)]
    means = timeline.means(first[kept], last[kept])
    cosines = normalise(means) @ query
    edges = timeline.edges_ms
    return [
        Interval(int(edges[spans[k, 0]]), int(edges[spans[k, 1]]), float(cosine))
        for k, cosine in zip(kept, cosines, strict=True)
    ]


def _apart(bounds: Ints, number: int) -> list[int]:
    """Indices of (P, 2) intervals, best first, each of its own place: neither part nor whole of a better one."""
    kept: list[int] = []
    for i, (start, end) in enumerate(bounds.tolist()):
        if len(kept) == number:
            break
        if all(
            min(end, b) - max(start, a) <= APART * min(end - start, b - a) for a, b in bounds[kept].tolist()
        ):
            kept.append(i)
    return kept


def _proposed(timeline: Timeline) -> Ints:
    proposals = propose(timeline)
    return np.stack([proposals.first, proposals.last], axis=1)


def _above_levels(fit: Floats) -> Ints:
    """(P, 2) runs of frames whose smoothed fit is above each level."""
    padded = np.pad(fit, 1, mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3  # one odd frame is no event
    low, high = float(smooth.min()), float(smooth.max())
    spans = [(0, len(fit))]
    for level in low + (high - low) * LEVELS:
        steps = np.diff(np.pad((smooth >= level).astype(np.int8), 1))
        spans += zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True)
    return np.asarray(spans, dtype=np.int64)


def _standing_out(fit: Floats, timeline: Timeline, first: Ints, last: Ints) -> npt.NDArray[np.float64]:
    """(P,) how much better each span fits than the video, weighed by its length and by how distinct it is: what the
    query says of the content, and what the pictures say of the borders."""
    sums = np.concatenate([[0.0], np.cumsum(fit, dtype=np.float64)])
    count = last - first
    gain = (sums[last] - sums[first]) / count - np.median(fit)
    weight = count**LENGTH_POWER * np.maximum(distinctness(timeline, first, last), 1e-6) ** DISTINCTNESS_POWER
    return np.where(gain > 0, gain * weight, gain)
