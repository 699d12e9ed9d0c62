"""How hard to search a compressed index: set from the recall measured on the library's own vectors.

A query near its answers needs a few inverted lists, one far from all (at cosine .2 to .3 in some random direction)
nearly all of them, and how many differs from library to library. So queries of several kinds are made when an index is
built: stored vectors turned away to a given cosine, blends of two of them, and sentences asked before. For each kind the
cheapest search that finds the true first ten is looked for. A query is then searched like the hardest kind that it could
be, by its score with the nearest list's centre. Self-queries alone would promise .997 and give .40 on sentences.

Blends stand for captions not yet asked, whose answers lie in several lists, too: of 270 lists of MSR-VTT frames in the
built-in model, real captions need 75 for recall .99 (200 candidates), blends at .9, .7 and .5 need 60, 65 and 75; of
2,000 lists of a million made ones 104, 104, 177 and 212.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsearch.library.index.codes import Codes
from vsearch.records import Effort

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

PROMISED_RECALL = 0.99  # recall@10 against exact search
SURE = 1.65  # standard errors that the sample's recall must lie above that: one kind in twenty may be below
K = 10
QUERIES = 256  # of each kind; with half as many, one that finds nothing alone asks for five times the lists
COSINES = (0.9, 0.35, 0.2)  # of queries with a stored vector
BLENDS = (0.9, 0.7, 0.5)  # of queries with a blend of two, the second .7 as strong
CANDIDATES = (200, 400, 800, 1600, 3200)
MOST = 8  # beyond this share (1/8) of the rows as candidates, all are compared
_RERANK = 100  # comparing one candidate exactly costs about as much as scanning this many codes


@dataclass(frozen=True)
class Need:
    """The cheapest search that finds what one kind of query asks for. `scores`: of its queries with the nearest
    list's centre, lowest decile and largest."""

    probes: int
    candidates: int
    recall: float
    scores: tuple[float, float]


def sample_queries(rows: Vectors, sentences: Vectors | None, seed: int = 0) -> list[Vectors]:
    """Kinds of queries from stored vectors (N, D) and sentences asked before (S, D): (Q, D) unit vectors each.

    The stored vectors should not be those that k-means saw, which lie nearer to the centres than others."""
    import numpy as np

    from vsearch.maths import normalise

    rng = np.random.default_rng(seed)

    def some() -> Vectors:
        return normalise(rows[rng.choice(len(rows), min(QUERIES, len(rows)), replace=False)])

    towards = [(some(), cosine) for cosine in COSINES]
    towards += [(normalise(some() + 0.7 * some()), cosine) for cosine in BLENDS]
    kinds = []
    for near, cosine in towards:
        away = rng.standard_normal(near.shape, dtype=np.float32)
        away = normalise(away - (away * near).sum(axis=1, keepdims=True) * near)
        kinds.append((cosine * near + (1 - cosine**2) ** 0.5 * away).astype(np.float32))
    if sentences is not None and len(sentences):
        kinds.append(normalise(sentences[-QUERIES:]))
    return kinds


def measure_effort(codes: Codes, kinds: Sequence[tuple[Vectors, Ids]]) -> tuple[tuple[Effort, ...], float]:
    """Effort by how near a query is, nearest first, and the recall that is surely reached with it.

    `kinds`: queries (Q, D) and the places (Q, 10) of their true answers.
    """
    needs = [_need(codes, queries, truth) for queries, truth in kinds if len(queries)]
    if not needs:
        return (Effort(-2.0, 0, 0),), 1.0
    return efforts(needs), min(need.recall for need in needs)


def efforts(needs: Sequence[Need]) -> tuple[Effort, ...]:
    """A query nearer than every query of the harder kinds, and as near as those of its own, needs less."""
    steps = []
    ordered = sorted(needs, key=lambda need: need.scores[1])
    for i, need in enumerate(ordered):
        above = max(need.scores[0], ordered[i - 1].scores[1]) if i else -2.0
        likely = ordered[i:]
        exact = any(each.probes == 0 for each in likely)
        probes = 0 if exact else max(each.probes for each in likely)
        steps.append(Effort(above, probes, max(each.candidates for each in likely)))
    kept: list[Effort] = []
    for step in steps:
        if not kept or (step.probes, step.candidates) != (kept[-1].probes, kept[-1].candidates):
            kept.append(step)
    return tuple(reversed(kept))


def _need(codes: Codes, queries: Vectors, truth: Ids) -> Need:
    """Looks among few to many lists and candidates. Re-ranking is exact: what is among the candidates is found."""
    import numpy as np

    near = codes.near(queries)
    scores = float(np.quantile(near, 0.1)), float(near.max())
    tried = [number for number in CANDIDATES if number * MOST <= codes.count]
    ladder = [1]
    while ladder[-1] < codes.lists:
        ladder.append(min(codes.lists, max(ladder[-1] + 1, ladder[-1] * 5 // 4)))

    @functools.cache
    def recalls(rung: int) -> list[float]:
        """By number of candidates; what is surely reached. A query that loses an answer often loses several, so the
        error is that of queries, not of answers."""
        found = codes.search(queries, tried[-1], ladder[rung])
        same = found[:, None, :] == truth[:, :, None]  # (Q, K, C)
        rank = np.where(same.any(axis=2), same.argmax(axis=2), found.shape[1])  # (Q, K)
        shares = [(rank < number).mean(axis=1) for number in tried]
        return [float(share.mean() - SURE * share.std() / len(share) ** 0.5) for share in shares]

    best = math.inf, Need(0, 0, 1.0, scores)
    if not tried:
        return best[1]
    enough = bisect.bisect_left(
        range(len(ladder)), True, key=lambda rung: recalls(rung)[-1] >= PROMISED_RECALL
    )
    for rung in range(enough, len(ladder)):
        lists = ladder[rung] * codes.count / codes.lists
        if lists + _RERANK * tried[0] >= best[0]:
            break  # with the fewest candidates this many lists cost more already
        for number, recall in zip(tried, recalls(rung), strict=True):
            if recall >= PROMISED_RECALL and lists + _RERANK * number < best[0]:
                best = lists + _RERANK * number, Need(ladder[rung], number, recall, scores)
    return best[1]
