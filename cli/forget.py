"""`vsearch forget`: take videos out of the library. The files themselves are never touched."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vsearch.cli.common import EXIT_NOTHING, LibraryOption, note, printable, short_path, verb
from vsearch.errors import VsearchError


@verb
def forget(
    videos: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VIDEO]...", help="Paths, or their unique ends.", show_default=False),
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="All videos whose files are gone.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be forgotten, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    library: LibraryOption = None,
) -> None:
    """Take videos out of the library, with their vectors. The video files are not touched."""
    from vsearch.library import Library, find_library

    if not videos and not missing:
        raise VsearchError("say which videos to forget, or --missing for those whose files are gone")
    with Library.open(find_library(library)) as opened:
        chosen = [opened.find_video(v) for v in videos or []]
        chosen += [v for v in opened.videos("missing") if missing and v not in chosen]
        for v in chosen:
            print(printable(short_path(v.path)))
        if not chosen:
            note("nothing to forget")
            raise typer.Exit(EXIT_NOTHING)
        if dry_run:
            return
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Forget {len(chosen)} videos?", err=True):
            raise typer.Exit(EXIT_NOTHING)
        opened.forget(chosen)
    note(f"forgot {len(chosen)} videos")
