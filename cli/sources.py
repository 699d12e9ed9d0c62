"""Videos named on the command line: from the library, or indexed on the spot for this one command."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.cli.common import note
from vsearch.errors import LibraryError, VsearchError

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.records import Video
    from vsearch.retriever.actions import Learned


@contextlib.contextmanager
def open_videos(
    paths: Sequence[Path], library: Path | None, device: str
) -> Iterator[tuple[Library, list[Video]]]:
    """The library and the named videos in it (all when none is named).

    Files and folders that it does not hold are indexed into a passing library, with its model. Raises
    VsearchError.
    """
    from vsearch.library import Library, find_library
    from vsearch.records import FAILED, INDEXED, PARTIAL

    home = find_library(library)
    if not paths:
        with Library.open(home) as opened:
            yield opened, opened.videos(INDEXED, PARTIAL)
        return
    model, head = None, None
    if Library.exists(home):
        with Library.open(home) as opened:
            known = opened.live_encoder()
            videos = _held(opened, paths)
            if known and videos is not None:
                yield opened, videos
                return
            if known:
                model, head = known.spec["model"], known.spec["head"].get("checkpoint")
    from vsearch.indexer import IndexOptions, Progress, index_videos

    def report(progress: Progress) -> None:
        if progress.warning:
            note(f"warning: {progress.warning}")

    with tempfile.TemporaryDirectory(prefix="vsearch-") as scratch:
        passing = Path(scratch) / "library"
        index_videos(
            passing,
            paths,
            IndexOptions(model=model, head=Path(head) if head else None, device=device),
            report,
        )
        if not Library.exists(passing):
            raise VsearchError("no videos found")
        with Library.open(passing) as opened:
            for video in opened.videos(FAILED):
                note(f"warning: {video.path}: {video.reason}")
            videos = opened.videos(INDEXED, PARTIAL)
            if not videos:
                raise VsearchError("none of these videos could be decoded")
            yield opened, videos


def kept_vocabulary(library: Path | None, name: str) -> Learned | None:
    """A vocabulary that `vsearch classify --save` kept in the library, if there is one of that name."""
    from vsearch.library import Library, find_library
    from vsearch.retriever.actions import load

    home = find_library(library)
    if not Library.exists(home):
        return None
    with Library.open(home) as opened:
        return load(opened, name)


def _held(opened: Library, paths: Sequence[Path]) -> list[Video] | None:
    """The named videos, or None when the library lacks one of them."""
    from vsearch.records import INDEXED, PARTIAL

    try:
        videos = [opened.find_video(str(path)) for path in paths]
    except LibraryError:
        return None
    return videos if all(v.state in (INDEXED, PARTIAL) for v in videos) else None
