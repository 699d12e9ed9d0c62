"""What an indexing run is pointed at: the videos below its paths, or the sentence for a path that is not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import VsearchError
from vsearch.indexer.discover import find_videos
from vsearch.indexer.summary import Progress, Report

if TYPE_CHECKING:
    from vsearch.library import Scan


def not_there(library_path: Path, absent: Path) -> VsearchError:
    """The sentence for a path that does not exist, with the way out for one that the library knows."""
    from vsearch.library import Library

    known = 0
    if Library.exists(library_path):
        with Library.open(library_path) as library:
            real = Path(os.path.realpath(absent))
            known = sum(real == video.path or real in video.path.parents for video in library.videos())
    if not known:
        return VsearchError(f"there is no file or folder {absent}")
    return VsearchError(
        f"there is no file or folder {absent}, where the library knows {known} videos: on a disk that is away they "
        "wait for it; under another name or place, index it there, and they are known; "
        f"to give them up: vsearch forget {absent}"
    )


def scan(paths: Sequence[Path], report: Report) -> Scan:
    """All videos in and below `paths`; what could not be looked into is reported."""
    from vsearch.library import FoundFile, Scan

    report(Progress("looking for videos"))
    skipped: list[Path] = []

    def on_skip(path: Path, reason: str) -> None:
        skipped.append(path)
        report(Progress("looking for videos", warning=f"{path}: {reason}"))

    found = find_videos(paths, on_skip)
    return Scan(
        folders=tuple(Path(os.path.realpath(path)) for path in paths),
        files=tuple(FoundFile(file.path, file.size, file.mtime_ns) for file in found),
        skipped=tuple(skipped),
    )
