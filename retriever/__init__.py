"""Query time: a sentence in, moments out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vsearch.retriever.answer import Answer, Hit

if TYPE_CHECKING:
    from vsearch.retriever.searching import (
        live_encoder,
        look_of,
        matching_encoder,
        search,
        search_look,
        search_similar,
        sentence_vector,
    )

__all__ = [
    "Answer",
    "Hit",
    "live_encoder",
    "look_of",
    "matching_encoder",
    "search",
    "search_look",
    "search_similar",
    "sentence_vector",
]


def __getattr__(name: str) -> Any:
    """Searching loads NumPy, at its first use: a query that a helper answers needs none."""
    if name in __all__:
        return getattr(importlib.import_module("vsearch.retriever.searching"), name)
    raise AttributeError(f"module 'vsearch.retriever' has no attribute {name!r}")
