"""What a library's moments score for sentences that have nothing to do with it. Pure functions over numpy arrays.

A cosine says little by itself: some moments are near every sentence (hubs: Radovanović et al., JMLR 2010), some sentences
near every moment, and the best of many scores higher than the best of few. So a sentence's score is corrected for the
moment's hubness and for its own centrality, both measured with the bank's first half as in querybank normalisation
(Bogolin et al., CVPR 2022); the second half's best corrected scores over this very library are what it is judged by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.records import NeutralScores

HUB_SOFTNESS = 0.5  # temperature of a moment's soft maximum, in spreads of scores
TEXT_SOFTNESS = 1.5  # the same of a sentence's, in spreads of cosines between sentences
CENTRALITY = 0.75  # how much a sentence near all others must score more
SAMPLE = 4096  # moments that tell the spread
FEWEST = 20  # moments; with less, nothing tells whether the model knows anything
CHUNK = 8192  # moments in work at once
SMALL = 20_000  # moments that are all looked at each time: answers then do not depend on a library's past
ANEW_GONE, ANEW_GROWN = (
    0.05,
    2.0,
)  # scores are made anew when so much has left, or when there is so many times more

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def neutral_scores(
    ids: Ids,
    batches: Iterable[tuple[Ids, Floats]],
    vectors: npt.NDArray[np.float16],
    former: NeutralScores | None = None,
) -> NeutralScores:
    """Scores of all moments for the bank's (S, D): their ids (N,), and those with their unit vectors (n, D) in batches.

    What `former` knows of is not looked at again, as long as it is most of it.
    """
    bank = vectors.astype(np.float32)
    first, second = bank[::2], bank[1::2]
    ids = np.sort(ids)
    if former is not None and np.array_equal(former.vectors, vectors) and _stays(former, ids):
        at = np.isin(former.ids, ids, assume_unique=True)
        known, hubs, whole = [former.ids[at]], [former.hubs[at]], former.whole
        spread, lean, text_spread, maxima = former.spread, former.lean, former.text_spread, former.maxima
    else:
        known, hubs, whole = [ids[:0]], [np.empty(0, np.float32)], len(ids)
        spread, lean = 0.0, 0.0
        text_spread = float((first @ first.T)[~np.eye(len(first), dtype=bool)].std())
        maxima = np.full(len(second), -np.inf, np.float32)
    needed = CENTRALITY * centrality(second, first, text_spread)
    for every, moments in batches:
        new = np.flatnonzero(np.isin(every, known[0], assume_unique=True, invert=True))
        if not spread and len(new):
            some = moments[new[:: -(-len(new) // SAMPLE)]]
            spread, lean = _shape(first @ some.T)
        for i in range(0, len(new), CHUNK):
            part = moments[new[i : i + CHUNK]]
            own = hubs_of(part, first, spread)
            known.append(every[new[i : i + CHUNK]])
            hubs.append(own)
            maxima = np.maximum(maxima, (second @ part.T - own).max(axis=1) - needed)
    found, all_hubs = np.concatenate(known), np.concatenate(hubs)
    order = np.argsort(found)
    return NeutralScores(vectors, found[order], all_hubs[order], maxima, spread, lean, text_spread, whole)


def hubs_of(moments: Floats, first: Floats, spread: float) -> Floats:
    """(N, D) unit vectors -> (N,) soft maxima of their scores for the bank's first half, (S/2, D)."""
    return _soft_maximum(moments @ first.T, HUB_SOFTNESS * spread)


def centrality(sentences: Floats, first: Floats, text_spread: float) -> Floats:
    """(Q, D) unit vectors of sentences -> (Q,) how near each is to the bank's first half, (S/2, D)."""
    return _soft_maximum(sentences @ first.T, TEXT_SOFTNESS * text_spread)


def _stays(former: NeutralScores, ids: Ids) -> bool:
    if len(ids) <= SMALL:
        return False
    gone = len(former.ids) - int(np.isin(former.ids, ids, assume_unique=True).sum())
    return gone <= ANEW_GONE * len(former.ids) and len(ids) <= ANEW_GROWN * former.whole


def _shape(scores: Floats) -> tuple[float, float]:
    """Of (S, N) scores: spread without what is of the moment alone, skewness without what is of the sentence alone, too."""
    rest = scores - scores.mean(axis=0)
    spread = max(float(rest.std()), 1e-6)
    if scores.shape[1] < FEWEST:
        return spread, math.inf
    rest = rest - rest.mean(axis=1, keepdims=True)
    return spread, float(np.mean((rest / max(float(rest.std()), 1e-6)) ** 3))


def _soft_maximum(scores: npt.NDArray[np.floating[Any]], temperature: float) -> Floats:
    """(..., S) -> (...,): between their mean, where the temperature is high, and their maximum."""
    t = max(temperature, 1e-6)
    top = scores.max(axis=-1, keepdims=True)
    mean = np.exp((scores - top) / t).mean(axis=-1)
    return (top[..., 0] + t * np.log(mean)).astype(np.float32)
