"""The evaluator: known answers, an independent slow evaluator, and what must not change a figure."""

from __future__ import annotations

import gzip
import json
import math
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsearch.errors import VsearchError
from vsearch.models.training import Segment, read_annotations, read_names
from vsearch.models.training.localization_metrics import (
    ACTIVITYNET_IOUS,
    THUMOS_IOUS,
    average_recall,
    mean_average_precision,
    open_set,
    tiou,
)
from vsearch.models.training.segments import Prediction

SHARED = Path(os.environ.get("VSEARCH_SHARED", Path(__file__).resolve().parents[3] / "shared"))
needs_annotations = pytest.mark.skipif(
    not (SHARED / "data/annotations").is_dir(), reason="research data (VSEARCH_SHARED) is not here"
)


def truth(*spans: tuple[float, float], video: str = "v", label: str = "a") -> list[Segment]:
    return [Segment(video, start, end, label) for start, end in spans]


def found(*spans: tuple[float, float, float], video: str = "v", label: str = "a") -> list[Prediction]:
    return [Prediction(video, start, end, label, score) for start, end, score in spans]


# Known answers


def test_perfect_predictions_score_one() -> None:
    result = mean_average_precision(truth((0, 10), (20, 30)), found((0, 10, 0.9), (20, 30, 0.1)))
    assert result.average == 1


def test_a_wrong_prediction_above_the_right_one_halves_the_precision() -> None:
    result = mean_average_precision(truth((0, 10)), found((50, 60, 0.9), (0, 10, 0.8)))
    assert result.average == 0.5


def test_area_of_a_curve_worked_by_hand() -> None:
    # hit, miss, hit of three instances: precision 1, 1/2, 2/3; interpolated 1, 2/3, 2/3; one instance never found
    given_ = found((0, 10, 0.9), (100, 110, 0.8), (20, 30, 0.7))
    result = mean_average_precision(truth((0, 10), (20, 30), (40, 50)), given_)
    assert result.at(0.5) == pytest.approx((1 + 2 / 3) / 3)


def test_interpolation_lifts_precision_to_the_best_at_higher_recall() -> None:
    # miss, hit, hit: precision 0, 1/2, 2/3 -> 2/3 at both
    given_ = found((90, 95, 0.9), (0, 10, 0.8), (20, 30, 0.7))
    assert mean_average_precision(truth((0, 10), (20, 30)), given_).at(0.5) == pytest.approx(2 / 3)


def test_an_overlap_of_exactly_the_threshold_counts() -> None:
    result = mean_average_precision(truth((0, 10)), found((0, 5, 1.0)), (0.5, 0.51))
    assert (result.at(0.5), result.at(0.51)) == (1, 0)


def test_a_second_prediction_of_the_same_instance_is_wrong() -> None:
    result = mean_average_precision(truth((0, 10), (20, 30)), found((0, 10, 0.9), (0, 9, 0.8), (20, 30, 0.7)))
    assert result.at(0.5) == pytest.approx((1 + 2 / 3) / 2)


def test_a_taken_instance_leaves_the_next_best_free_one() -> None:
    # Both fit (0, 10) best; the second may still take (2, 12).
    result = mean_average_precision(truth((0, 10), (2, 12)), found((0, 10, 0.9), (0, 10.5, 0.8)), (0.5,))
    assert result.at(0.5) == 1


def test_classes_count_alike_however_many_instances_they_have() -> None:
    both = truth((0, 10), (20, 30), (40, 50)) + truth((0, 10), label="b")
    result = mean_average_precision(both, found((0, 10, 0.9), (20, 30, 0.8), (40, 50, 0.7)))
    assert result.average == 0.5
    assert result.classes["b"] == (0,) * 5


def test_predictions_in_other_videos_are_wrong_ones() -> None:
    result = mean_average_precision(truth((0, 10)), found((0, 10, 0.9), video="w") + found((0, 10, 0.8)))
    assert result.average == 0.5


def test_protocol_thresholds() -> None:
    assert THUMOS_IOUS == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert ACTIVITYNET_IOUS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    result = mean_average_precision(truth((0, 100)), found((0, 76, 1.0)), ACTIVITYNET_IOUS)
    assert result.average == pytest.approx(0.6)  # .5 to .75


def test_no_truth_and_no_numbers_are_refused() -> None:
    with pytest.raises(VsearchError, match="no annotated"):
        mean_average_precision([], found((0, 1, 1.0)))
    with pytest.raises(VsearchError, match="no number"):
        mean_average_precision(truth((0, 1)), found((0, 1, math.nan)))


def test_average_recall_counts_the_best_few_of_each_video() -> None:
    two = truth((0, 10)) + truth((0, 10), video="w")
    given_ = found((50, 60, 0.9), (0, 10, 0.8)) + found((0, 5, 0.7), video="w")
    assert average_recall(two, given_, 1, (0.5,)) == 0.5
    assert average_recall(two, given_, 2, (0.5,)) == 1
    assert average_recall(two, given_, 2, (0.5, 0.6)) == 0.75
    assert average_recall(two, [], 5) == 0


def test_open_set_judges_unseen_classes_in_their_videos_only() -> None:
    everything = truth((0, 10)) + truth((0, 10), video="w", label="b")
    asked: list[set[str]] = []

    def predict(unseen: object) -> list[Prediction]:
        asked.append(set(unseen))  # type: ignore[call-overload]
        noise = found((0, 10, 0.95), video="w") + found((0, 10, 0.95), label="b")
        return noise + found((0, 10, 0.9)) + found((0, 4, 0.9), video="w", label="b")

    result = open_set(everything, [{"a"}, {"b"}], predict)
    assert asked == [{"a"}, {"b"}]
    assert [split.average for split in result.splits] == [1, pytest.approx(0.4)]
    assert result.average == pytest.approx(0.7)
    assert result.deviation == pytest.approx(0.3)


# An independent evaluator: sets and fractions, no arrays


def slow_map(true: list[Segment], predicted: list[Prediction], threshold: Fraction) -> Fraction:
    total = Fraction(0)
    labels = {s.label for s in true}
    for label in labels:
        instances = sorted((s for s in true if s.label == label), key=lambda s: (s.start_s, s.end_s))
        order = sorted(
            (p for p in predicted if p.label == label), key=lambda p: (-p.score, p.video, p.start_s, p.end_s)
        )
        used: set[int] = set()
        points: list[tuple[Fraction, Fraction]] = []
        correct = 0
        for rank, p in enumerate(order, start=1):
            overlaps = []
            for i, s in enumerate(instances):
                shared = max(
                    Fraction(0), Fraction(min(p.end_s, s.end_s)) - Fraction(max(p.start_s, s.start_s))
                )
                union = (
                    Fraction(p.end_s) - Fraction(p.start_s) + Fraction(s.end_s) - Fraction(s.start_s) - shared
                )
                if s.video == p.video and i not in used and union and shared / union >= threshold:
                    overlaps.append((-shared / union, i))
            if overlaps:
                used.add(min(overlaps)[1])
                correct += 1
            points.append((Fraction(correct, len(instances)), Fraction(correct, rank)))
        reached = Fraction(0)
        for recall, _ in points:
            best = max(precision for r, precision in points if r >= recall)
            total += (recall - reached) * best / len(labels)
            reached = recall
    return total


times = st.integers(0, 24)
spans = st.tuples(times, st.integers(1, 8)).map(lambda t: (float(t[0]), float(t[0] + t[1])))
truths = st.lists(
    st.builds(lambda v, s, c: Segment(v, *s, c), st.sampled_from("vw"), spans, st.sampled_from("ab")),
    min_size=1,
    max_size=8,
)
predictions = st.lists(
    st.builds(
        lambda v, s, c, x: Prediction(v, *s, c, x / 4),
        st.sampled_from("vwx"),
        spans,
        st.sampled_from("abc"),
        st.integers(0, 6),
    ),
    max_size=14,
)


@given(truths, predictions)
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_slow_evaluator(true: list[Segment], predicted: list[Prediction]) -> None:
    result = mean_average_precision(true, predicted, (0.25, 0.5, 0.75))
    for t in (0.25, 0.5, 0.75):
        assert result.at(t) == pytest.approx(float(slow_map(true, predicted, Fraction(t))), abs=1e-12)


@given(truths, predictions, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_files_does_not_matter(true: list[Segment], predicted: list[Prediction], rng) -> None:
    before = mean_average_precision(true, predicted)
    rng.shuffle(true)
    rng.shuffle(predicted)
    assert mean_average_precision(true, predicted) == before


@given(st.lists(spans, min_size=1, max_size=5, unique_by=lambda s: s[0]), predictions)
@settings(deadline=None)
def test_duplicates_never_help_where_instances_are_apart(
    places: list[tuple[float, float]], predicted: list[Prediction]
) -> None:
    true = [Segment("v", 50 * i + start, 50 * i + end, "a") for i, (start, end) in enumerate(places)]
    once, twice = (mean_average_precision(true, predicted * n) for n in (1, 2))
    assert twice.average <= once.average + 1e-12


@given(truths, predictions)
@settings(deadline=None)
def test_what_comes_below_everything_never_harms(true: list[Segment], predicted: list[Prediction]) -> None:
    below = [replace(p, score=p.score - 100) for p in predicted]
    once = mean_average_precision(true, predicted)
    assert mean_average_precision(true, predicted + below).average >= once.average - 1e-12


@given(truths, predictions, st.floats(0.1, 9), st.floats(-5, 5))
@settings(deadline=None)
def test_only_the_order_of_scores_matters(
    true: list[Segment], predicted: list[Prediction], scale: float, shift: float
) -> None:
    moved = [replace(p, score=p.score * scale + shift) for p in predicted]
    assert mean_average_precision(true, moved) == mean_average_precision(true, predicted)


@given(truths, predictions)
@settings(deadline=None)
def test_classes_without_truth_change_nothing(true: list[Segment], predicted: list[Prediction]) -> None:
    extra = [replace(p, label="nothing of the kind") for p in predicted]
    assert mean_average_precision(true, predicted + extra) == mean_average_precision(true, predicted)


@given(truths, predictions)
@settings(deadline=None)
def test_a_stricter_threshold_never_scores_better_recall(
    true: list[Segment], predicted: list[Prediction]
) -> None:
    recalls = [average_recall(true, predicted, 5, (t,)) for t in THUMOS_IOUS]
    assert recalls == sorted(recalls, reverse=True)


@given(st.lists(spans, min_size=1, max_size=6), st.lists(spans, min_size=1, max_size=6))
def test_overlap_is_symmetric_and_one_only_with_itself(
    a: list[tuple[float, float]], b: list[tuple[float, float]]
) -> None:
    forth, back = tiou(np.asarray(a), np.asarray(b)), tiou(np.asarray(b), np.asarray(a))
    assert (forth == back.T).all()
    assert ((forth == 1) == (np.asarray(a)[:, None] == np.asarray(b)[None]).all(axis=2)).all()


# Annotation files


def test_both_annotation_forms_read_alike(tmp_path: Path) -> None:
    parts = [{"segment": ["1.5", "3.0"], "label": "Diving"}, {"segment": [4, 4], "label": "Diving"}]
    parts.append({"segment": [5, 6], "label": "Ambiguous"})
    flat = tmp_path / "flat.json.gz"
    flat.write_bytes(
        gzip.compress(json.dumps({"v1": {"duration_second": 9.5, "annotations": parts}}).encode())
    )
    nested = tmp_path / "nested.json"
    entry = {"duration": 9.5, "subset": "Validation", "annotations": parts}
    nested.write_text(json.dumps({"version": "1.3", "database": {"v1": entry}, "taxonomy": []}))
    (a,), (b,) = read_annotations(flat), read_annotations(nested)
    assert a.segments == b.segments == (Segment("v1", 1.5, 3.0, "Diving"),)
    assert (a.duration_s, a.subset, b.subset) == (9.5, "", "validation")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(VsearchError, match="not an annotation file"):
        read_annotations(tmp_path / "other.json")


@needs_annotations
def test_the_research_files_are_read_whole() -> None:
    folder = SHARED / "data/annotations"
    thumos = read_annotations(folder / "thumos14/thumos_anno_action.json.gz")
    classes = {s.label for v in thumos for s in v.segments}
    assert len(classes) == 20
    for split in range(10):
        lists = folder / "open_set_localization/train75_test25/THUMOS14"
        kinds = [read_names(lists / kind / f"split_{split}.list") for kind in ("train", "test")]
        assert [len(k) for k in kinds] == [15, 5]
        assert set(kinds[0]) | set(kinds[1]) == classes
