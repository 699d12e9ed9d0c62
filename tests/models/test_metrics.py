"""Retrieval and recognition metrics against the plainest possible counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vsearch.errors import VsearchError
from vsearch.models.training import few_shot
from vsearch.models.training.metrics import (
    dual_softmax,
    paragraphs,
    qb_norm,
    ranks,
    text_to_video,
    top_k,
    video_to_text,
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    videos = draw(st.integers(1, 6))
    extra = draw(st.lists(st.integers(0, videos - 1), max_size=8))
    owner = [*range(videos), *extra]
    # few distinct values, so that ties are common
    scores = draw(arrays(np.float64, (len(owner), videos), elements=st.integers(-2, 2).map(float)))
    return scores, owner


def mean_rank(row: Sequence[float], right: int) -> float:
    """Over every order of those that tie."""
    first = 1 + sum(s > row[right] for s in row)
    places = range(first, first + sum(s == row[right] for s in row))
    return sum(places) / len(places)


@given(problems())
@settings(deadline=None, max_examples=60)
def test_text_to_video_is_counting(problem: tuple[np.ndarray, list[int]]) -> None:
    scores, owner = problem
    found = [mean_rank(row, v) for row, v in zip(scores, owner, strict=True)]
    result = text_to_video(scores, owner)
    assert result.r1 == pytest.approx(100 * sum(r == 1 for r in found) / len(found))
    assert result.r5 == pytest.approx(100 * sum(r <= 5 for r in found) / len(found))
    assert result.median_rank == sorted(found)[len(found) // 2] or len(found) % 2 == 0
    assert result.mean_rank == pytest.approx(sum(found) / len(found))


@given(problems())
@settings(deadline=None, max_examples=60)
def test_video_to_text_takes_the_best_sentence_of_each_video(problem: tuple[np.ndarray, list[int]]) -> None:
    scores, owner = problem
    videos = scores.shape[1]
    found = []
    for video in range(videos):
        best = [max(scores[t, video] for t in range(len(owner)) if owner[t] == v) for v in range(videos)]
        found.append(mean_rank(best, video))
    assert video_to_text(scores, owner).mean_rank == pytest.approx(np.mean(found))


def test_who_scores_all_alike_ranks_as_chance_does() -> None:
    assert ranks(np.zeros((3, 5)), np.array([0, 2, 4])).tolist() == [3, 3, 3]
    for found in (text_to_video(np.ones((50, 50)), range(50)), video_to_text(np.ones((50, 50)), range(50))):
        assert (found.median_rank, found.mean_rank) == (25.5, 25.5)
        assert found.r1 == 0
    assert top_k(np.ones((4, 50)), [0, 1, 2, 3], 5) == 0


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(VsearchError, match="not numbers"):
        ranks(np.array([[np.nan, 1.0]]), np.array([0]))


def test_video_without_caption_is_refused() -> None:
    with pytest.raises(VsearchError, match="1 videos have no caption"):
        video_to_text(np.zeros((1, 2)), [0])


def test_paragraphs_join_in_order() -> None:
    assert paragraphs(["a.", "x.", " b. "], [3, 1, 3]) == (["a. b.", "x."], [3, 1])


def test_dual_softmax_gives_a_contested_video_to_its_strongest_query() -> None:
    scores = np.array([[0.9, 0.0], [0.7, 0.6]])  # both want video 0; query 1 must yield
    assert text_to_video(scores, [0, 1]).r1 == 50
    assert text_to_video(dual_softmax(scores, 0.1), [0, 1]).r1 == 100


def test_dual_softmax_orders_negative_cosines_the_right_way() -> None:
    scores = np.array([[-0.1, -0.9], [-0.9, -0.1]])
    assert text_to_video(dual_softmax(scores, 0.1), [0, 1]).r1 == 100


def test_querybank_demotes_a_hub_and_leaves_others_alone() -> None:
    bank = np.array([[0.9, 0.1, 0.1], [0.8, 0.2, 0.1]])  # video 0 attracts every bank query
    scores = np.array([[0.5, 0.45, 0.0], [0.1, 0.2, 0.9]])
    normalised = qb_norm(scores, bank)
    assert normalised[0].argmax() == 1
    np.testing.assert_array_equal(normalised[1], scores[1])
    eta = np.exp(20 * bank).sum(axis=0)
    np.testing.assert_allclose(normalised[0], np.exp(20 * scores[0]) / eta)


def test_top_k_and_few_shot() -> None:
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]])
    assert top_k(scores, [0, 1, 2], 1) == pytest.approx(100 / 3)
    assert top_k(scores, [0, 1, 2], 2) == pytest.approx(200 / 3)
    labels = ["a", "b", "a", "b", "a"]
    chosen = few_shot(labels, 2, seed=1)
    assert sorted(labels[i] for i in chosen) == ["a", "a", "b", "b"]
    assert chosen == few_shot(labels, 2, seed=1)
    with pytest.raises(VsearchError, match="class 'b' has 2 videos, 3 shots"):
        few_shot(labels, 3, seed=1)
