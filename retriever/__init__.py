"""Query time: a sentence in, moments out."""

from vsearch.retriever.search import (
    Answer,
    Hit,
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
