"""Ranking: pooling by query, merging of overlaps, grouping, ties, words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsearch.retriever.answer import Scored
from vsearch.retriever.rank import (
    group_by_video,
    merge_overlaps,
    query_scored_similarity,
    split_into_events,
)


def test_query_scored_pooling_follows_the_frame_that_fits() -> None:
    rng = np.random.default_rng(0)
    query = np.eye(8, dtype=np.float32)[0]
    frames = rng.normal(size=(6, 8)).astype(np.float32)
    frames[:, 0] = -1
    frames[3] = 5 * query  # one frame shows just what is asked; its length must not matter
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    mean = unit.mean(axis=0)
    plain = float(mean @ query / np.linalg.norm(mean))
    pooled = query_scored_similarity(frames, query)
    assert pooled > plain
    assert pooled > 0.99  # softmax at 0.1 all but selects it
    assert query_scored_similarity(frames * 7, query) == pytest.approx(pooled, abs=1e-6)


def test_equal_frames_score_as_one_frame() -> None:
    frame = np.array([3.0, 4.0], dtype=np.float32)
    query = np.array([1.0, 0.0], dtype=np.float32)
    assert query_scored_similarity(np.tile(frame, (5, 1)), query) == pytest.approx(0.6, abs=1e-6)


def test_overlapping_moments_of_one_event_become_one_and_weak_neighbours_go() -> None:
    event = [Scored(1, 0, 8000, 0.50), Scored(1, 4000, 12000, 0.52), Scored(1, 8000, 16000, 0.51)]
    weak, other = Scored(1, 12000, 20000, 0.1), Scored(1, 40000, 48000, 0.3)
    merged = merge_overlaps([*event, weak, other], margin=0.05)
    assert [(m.start_ms, m.end_ms) for m in merged] == [(0, 16000), (40000, 48000)]
    assert merged[0].score == 0.52


def test_videos_are_ordered_by_their_best_moment_and_ties_by_id() -> None:
    answers = group_by_video(
        [
            Scored(2, 0, 8000, 0.4),
            Scored(1, 0, 8000, 0.4),
            Scored(3, 0, 8000, 0.1),
            Scored(3, 50000, 58000, 0.9),
        ]
    )
    assert [a.best.video_id for a in answers] == [3, 1, 2]
    assert [m.start_ms for m in answers[0].moments] == [50000, 0]


spans = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 10), st.integers(0, 5)).map(
        lambda t: Scored(1, t[0] * 1000, (t[0] + t[1]) * 1000, t[2] / 10)
    ),
    min_size=1,
    max_size=25,
)


@given(spans, st.randoms())
def test_merging_keeps_the_best_and_leaves_no_overlap_whatever_the_order(
    moments: list[Scored], random
) -> None:
    merged = merge_overlaps(moments, margin=0.1)
    assert merged[0].score == max(m.score for m in moments)
    for i, a in enumerate(merged):
        for b in merged[i + 1 :]:
            assert a.end_ms <= b.start_ms or b.end_ms <= a.start_ms
    shuffled = moments.copy()
    random.shuffle(shuffled)
    assert merge_overlaps(shuffled, margin=0.1) == merged


def test_events_need_contrast_and_last_two_seconds() -> None:
    times = np.arange(32, dtype=np.int64) * 500
    fit = np.full(32, 0.2, dtype=np.float32)
    whole = Scored(1, 0, 16000, 0.3)
    assert split_into_events(whole, times, fit + np.linspace(0, 0.01, 32, dtype=np.float32), 0.05) == [whole]
    fit[6:9] = 0.6
    (event,) = split_into_events(whole, times, fit, 0.05)
    assert (event.start_ms, event.end_ms, event.score) == (2500, 5000, 0.3)
    fit[30:] = 0.9  # a second, better event at the end
    better, other = split_into_events(whole, times, fit, 0.05)
    assert better.end_ms == 16000
    assert better.score == 0.3 > other.score
    assert 2500 <= other.start_ms < 3500 < other.end_ms <= 5000
