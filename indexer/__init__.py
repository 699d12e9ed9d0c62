"""Offline: from files to a searchable library. Finds, decodes, encodes, stores; owns workers and resume."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsearch.indexer.clip import export_clip
    from vsearch.indexer.run import IndexOptions, index_videos
    from vsearch.indexer.shared_progress import Progress, Report, RunSummary
    from vsearch.indexer.still import still_at
    from vsearch.indexer.upkeep import embedder

__all__ = [
    "IndexOptions",
    "Progress",
    "Report",
    "RunSummary",
    "embedder",
    "export_clip",
    "index_videos",
    "still_at",
]
_PLACES = {
    "Progress": "shared_progress",
    "Report": "shared_progress",
    "RunSummary": "shared_progress",
    "embedder": "upkeep",
    "export_clip": "clip",
    "still_at": "still",
}


def __getattr__(name: str) -> Any:
    """Each name comes at its first use: a decoder process, which needs none of them, starts in a sixth less time."""
    if name not in __all__:
        raise AttributeError(f"module 'vsearch.indexer' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"vsearch.indexer.{_PLACES.get(name, 'run')}"), name)
    globals()[name] = found
    return found
