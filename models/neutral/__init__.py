"""Sentences that have nothing to do with a library, and what the best of it scores for them: the measure for words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.neutral.bank import neutral_sentences, neutral_vectors
    from vsearch.models.neutral.scores import CENTRALITY, centrality, hubs_of, neutral_scores

# fmt: off
__all__ = ["CENTRALITY", "centrality", "hubs_of", "neutral_scores", "neutral_sentences", "neutral_vectors"]
__getattr__ = face(__name__, {
    "bank": "neutral_sentences neutral_vectors",
    "scores": "CENTRALITY centrality hubs_of neutral_scores",
})
