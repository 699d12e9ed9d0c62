"""Training-free proposals and moments on made-up frame vectors: scenes are directions, with noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsearch.retriever.actions.intervals import find_intervals
from vsearch.retriever.actions.proposals import Timeline, propose, suppress

DIM = 24


def video(*scenes: tuple[int, int], noise: float = 0.15, seed: int = 0):
    """Frames of (direction, count) scenes, two a second, rows of any length: vectors, times, duration, seams."""
    rng = np.random.default_rng(seed)
    kinds = np.concatenate([[kind] * count for kind, count in scenes])
    frames = np.eye(DIM, dtype=np.float32)[kinds] + rng.normal(0, noise, (len(kinds), DIM)).astype(np.float32)
    frames *= rng.uniform(2, 9, (len(kinds), 1)).astype(np.float32)
    times = np.arange(len(kinds), dtype=np.int64) * 500
    return frames, times, 500 * len(kinds)


SCENES = ((0, 20), (1, 14), (2, 40), (1, 9), (3, 25), (4, 12))


def test_every_scene_is_among_the_proposals() -> None:
    timeline = Timeline.of(*video(*SCENES))
    found = propose(timeline, 30)
    seams = np.cumsum([0, *(count for _, count in SCENES)])
    spans = set(zip(found.first.tolist(), found.last.tolist(), strict=True))
    assert set(zip(seams[:-1].tolist(), seams[1:].tolist(), strict=True)) <= spans


def test_scenes_come_before_parts_and_unions_of_scenes() -> None:
    found = propose(Timeline.of(*video(*SCENES)))
    seams = np.cumsum([0, *(count for _, count in SCENES)])
    assert set(found.first[: len(SCENES)]) <= set(seams)
    assert set(found.last[: len(SCENES)]) <= set(seams)


def test_borders_lie_between_frames_and_inside_the_video() -> None:
    found = propose(Timeline.of(*video((0, 10), (1, 10))))
    assert (found.start_ms[0], found.end_ms[0]) in ((0, 4750), (4750, 10_000))
    assert found.start_ms.min() >= 0
    assert found.end_ms.max() == 10_000


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_very_short_videos(count: int) -> None:
    frames, times, duration = video((0, 5))
    found = propose(Timeline.of(frames[:count], times[:count], duration))
    assert (len(found) > 0) == (count > 0)
    assert (found.last > found.first).all()


@given(st.integers(0, 2**32), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_proposals_are_sorted_distinct_and_repeatable(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 900, count))
    frames = rng.normal(size=(count, 5)) * (rng.random((count, 1)) > 0.1)  # some rows are zero
    timeline = Timeline.of(frames, times, int(times[-1]) + 100)
    found, again = propose(timeline), propose(timeline)
    assert (np.diff(found.score) <= 0).all()
    assert len(set(zip(found.first.tolist(), found.last.tolist(), strict=True))) == len(found)
    assert ((found.start_ms < found.end_ms) & (found.end_ms <= times[-1] + 100)).all()
    assert (found.first == again.first).all()
    assert (found.score == again.score).all()


def test_suppress_keeps_the_better_of_two_alike() -> None:
    bounds = np.array([[0, 10], [0, 9], [20, 30], [0, 5]])
    assert suppress(bounds, 0.8, 10).tolist() == [0, 2, 3]
    assert suppress(bounds, 0.8, 1).tolist() == [0]


# Moments inside one video


def ask(kind: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[kind]


def test_each_place_that_fits_is_an_interval_of_its_own() -> None:
    found = find_intervals(Timeline.of(*video(*SCENES)), ask(1), 4)
    assert {(i.start_ms, i.end_ms) for i in found[:2]} == {(9750, 16_750), (36_750, 41_250)}
    assert min(i.score for i in found[:2]) > 0.8 > 0.5 > found[2].score


def test_a_long_event_is_one_interval_not_its_best_piece() -> None:
    best = find_intervals(Timeline.of(*video((0, 30), (1, 60), (2, 30), noise=0.3)), ask(1), 1)[0]
    assert abs(best.start_ms - 14_750) <= 500
    assert abs(best.end_ms - 44_750) <= 500


def test_a_gradual_change_of_meaning_is_found_without_a_cut() -> None:
    fit = np.concatenate(
        [np.zeros(20), np.linspace(0, 1, 8), np.ones(12), np.linspace(1, 0, 8), np.zeros(20)]
    )
    frames = np.stack([fit, 1 - fit], axis=1)
    timeline = Timeline.of(frames, np.arange(len(fit)) * 500, 500 * len(fit))
    best = find_intervals(timeline, np.array([1.0, 0.0], np.float32), 1)[0]
    assert 10_000 <= best.start_ms <= 13_500
    assert 20_500 <= best.end_ms <= 24_000


def test_moments_of_odd_videos() -> None:
    frames, times, duration = video((0, 1))
    assert find_intervals(Timeline.of(frames[:0], times[:0], 0), ask(0)) == []
    (only,) = find_intervals(Timeline.of(frames, times, duration), ask(0))
    assert (only.start_ms, only.end_ms) == (0, 500)
    alike = find_intervals(Timeline.of(np.ones((9, DIM)), np.arange(9) * 500, 4500), ask(0))
    assert alike[0].score == pytest.approx(DIM**-0.5)
