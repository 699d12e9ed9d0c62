"""Query time: a sentence in, moments out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vsearch.retriever.answer import Answer, Hit
from vsearch.retriever.question import Question

if TYPE_CHECKING:
    from vsearch.retriever.encoders import matching_encoder
    from vsearch.retriever.searching import (
        live_encoder,
        look_of,
        search,
        search_look,
        search_similar,
        sentence_vector,
    )
    from vsearch.retriever.session import Session

__all__ = [
    "Answer",
    "Hit",
    "Question",
    "Session",
    "live_encoder",
    "look_of",
    "matching_encoder",
    "search",
    "search_look",
    "search_similar",
    "sentence_vector",
]
_PLACES = {"Session": "session", "matching_encoder": "encoders"}


def __getattr__(name: str) -> Any:
    """Searching loads NumPy, at its first use: a query that a helper answers needs none."""
    if name not in __all__:
        raise AttributeError(f"module 'vsearch.retriever' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vsearch.retriever.{_PLACES.get(name, 'searching')}"), name)
