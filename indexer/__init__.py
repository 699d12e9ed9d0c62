"""Offline: from files to a searchable library. Finds, decodes, encodes, stores; owns workers and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.indexer.adopt import rollback
    from vsearch.indexer.clip import export_clip
    from vsearch.indexer.run import IndexOptions
    from vsearch.indexer.runs import change_model, index_videos
    from vsearch.indexer.shared_progress import Progress, running
    from vsearch.indexer.sniff import MATROSKA, MP4
    from vsearch.indexer.still import is_picture, read_still, still_at
    from vsearch.indexer.training_frames import open_frames
    from vsearch.indexer.upkeep import verify_library

# fmt: off
__all__ = [
    "MATROSKA",
    "MP4",
    "IndexOptions",
    "Progress",
    "change_model",
    "export_clip",
    "index_videos",
    "is_picture",
    "open_frames",
    "read_still",
    "rollback",
    "running",
    "still_at",
    "verify_library",
]
__getattr__ = face(__name__, {
    "adopt": "rollback",
    "clip": "export_clip",
    "run": "IndexOptions",
    "runs": "change_model index_videos",
    "shared_progress": "Progress running",
    "sniff": "MATROSKA MP4",
    "still": "is_picture read_still still_at",
    "training_frames": "open_frames",
    "upkeep": "verify_library",
})
