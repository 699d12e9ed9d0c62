"""Scores for localization: mAP by the ActivityNet rules, average recall of proposals.

AP of a class: its predictions of all videos by falling score; each takes the best-overlapping instance of its
video that is still free; interpolated precision, area under the curve; classes of the ground truth averaged.
Where scores are equal, video and time decide the order, so that no figure depends on the order of a file.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError
from vsearch.maths import tiou
from vsearch.models.training.segments import Prediction, Segment

THUMOS_IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
ACTIVITYNET_IOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # .5 to .95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MapResult:
    """AP of each class at each tIoU threshold, 0..1."""

    thresholds: tuple[float, ...]
    classes: dict[str, tuple[float, ...]]

    def at(self, threshold: float) -> float:
        """mAP at one threshold."""
        i = self.thresholds.index(threshold)
        return math.fsum(ap[i] for ap in self.classes.values()) / len(self.classes)

    @property
    def average(self) -> float:
        """Mean of the mAP over all thresholds."""
        return math.fsum(self.at(t) for t in self.thresholds) / len(self.thresholds)


@dataclass(frozen=True)
class OpenSetResult:
    """One result a split of classes; the figures to report are means over splits."""

    splits: tuple[MapResult, ...]

    def at(self, threshold: float) -> float:
        return float(np.mean([split.at(threshold) for split in self.splits]))

    @property
    def average(self) -> float:
        return float(np.mean([split.average for split in self.splits]))

    @property
    def deviation(self) -> float:
        """Standard deviation of the average mAP over splits."""
        return float(np.std([split.average for split in self.splits]))


def mean_average_precision(
    truth: Collection[Segment], predictions: Iterable[Prediction], thresholds: Sequence[float] = THUMOS_IOUS
) -> MapResult:
    """mAP at tIoU thresholds (THUMOS_IOUS or ACTIVITYNET_IOUS for the two protocols).

    Predictions of classes that the truth lacks do not count. Raises VsearchError without any truth, or for a
    score or time that is no number.
    """
    if not truth:
        raise VsearchError("there are no annotated segments to evaluate against")
    wanted = _by_label(truth)
    found: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        if not (math.isfinite(p.score) and math.isfinite(p.start_s) and math.isfinite(p.end_s)):
            raise VsearchError(f"a prediction for {p.video} has a score or time that is no number: {p}")
        found[p.label].append(p)
    limits = np.asarray(thresholds, dtype=np.float64)
    classes = {
        label: tuple(_class_ap(wanted[label], found[label], limits).tolist()) for label in sorted(wanted)
    }
    return MapResult(tuple(thresholds), classes)


def open_set(
    truth: Collection[Segment],
    splits: Sequence[Collection[str]],
    predict: Callable[[Collection[str]], Iterable[Prediction]],
    thresholds: Sequence[float] = THUMOS_IOUS,
) -> OpenSetResult:
    """Open-set protocol: for each split, the videos with instances of its unseen classes, these classes only.

    `predict(unseen)` gives a split's predictions, made with those names alone as candidates (strict: no
    classifier that knows the classes). Report the mean over the splits (Efficient-Prompt's are 10).
    """
    results = []
    for unseen in splits:
        here = [s for s in truth if s.label in unseen]
        videos = {s.video for s in here}
        kept = [p for p in predict(unseen) if p.video in videos and p.label in unseen]
        results.append(mean_average_precision(here, kept, thresholds))
    return OpenSetResult(tuple(results))


def average_recall(
    truth: Collection[Segment],
    proposals: Iterable[Prediction],
    number: int,
    thresholds: Sequence[float] = ACTIVITYNET_IOUS,
) -> float:
    """AR@AN, labels ignored: share of instances that one of a video's `number` best proposals overlaps enough,
    averaged over thresholds."""
    if not truth:
        raise VsearchError("there are no annotated segments to evaluate against")
    by_video: dict[str, list[Prediction]] = defaultdict(list)
    for p in sorted(proposals, key=_order):
        if len(by_video[p.video]) < number:
            by_video[p.video].append(p)
    best = [  # how well the best proposal covers each instance
        float(tiou(_bounds([s]), _bounds(by_video[s.video])).max(initial=0.0)) for s in truth
    ]
    return float(np.mean([np.mean(np.asarray(best) >= t) for t in thresholds]))


def _class_ap(truth: Sequence[Segment], predictions: Iterable[Prediction], limits: Floats) -> Floats:
    """AP of one class at each threshold, (K,)."""
    in_video: dict[str, list[Segment]] = defaultdict(list)
    for s in sorted(truth, key=lambda s: (s.start_s, s.end_s)):
        in_video[s.video].append(s)
    bounds = {video: _bounds(segments) for video, segments in in_video.items()}
    free = {video: np.ones((len(limits), len(s)), dtype=bool) for video, s in in_video.items()}
    ordered = sorted(predictions, key=_order)
    hits = np.zeros((len(limits), len(ordered)), dtype=bool)
    for i, p in enumerate(ordered):
        if p.video not in bounds:
            continue
        overlap = tiou(_bounds([p]), bounds[p.video])  # (1, G)
        usable = np.where(free[p.video] & (overlap >= limits[:, None]), overlap, -1.0)  # (K, G)
        chosen = usable.argmax(axis=1)
        hit = usable.max(axis=1) >= 0
        free[p.video][hit, chosen[hit]] = False
        hits[:, i] = hit
    return np.asarray([_area(row, len(truth)) for row in hits])


def _area(hits: npt.NDArray[np.bool_], positives: int) -> float:
    """Area under the interpolated precision-recall curve (VOC 2010 on, as ActivityNet does)."""
    correct = np.cumsum(hits)
    precision = correct / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / positives)


def _by_label(segments: Iterable[Segment]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = defaultdict(list)
    for s in segments:
        found[s.label].append(s)
    return found


def _bounds(segments: Sequence[Segment]) -> Floats:
    return np.asarray([(s.start_s, s.end_s) for s in segments], dtype=np.float64).reshape(-1, 2)


def _order(p: Prediction) -> tuple[float, str, float, float]:
    return (-p.score, p.video, p.start_s, p.end_s)
