"""How well videos are found by text, text by videos, and classes recognised. NumPy only.

Scores are (queries, candidates), larger is better. A rank is 1 + the number of candidates scored strictly
higher than the right one + half of those that tie with it, so whoever scores all alike ranks as chance does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError

Scores = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Retrieval:
    """Recalls in percent; median and mean rank, 1 is best; number of queries."""

    r1: float
    r5: float
    r10: float
    median_rank: float
    mean_rank: float
    queries: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def text_to_video(scores: Scores, video_of_text: Sequence[int] | Indices) -> Retrieval:
    """scores (texts, videos); every sentence is a query for the one video it belongs to."""
    return _summary(ranks(scores, np.asarray(video_of_text)))


def video_to_text(scores: Scores, video_of_text: Sequence[int] | Indices) -> Retrieval:
    """scores (texts, videos); a video's rank is that of its best sentence among all *videos'* best sentences
    (the multi-caption rule of CLIP4Clip for MSVD). With one sentence a video it is the plain rank.

    Raises VsearchError when a video has no sentence.
    """
    owner = np.asarray(video_of_text)
    videos = scores.shape[1]
    missing = np.setdiff1d(np.arange(videos), owner)
    if len(missing):
        raise VsearchError(f"{len(missing)} videos have no caption; video-to-text needs one for every video")
    best = np.full((videos, videos), -np.inf)
    np.maximum.at(best, owner, np.asarray(scores, dtype=np.float64))  # (owning video, queried video)
    return _summary(ranks(best.T, np.arange(videos)))


def ranks(scores: Scores, right: Indices) -> npt.NDArray[np.float64]:
    """scores (Q, C), right (Q,) the right candidate -> (Q,) 1-based ranks, the mean of those it ties for. NaN scores are
    refused."""
    if np.isnan(scores).any():
        raise VsearchError("some similarities are not numbers; the model or the features are damaged")
    own = np.take_along_axis(scores, np.asarray(right)[:, None], axis=1)
    higher, as_high = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    return 1 + higher + (as_high - 1) / 2


def _summary(found: npt.NDArray[np.float64]) -> Retrieval:
    if not len(found):
        raise VsearchError("there is nothing to evaluate: no queries")
    r1, r5, r10 = (float(100 * (found <= k).mean()) for k in (1, 5, 10))
    return Retrieval(r1, r5, r10, float(np.median(found)), float(found.mean()), len(found))


def paragraphs(texts: Sequence[str], video_of_text: Sequence[int]) -> tuple[list[str], list[int]]:
    """One query a video: its sentences joined in order (DiDeMo, ActivityNet Captions)."""
    joined: dict[int, list[str]] = {}
    for text, video in zip(texts, video_of_text, strict=True):
        joined.setdefault(video, []).append(text.strip())
    return [" ".join(parts) for parts in joined.values()], list(joined)


def dual_softmax(scores: Scores, temperature: float = 0.01) -> npt.NDArray[np.float64]:
    """DSL at test: scores * softmax over the *queries* of each candidate's column (CAMoE).

    Uses the whole test query set, so a single query would score differently: report it by name, never silently.
    """
    exact = np.asarray(scores, dtype=np.float64)
    # The factor N keeps the size of scores; the shift keeps negative cosines from turning the order around.
    return (exact - min(0.0, float(exact.min()))) * _softmax(exact / temperature, axis=0) * len(exact)


def qb_norm(scores: Scores, bank: Scores, beta: float = 20.0) -> npt.NDArray[np.float64]:
    """Querybank normalisation with dynamic inverted softmax (Bogolin et al. 2022), k = 1.

    scores (Q, G) and bank (N, G) are cosines; the bank's queries are training captions. Queries whose best
    candidate is no bank query's best keep their scores; each row is ranked by itself.
    """
    scores, bank = np.asarray(scores, dtype=np.float64), np.asarray(bank, dtype=np.float64)
    hubs = np.unique(bank.argmax(axis=1))
    log_eta = np.logaddexp.reduce(beta * bank, axis=0)  # (G,)
    normalised = np.exp(beta * scores - log_eta)
    is_hub = np.isin(scores.argmax(axis=1), hubs)
    return np.where(is_hub[:, None], normalised, scores)


def top_k(scores: Scores, labels: Sequence[int] | Indices, k: int) -> float:
    """Percentage of videos whose class is among the best k; scores (videos, classes)."""
    return float(100 * (ranks(scores, np.asarray(labels)) <= k).mean())


def few_shot(labels: Sequence[str], shots: int, seed: int) -> list[int]:
    """Which samples to train on: `shots` of each class, drawn once. Raises VsearchError when a class has fewer."""
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(set(labels)):
        mine = [i for i, other in enumerate(labels) if other == label]
        if len(mine) < shots:
            raise VsearchError(f"class {label!r} has {len(mine)} videos, {shots} shots were asked for")
        chosen += [mine[i] for i in generator.choice(len(mine), shots, replace=False)]
    return sorted(chosen)


def _softmax(x: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
