"""`vsearch ls` and `vsearch info`: the videos of a library."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    SCHEMA_VERSION,
    JsonOption,
    LibraryOption,
    note,
    print_json,
    printable,
    short_path,
    timecode,
    verb,
)
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.records import Video

VideoArgument = Annotated[
    str, typer.Argument(metavar="VIDEO", help="A path, or its unique end.", show_default=False)
]


@verb
def ls(
    state: Annotated[str | None, typer.Option(help="Only indexed, partial, failed or missing ones.")] = None,
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the library's videos."""
    from vsearch.library import Library, find_library
    from vsearch.records import FAILED, INDEXED, MISSING, PARTIAL

    if state not in (None, FAILED, INDEXED, MISSING, PARTIAL):
        raise VsearchError(f"unknown state {state!r}; use indexed, partial, failed or missing")
    with Library.open(find_library(library)) as opened:
        videos = opened.videos(*([state] if state else []))
        coarse = opened.coarse_contents()
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "videos": [video_record(v, coarse) for v in videos]})
    else:
        for v in videos:
            length = timecode(v.media.duration_ms) if v.media else "-"
            shown = "coarse" if is_coarse(v, coarse) else v.state
            print(f"{shown}\t{length}\t{printable(short_path(v.path))}")
    if not videos:
        note("no videos yet; run `vsearch index FOLDER`" if state is None else f"no video is {state}")
        raise typer.Exit(EXIT_NOTHING)


@verb
def info(video: VideoArgument, library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Show what is known of one video."""
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        found = opened.find_video(video)
        record = video_record(found, opened.coarse_contents())
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **record})
        return
    for name, value in record.items():
        if value is not None:
            print(f"{name:12} {printable(str(value))}")


def is_coarse(video: Video, coarse: set[str]) -> bool:
    return video.fingerprint in coarse and video.state in ("indexed", "partial")


def video_record(video: Video, coarse: set[str]) -> dict[str, Any]:
    """A video as documented in docs/json.md. `coarse`: fingerprints seen by the first pass alone."""
    record = {k: v for k, v in asdict(video).items() if k != "media"}
    media = {} if video.media is None else asdict(video.media)
    named = {"path": str(video.path), "root": str(video.root), "coarse": is_coarse(video, coarse)}
    return {**record, **media, **named}
