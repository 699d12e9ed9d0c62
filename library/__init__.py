"""What is on disk: catalogue, frame vectors, vector index. Knows nothing of models, decoding or the CLI.

library/
  catalogue.sqlite        the truth
  frames/<xx>/<sha>.npy   frame vectors and times, named by content
  index/<token>.faiss     generations of the vector index, derived; with .rows, .ids and .gone where it is large
  thumbs/<xx>/<sha>.jpg   posters
  index.lock              held by the one writer
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsearch.library.frames import FrameStore
    from vsearch.library.library import Library
    from vsearch.library.location import find_library
    from vsearch.library.planning import Job, Plan, Scan
    from vsearch.library.reader import open_reader, open_reading
    from vsearch.library.reading import Reading
    from vsearch.library.records import (
        COARSE_FPS,
        FAILED,
        INDEXED,
        MISSING,
        PARTIAL,
        Each,
        EncoderInfo,
        FoundFile,
        FrameSet,
        FrameSetInfo,
        Generation,
        MediaInfo,
        Moment,
        NewMoment,
        Recorded,
        StoredFrames,
        Summary,
        Video,
    )

__all__ = [
    "COARSE_FPS",
    "FAILED",
    "INDEXED",
    "MISSING",
    "PARTIAL",
    "Each",
    "EncoderInfo",
    "FoundFile",
    "FrameSet",
    "FrameSetInfo",
    "FrameStore",
    "Generation",
    "Job",
    "Library",
    "MediaInfo",
    "Moment",
    "NewMoment",
    "Plan",
    "Reading",
    "Recorded",
    "Scan",
    "StoredFrames",
    "Summary",
    "Video",
    "find_library",
    "open_reader",
    "open_reading",
]
_PLACES = {
    "frames": ["FrameStore"],
    "library": ["Library"],
    "location": ["find_library"],
    "planning": ["Job", "Plan", "Scan"],
    "reader": ["open_reader", "open_reading"],
    "reading": ["Reading"],
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Each name comes at its first use: a query must not wait for what only indexing needs."""
    if name not in __all__:
        raise AttributeError(f"module 'vsearch.library' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"vsearch.library.{_PLACE_OF.get(name, 'records')}"), name)
    globals()[name] = found
    return found
