"""From a score to a word: how often would the best of this very library score that high for a sentence that has nothing
to do with it?

A cosine means nothing to a person, its scale differs between models and heads, and the best of many moments scores higher
than the best of few. What is judged is therefore the library's answer to some thousand neutral sentences: an extreme-value
distribution of their best scores says how likely a score is by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.records import NeutralScores

Floats = npt.NDArray[np.floating[Any]]

# Chance of a sentence that has nothing to do with the library to score that high.
STRONG, LIKELY, WEAK = 0.005, 0.08, 0.25
LIMITS = {"strong": STRONG, "likely": LIKELY, "weak": WEAK}
UNLIKELY = "unlikely"
LEAST_LEAN = 0.1  # skewness of scores; a model with less tells nothing apart, so nothing of it is likely
FITTED = np.linspace(
    0.05, 0.8, 76
)  # quantiles; above, some neutral sentences are not: the library shows them
SHAPES = np.linspace(-0.3, 0.1, 41)


class Extremes(NamedTuple):
    """A generalized extreme-value distribution (Coles, "An Introduction to Statistical Modeling of Extreme Values")."""

    place: float
    scale: float
    shape: float

    @classmethod
    def of(cls, maxima: Floats) -> Extremes:
        """Fitted to the quantiles of (M,) maxima by least squares."""
        quantiles = np.quantile(maxima, FITTED)
        best, found = math.inf, cls(float(quantiles[-1]), 1e-6, 0.0)
        for shape in SHAPES.tolist():
            form = np.stack([np.ones_like(FITTED), _standard(FITTED, shape)], axis=1)
            (place, scale), rest = np.linalg.lstsq(form, quantiles, rcond=None)[:2]
            error = float(rest[0]) if len(rest) else math.inf
            if error < best and scale > 0:
                best, found = error, cls(float(place), float(scale), shape)
        return found

    def chance(self, scores: Floats, growth: float = 1.0) -> npt.NDArray[np.float64]:
        """Of a maximum above each score, where there are `growth` times as many to be the best of."""
        z = (np.asarray(scores, np.float64) - self.place) / self.scale
        if abs(self.shape) < 1e-9:
            rate = np.exp(-np.clip(z, -30, 700))
        else:
            rate = np.maximum(1 + self.shape * z, 1e-12) ** (-1 / self.shape)
        return -np.expm1(-growth * np.minimum(rate, 1e6))


@dataclass(frozen=True)
class Judge:
    """What a sentence's scores in a library mean. `growth`: moments there are, for each that was judged by."""

    scores: NeutralScores
    extremes: Extremes
    centrality: float
    growth: float

    @classmethod
    def of(cls, scores: NeutralScores | None, query: Floats, count: int) -> Judge | None:
        """For a sentence's unit vector (D,), in a library of `count` moments; None where nothing is known to judge by."""
        from vsearch.models.neutral import CENTRALITY, centrality

        if scores is None or not len(scores.ids) or not count or not np.isfinite(scores.maxima).all():
            return None
        first = scores.vectors[::2].astype(np.float32)
        central = centrality(np.asarray(query, np.float32)[None], first, scores.text_spread)[0]
        return cls(scores, Extremes.of(scores.maxima), CENTRALITY * float(central), count / len(scores.ids))

    def hubs(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """(M,) hubness of moments by id; the middle one for a moment that is too new to be known."""
        known, wanted = self.scores.ids, np.asarray(ids, np.int64)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        own = known[places] == wanted
        return np.where(own, self.scores.hubs[places], np.median(self.scores.hubs)).astype(np.float32)

    def chances(self, scores: Floats, hubs: Floats) -> npt.NDArray[np.float64]:
        """(M,) cosines with moments and those moments' hubness -> (M,) chances of as much without a reason."""
        found = self.extremes.chance(np.asarray(scores) - hubs - self.centrality, self.growth)
        return np.maximum(found, np.nextafter(LIKELY, 1)) if self.scores.lean < LEAST_LEAN else found

    def chances_of(self, ids: Sequence[int], scores: Mapping[int, float]) -> dict[int, float]:
        """Chances by id, of moments of the library."""
        cosines = np.asarray([scores[id] for id in ids], np.float32)
        return dict(zip(ids, self.chances(cosines, self.hubs(ids)).tolist(), strict=True))


def judged(chance: float | None) -> tuple[str | None, float | None]:
    """Word and probability of a hit; None for both where nothing is known to judge by."""
    return (None, None) if chance is None else (strength(chance), probability(chance))


def check_word(least: str | None) -> None:
    """Raises VsearchError for a word that is none."""
    if least not in (None, *LIMITS):
        raise VsearchError(f"there is no match called {least!r}; use {', '.join(list(LIMITS)[:-1])} or weak")


def at_least(least: str | None, chance: float | None) -> bool:
    """Whether a hit has that word or a better one. What cannot be judged is not left out."""
    return least is None or chance is None or chance <= LIMITS[least]


def strength(chance: float) -> str:
    """'strong' | 'likely' | 'weak' | 'unlikely'."""
    return next((word for word, most in LIMITS.items() if chance <= most), UNLIKELY)


def probability(chance: float) -> float:
    """0..1 that the moment shows what was asked: if that is as likely as not beforehand, at most this, by the bound of
    Sellke, Bayarri and Berger ("Calibration of p values", The American Statistician, 2001); falling to 0 beyond it."""
    if chance >= 1 / math.e:
        return 0.5 * (1 - chance) / (1 - 1 / math.e)
    return 1 / (1 - math.e * chance * math.log(max(chance, 1e-12)))


def _standard(shares: npt.NDArray[np.float64], shape: float) -> npt.NDArray[np.float64]:
    """Quantiles of the standard distribution."""
    below = -np.log(shares)
    return -np.log(below) if abs(shape) < 1e-9 else (below**-shape - 1) / shape
