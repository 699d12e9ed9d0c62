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
    from vsearch.library.catalogue.reader import open_reader, open_reading
    from vsearch.library.catalogue.reading import Reading
    from vsearch.library.frames import FrameStore
    from vsearch.library.library import Library
    from vsearch.library.place import find_library
    from vsearch.library.plan import Job, Plan, Scan
    from vsearch.records import (
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
        LibrarySummary,
        MediaInfo,
        Moment,
        NewMoment,
        Recorded,
        StoredFrames,
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
    "LibrarySummary",
    "MediaInfo",
    "Moment",
    "NewMoment",
    "Plan",
    "Reading",
    "Recorded",
    "Scan",
    "StoredFrames",
    "Video",
    "find_library",
    "open_reader",
    "open_reading",
]
_PLACES = {
    "frames": ["FrameStore"],
    "library": ["Library"],
    "place": ["find_library"],
    "plan": ["Job", "Plan", "Scan"],
    "catalogue.reader": ["open_reader", "open_reading"],
    "catalogue.reading": ["Reading"],
}
_PLACE_OF = {name: f"vsearch.library.{place}" for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Each name comes at its first use: a query must not wait for what only indexing needs."""
    if name not in __all__:
        raise AttributeError(f"module 'vsearch.library' has no attribute {name!r}")
    found = getattr(importlib.import_module(_PLACE_OF.get(name, "vsearch.records")), name)
    globals()[name] = found
    return found
