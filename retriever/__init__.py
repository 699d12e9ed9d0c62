"""Query time: a sentence in, moments out."""

from vsearch.retriever.search import Answer, Hit, live_encoder, matching_encoder, search, search_similar

__all__ = ["Answer", "Hit", "live_encoder", "matching_encoder", "search", "search_similar"]
