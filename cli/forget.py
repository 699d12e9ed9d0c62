"""`vsearch forget`: take videos out of the library. The files themselves are never touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    LibraryOption,
    ask_first,
    counted,
    note,
    printable,
    short_path,
    verb,
)
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.records import Video


@verb
def forget(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIDEO|FOLDER]...",
            help="Paths, or videos' unique ends. A folder: all videos below it, also when it is gone.",
            show_default=False,
        ),
    ] = None,
    missing: Annotated[
        bool,
        typer.Option(
            "--missing",
            help="Those whose files are gone: of the videos named, or of every folder whose disk is there.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be forgotten, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    library: LibraryOption = None,
) -> None:
    """Take videos out of the library, with their vectors. The video files are not touched.

    Asks first; where nobody can be asked, it takes --yes.
    """
    from vsearch.library import Library, find_library

    if not videos and not missing:
        raise VsearchError("say which videos to forget, or --missing for those whose files are gone")
    with Library.open(find_library(library)) as opened:
        known = opened.videos()
        chosen = named_videos(known, videos) if videos else known
        if missing:
            chosen = [v for v in chosen if v.state == "missing" and not os.path.lexists(v.path)]
        if not videos:
            chosen = _on_disks_that_are_there(chosen, known)
        for v in chosen:
            print(printable(short_path(v.path)))
        sys.stdout.flush()  # what cannot be shown is not forgotten
        if not chosen:
            note("nothing to forget")
            raise typer.Exit(EXIT_NOTHING)
        if dry_run:
            return
        count = counted(len(chosen), "video", "videos")
        ask_first("forget", count, yes=yes)
        opened.forget(chosen)
    note(f"forgot {count}")


def named_videos(known: Sequence[Video], names: Sequence[str]) -> list[Video]:
    """Each once, in the order of `names`: a path, a folder (there or not) with videos below it, or a path's unique end.

    Raises LibraryError for a name of no video, or of several.
    """
    from vsearch.library import absolute
    from vsearch.library.catalogue import pick

    by_path = {v.path: v for v in known}
    by_name: dict[str, list[Video]] = {}
    below: dict[Path, list[Video]] = {}
    for v in known:
        by_name.setdefault(v.path.name, []).append(v)
        for folder in v.path.parents:
            below.setdefault(folder, []).append(v)
    chosen: dict[int, Video] = {}
    for name in names:
        path = absolute(name)
        found: Iterable[Video] = below.get(path) or below.get(Path(os.path.realpath(path))) or ()
        if path in by_path:
            found = [by_path[path]]
        chosen |= {v.id: v for v in found or [pick(by_name.get(path.name, []), name, path)]}
    return list(chosen.values())


def _on_disks_that_are_there(gone: Sequence[Video], known: Sequence[Video]) -> list[Video]:
    """Those of `gone` whose disk can be seen to be there; says which folders were passed over."""
    alive = {v.root for v in known if v.state != "missing" and os.path.lexists(v.path)}
    passed: dict[Path, int] = {}
    kept = []
    for v in gone:
        where = v.root if v.root not in alive else _empty_folder_above(v.path, v.root)
        if where is None:
            kept.append(v)
        else:
            passed[where] = passed.get(where, 0) + 1
    for folder, count in passed.items():
        note(
            f"left alone: {counted(count, 'video', 'videos')} in {folder}, where nothing that the library knows is "
            f"left: its disk may not be connected. To forget them all the same: vsearch forget --missing {short_path(folder)}"
        )
    return kept


def _empty_folder_above(path: Path, root: Path) -> Path | None:
    """The nearest folder above `path` that exists, when there is nothing in it: a place where a disk is connected."""
    for folder in path.parents:
        try:
            with os.scandir(folder) as entries:
                return folder if next(entries, None) is None else None
        except OSError:
            if folder == root:
                return root
    return None
