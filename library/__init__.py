"""What is on disk: catalogue, frame vectors, vector index. Knows nothing of models, decoding or the CLI.

library/
  catalogue.sqlite        the truth
  frames/<xx>/<sha>.npy   frame vectors and times, named by content
  index/<token>.faiss     generations of the vector index, derived; with .rows, .ids and .gone where it is large
  thumbs/<xx>/<sha>.jpg   posters
  index.lock              held by the one writer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsearch.library.frames import FrameStore
from vsearch.library.location import find_library
from vsearch.library.planning import Job, Plan, Scan
from vsearch.library.reading import Reading
from vsearch.library.records import (
    FAILED,
    INDEXED,
    MISSING,
    PARTIAL,
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

if TYPE_CHECKING:
    from vsearch.library.library import Library
    from vsearch.library.reader import open_reading

__all__ = [
    "FAILED",
    "INDEXED",
    "MISSING",
    "PARTIAL",
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
    "open_reading",
]


def __getattr__(name: str) -> Any:
    """What loads a database driver comes at its first use."""
    if name == "Library":
        from vsearch.library.library import Library

        return Library
    if name == "open_reading":
        from vsearch.library.reader import open_reading

        return open_reading
    raise AttributeError(f"module 'vsearch.library' has no attribute {name!r}")
