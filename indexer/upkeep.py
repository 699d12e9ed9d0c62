"""Upkeep that needs a head: checking a library and building its index anew from stored frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.indexer.run import embedder

if TYPE_CHECKING:
    from vsearch.library import Report


def verify_library(path: Path, *, repair: bool) -> Report:
    """Check everything on disk; with `repair` mend it, embedding moments anew where the index is lost."""
    from vsearch.library import Library, verify

    with Library.open(path) as library:
        encoder = library.live_encoder()
        embed = embedder(library, encoder.id) if encoder else None
        return verify(library, repair=repair, embed=embed)
