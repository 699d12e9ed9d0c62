"""Query time: a sentence in, moments out."""

from vsearch.retriever.search import Answer, Hit, search, search_similar

__all__ = ["Answer", "Hit", "search", "search_similar"]
