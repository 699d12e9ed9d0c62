"""What happens when: proposals of a video against action names, from stored frame vectors alone.

Two stages (Efficient-Prompt, section on localization): class-agnostic proposals, then the mean of the dense
features inside each against the names' text vectors. A score becomes comparable between names by its place among
the scores of unrelated footage ("background"), and an interval gains by being one of the video's better proposals.
Then, within each name, intervals that lie apart; or all of them after soft-NMS (Bodla et al. 2017, Gaussian), for
scoring. Names may overlap.

The constants were chosen on the training videos of `benchmarks/localization.py` with the built-in model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.maths import normalise, tiou
from vsearch.retriever.actions.proposals import Floats, Ints, Proposals, Timeline, suppress

WORTH = 2.0  # weight of a proposal's score, as the logarithm of its ratio to GOOD times the mean
GOOD = 1.5
WORTH_RANGE = (-2.0, 0.5)  # below REJECT / WORTH: the best proposal is no evidence of an action
REJECT = 1.5  # deviations above unrelated footage where a name becomes as likely as not
RIVALRY = 1.0  # how much a name yields where another fits better
SLOPE, OFFSET = 1.6, -2.26  # of log-odds, to those of overlapping a true interval by half or more
ALIKE = 1.6  # log-odds: intervals of one name that touch and differ by less are one
SIGMA = 0.3  # soft-NMS: a neighbour of overlap o keeps exp(-o^2 / SIGMA) of its score
FEWEST_REFERENCES = 40  # windows; with less, the model's own calibration says what unrelated footage scores
LABELS_PER_PROPOSAL = 3


@dataclass(frozen=True)
class Detection:
    """An interval of a video, an action's name and how likely it is there, 0..1."""

    start_ms: int
    end_ms: int
    label: str
    score: float


@dataclass(frozen=True)
class Limits:
    """How many detections a video gives at most, and how good they must be. `overlapping`: for scoring, those too that
    share time with a better one of their name."""

    per_class: int = 50
    per_video: int = 200
    least_score: float = 0.4
    overlapping: bool = False


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Background:
    """What unrelated footage scores (cosines) for each name: (C,) median and deviation."""

    middle: Floats
    deviation: Floats


def localize(
    timeline: Timeline,
    proposals: Proposals,
    names: Sequence[str],
    texts: Floats,
    background: Background,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Detection]:
    """Detections of a video, best first.

    timeline: dense features of its frames; texts: (C, D) unit vectors of the names. Deterministic.
    """
    if not len(proposals) or not names:
        return []
    scores = classify_proposals(timeline, proposals, texts, background)  # (P, C)
    if not limits.overlapping:  # soft-NMS takes them down anyway, and ranks better as they are
        scores = calibrated(scores)
    found = []
    keep = min(LABELS_PER_PROPOSAL, len(names))
    floor = np.partition(scores, -keep, axis=1)[:, -keep]
    bounds = np.stack([proposals.start_ms, proposals.end_ms], axis=1)
    for c, name in enumerate(names):
        own = np.flatnonzero((scores[:, c] >= floor) & (scores[:, c] >= limits.least_score))
        if limits.overlapping:
            kept, decayed = soft_nms(bounds[own], scores[own, c], limits.least_score, limits.per_class)
            intervals = [(*bounds[own[k]].tolist(), score) for k, score in zip(kept, decayed, strict=True)]
        else:
            intervals = apart(bounds[own], scores[own, c])[: limits.per_class]
        found += [Detection(start, end, name, score) for start, end, score in intervals]
    found.sort(key=lambda d: (-d.score, d.start_ms, d.end_ms, d.label))
    return found[: limits.per_video]


def classify_proposals(
    timeline: Timeline, proposals: Proposals, texts: Floats, background: Background
) -> Floats:
    """(P, C) how likely each proposal shows each action, 0..1."""
    first, last = proposals.first, proposals.last
    projected = timeline.sums @ texts.T.astype(np.float64)  # (T+1, C)
    norms = np.linalg.norm(timeline.sums[last] - timeline.sums[first], axis=1)[:, None]
    inside = (projected[last] - projected[first]) / np.maximum(norms, 1e-12)  # (P, C) cosines of means
    evidence = (inside - background.middle) / background.deviation - REJECT  # deviations of unrelated footage
    best = np.sort(evidence, axis=1)[:, -2:]
    rival = np.where(evidence == best[:, -1:], best[:, :1], best[:, -1:]) if texts.shape[0] > 1 else evidence
    evidence = evidence - RIVALRY * np.maximum(rival - evidence, 0)
    good = GOOD * max(float(proposals.score.mean()), 1e-9)
    worth = np.log(np.maximum(proposals.score, 1e-9) / good)
    evidence = evidence + WORTH * np.clip(worth, *WORTH_RANGE)[:, None]
    return (1 / (1 + np.exp(-np.clip(evidence, -30, 30)))).astype(np.float32)


def calibrated(scores: Floats) -> Floats:
    """Scores as the share of intervals called so that overlap a true one by half or more (Platt scaling)."""
    p = np.clip(scores.astype(np.float64), 1e-9, 1 - 1e-9)
    return (1 / (1 + np.exp(-(SLOPE * np.log(p / (1 - p)) + OFFSET)))).astype(np.float32)


def background_from(references: Floats, texts: Floats) -> Background:
    """From (R, D) unit vectors of footage at large. What little of it shows an action does no harm: the median,
    and the spread below it."""
    cosines = references @ texts.T  # (R, C)
    low, middle = np.quantile(cosines, [0.16, 0.5], axis=0)
    return Background(middle.astype(np.float32), np.maximum(middle - low, 1e-3).astype(np.float32))


def background_of_model(calibration: Mapping[str, Any] | None, classes: int) -> Background:
    """From the scores between unrelated sentences and moments that travel with a model, alike for all names.

    Without such figures: CLIP's usual range.
    """
    low, middle = 0.15, 0.18
    if calibration is not None:
        quantiles = calibration["unrelated"]
        low, middle = (float(np.interp(q, quantiles["q"], quantiles["score"])) for q in (0.16, 0.5))
    one = np.ones(classes, dtype=np.float32)
    return Background(middle * one, max(middle - low, 1e-3) * one)


def apart(bounds: Ints, scores: Floats) -> list[tuple[int, int, float]]:
    """Of (N, 2) intervals those that neither overlap nor touch: start, end and score, best first.

    Of two that overlap the better stays. Two that touch become one when they are about as likely; else the better stays.
    """
    order = np.argsort(-scores, kind="stable")
    kept = order[suppress(bounds[order], 0.0, len(order))]
    found: list[tuple[int, int, float]] = []
    for i in kept[np.argsort(bounds[kept, 0])]:
        (start, end), score = bounds[i].tolist(), float(scores[i])
        if found and found[-1][1] == start:
            before = found.pop()
            if abs(_log_odds(score) - _log_odds(before[2])) <= ALIKE:
                start, score = before[0], max(score, before[2])
            elif score < before[2]:
                start, end, score = before
        found.append((start, end, score))
    return sorted(found, key=lambda each: (-each[2], each[0]))


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))


def soft_nms(bounds: Ints, scores: Floats, least: float, number: int) -> tuple[list[int], list[float]]:
    """Gaussian soft-NMS of (N, 2) intervals: indices and decayed scores, best first, until `least` or `number`."""
    left = scores.astype(np.float64).copy()
    kept: list[int] = []
    decayed: list[float] = []
    while len(kept) < number and len(left):
        i = int(left.argmax())  # the first of equals
        if left[i] < least:
            break
        kept.append(i)
        decayed.append(float(left[i]))
        left *= np.exp(-np.square(tiou(bounds[i : i + 1], bounds)[0]) / SIGMA)
        left[i] = -1.0
    return kept, decayed


def reference_windows(
    timelines: Sequence[Timeline], width: int = 8, most: int = 4000
) -> npt.NDArray[np.float32]:
    """(R, D) unit means of `width` frames, evenly over all videos: footage at large, for `background_from`."""
    count = sum(len(t) for t in timelines)
    stride = max(width, -(-count // most))
    means = []
    for timeline in timelines:
        first = np.arange(0, max(1, len(timeline) - width + 1), stride)
        means.append(timeline.means(first, np.minimum(first + width, len(timeline))))
    if not means:
        return np.zeros((0, 0), dtype=np.float32)
    return normalise(np.concatenate(means))
