"""Words such as likely: the distribution of what chance scores, its growth, and what it is corrected for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vsearch.maths import normalise
from vsearch.models import Encoder, ZeroShotHead, load_backbone
from vsearch.models.neutral import neutral_scores, neutral_sentences, neutral_vectors
from vsearch.retriever.calibrate import LIKELY, Extremes, Judge, at_least, probability, strength
from vsearch.retriever.languages import unread_language

DIM = 32
RNG = np.random.default_rng


def unit(count: int, seed: int, dim: int = DIM) -> np.ndarray:
    return normalise(RNG(seed).normal(size=(count, dim)))


def test_the_fitted_distribution_is_that_of_the_maxima() -> None:
    maxima = 0.3 + 0.05 * RNG(0).gumbel(size=20_000)
    fitted = Extremes.of(maxima)
    for chance in (0.2, 0.05, 0.005):
        score = 0.3 - 0.05 * np.log(-np.log(1 - chance))
        assert fitted.chance(np.array([score]))[0] == pytest.approx(chance, rel=0.3)


def test_a_tail_of_sentences_that_are_there_does_not_move_it() -> None:
    maxima = 0.3 + 0.05 * RNG(0).gumbel(size=2000)
    some = np.concatenate([maxima, np.full(200, 0.9)])
    assert Extremes.of(some).chance(np.array([0.6]))[0] < 0.02


def test_the_best_of_ten_times_as_many_is_judged_by_ten_times_as_many() -> None:
    fitted = Extremes.of(RNG(0).gumbel(size=5000))
    grown = fitted.chance(np.array([4.0]), growth=10)
    assert grown == pytest.approx(1 - (1 - fitted.chance(np.array([4.0]))) ** 10, rel=1e-6)


def test_chances_of_unrelated_sentences_are_even_whatever_the_size() -> None:
    bank = unit(1000, 1).astype(np.float16)
    queries = unit(400, 2)
    for count in (5, 100, 3000):
        moments = unit(count, 3)
        scores = replace(neutral_scores(np.arange(count), [(np.arange(count), moments)], bank), lean=1.0)
        best = []
        for query in queries:
            judge = Judge.of(scores, query, count)
            assert judge is not None
            best.append(judge.chances(moments @ query, judge.hubs(np.arange(count))).min())
        assert np.mean(np.asarray(best) <= LIKELY) == pytest.approx(LIKELY, abs=0.04)


def test_a_moment_near_every_sentence_is_worth_less() -> None:
    bank = unit(1000, 1) + 0.5 * unit(1, 9)  # sentences lean to one side
    hub, plain = unit(1, 9)[0], unit(1, 5)[0]
    moments = np.stack([hub, plain])
    scores = neutral_scores(np.arange(2), [(np.arange(2), moments)], normalise(bank).astype(np.float16))
    assert scores.hubs[0] > scores.hubs[1] + 0.1


def test_an_update_of_a_large_library_looks_only_at_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsearch.models.neutral.scores.SMALL", 0)
    bank, moments = unit(200, 1).astype(np.float16), unit(60, 2)
    ids = np.arange(60) * 3
    former = neutral_scores(ids[:40], [(ids[:40], moments[:40])], bank)
    blind = moments.copy()
    blind[:40] = np.nan  # were they looked at, all would be lost
    updated = neutral_scores(ids, [(ids[30:], blind[30:]), (ids[:30], blind[:30])], bank, former)
    anew = neutral_scores(ids, [(ids, moments)], bank)
    assert updated.ids.tolist() == ids.tolist()
    assert updated.whole == 40
    np.testing.assert_allclose(updated.hubs, anew.hubs, atol=0.02)  # another spread
    np.testing.assert_allclose(updated.maxima, anew.maxima, atol=0.02)
    much = neutral_scores(ids[::4], [(ids[::4], moments[::4])], bank, former)
    assert much.whole == 15  # most had gone: made anew


def test_a_model_that_knows_nothing_finds_nothing_likely() -> None:
    bank, moments = unit(400, 1, 256).astype(np.float16), unit(300, 2, 256)
    scores = neutral_scores(np.arange(300), [(np.arange(300), moments)], bank)
    assert abs(scores.lean) < 0.1
    judge = Judge.of(scores, moments[0], 300)  # its best moment is the sentence itself
    assert judge is not None
    assert strength(judge.chances(np.array([1.0]), judge.hubs([0]))[0]) == "weak"
    few = neutral_scores(np.arange(3), [(np.arange(3), moments[:3])], bank)
    sure = Judge.of(few, moments[0], 3)  # of three moments none can tell
    assert sure is not None
    assert strength(sure.chances(np.array([1.0]), sure.hubs([0]))[0]) == "strong"


def test_words_and_probabilities_fall_with_chance() -> None:
    chances = [0.0, 0.004, 0.04, 0.2, 0.3, 0.5, 1.0]
    assert [strength(c) for c in chances] == [
        "strong",
        "strong",
        "likely",
        "weak",
        "unlikely",
        "unlikely",
        "unlikely",
    ]
    told = [probability(c) for c in chances]
    assert told == sorted(told, reverse=True)
    assert (told[0], told[-1]) == (pytest.approx(1, abs=1e-6), 0.0)
    assert [at_least("likely", c) for c in (0.004, 0.04, 0.2, None)] == [True, True, False, True]
    assert at_least(None, 1.0)


def test_no_neutral_sentence_twice_and_the_built_in_model_brings_their_vectors() -> None:
    sentences = neutral_sentences()
    assert len(set(sentences)) == len(sentences) == 2000
    encoder = Encoder(load_backbone("mini", "cpu"), ZeroShotHead())

    class Unused:
        identity = encoder.identity

        def embed_texts(self, texts: object) -> np.ndarray:
            raise AssertionError("they are at hand")

    shipped = neutral_vectors(Unused())
    some = [0, 1, 999, 1999]
    np.testing.assert_allclose(encoder.embed_texts([sentences[i] for i in some]), shipped[some], atol=2e-3)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a dog running on grass", None),
        ("ein Hund läuft über das Gras", "German"),
        ("un perro está en la hierba", "Spanish"),
        ("狗在草地上奔跑", "Chinese"),
        ("草の上を走る犬", "Japanese"),
        ("собака бежит по траве", "Russian or another Cyrillic language"),
        ("la la land", None),
        ("de niro in taxi driver", None),
        ("a man with a Русский sign", None),
        ("🐕", None),
    ],
)
def test_the_language_of_a_sentence_is_said_where_the_model_does_not_read_it(
    text: str, language: str | None
) -> None:
    assert unread_language(text, "mini") == language
    assert unread_language(text, "xlm-roberta-base-ViT-B-32") is None
