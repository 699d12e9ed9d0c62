"""Offline: from files to a searchable library. Finds, decodes, encodes, stores; owns workers and resume."""

from vsearch.indexer.export import export_clip
from vsearch.indexer.moments import embedder
from vsearch.indexer.run import IndexOptions, Progress, Report, Summary, index_videos

__all__ = [
    "IndexOptions",
    "Progress",
    "Report",
    "Summary",
    "embedder",
    "export_clip",
    "index_videos",
]
