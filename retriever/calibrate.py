"""From a similarity to a word: how often would an unrelated moment score that high?

A cosine means nothing to a person and its scale differs between models. The built-in model ships the quantiles
of scores between unrelated sentences and moments; a score is judged by its place among them.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

# Share of unrelated moments that score higher. With a thousand moments in a library, "likely" still lets
# about one unrelated moment through, "strong" almost none.
STRONG, LIKELY, WEAK = 0.0002, 0.002, 0.02


def strength(score: float, calibration: Mapping[str, Any] | None) -> str | None:
    """'strong' | 'likely' | 'weak' | 'unlikely', or None for a model without calibration data."""
    if calibration is None:
        return None
    chance = unrelated_above(score, calibration["unrelated"]["q"], calibration["unrelated"]["score"])
    if chance <= STRONG:
        return "strong"
    if chance <= LIKELY:
        return "likely"
    return "weak" if chance <= WEAK else "unlikely"


def unrelated_above(score: float, quantiles: Sequence[float], scores: Sequence[float]) -> float:
    """The share of unrelated pairs that score above `score`, linear between the stored quantiles."""
    i = bisect.bisect_right(scores, score)
    if i == 0:
        return 1.0
    if i == len(scores):
        return 1 - quantiles[-1]
    span = scores[i] - scores[i - 1]
    part = (score - scores[i - 1]) / span if span > 0 else 1.0
    return 1 - (quantiles[i - 1] + part * (quantiles[i] - quantiles[i - 1]))
