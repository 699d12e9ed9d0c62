"""`vsearch ls` and `vsearch info`: the videos of a library."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    SCHEMA_VERSION,
    JsonOption,
    LibraryOption,
    print_json,
    printable,
    short_path,
    timecode,
    verb,
)

VideoArgument = Annotated[str, typer.Argument(metavar="VIDEO", help="A path, or its unique end.", show_default=False)]


@verb
def ls(
    state: Annotated[str | None, typer.Option(help="Only indexed, partial, failed or missing ones.")] = None,
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the library's videos."""
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        videos = opened.videos(state)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "videos": [asdict(v) for v in videos]})
    else:
        for v in videos:
            length = timecode(v.duration_ms) if v.duration_ms is not None else "-"
            print(f"{v.state}\t{length}\t{printable(short_path(v.path))}")
    if not videos:
        raise typer.Exit(EXIT_NOTHING)


@verb
def info(video: VideoArgument, library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Show what is known of one video."""
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        found = opened.video(video)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(found)})
        return
    for name, value in asdict(found).items():
        if value is not None:
            print(f"{name:12} {printable(str(value))}")
