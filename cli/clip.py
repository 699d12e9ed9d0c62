"""`vsearch clip`: cut a moment out as a file that plays everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import (
    JsonOption,
    LibraryOption,
    note,
    parse_time,
    print_json,
    printable,
    short_path,
    timecode,
    verb,
)
from vsearch.cli.output import recall
from vsearch.errors import VsearchError

LONGEST_STEM = 200  # bytes; file systems take 255 of a name


@verb
def clip(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RESULT|VIDEO", help="A rank of the last query, or a video.", show_default=False
        ),
    ],
    start: Annotated[str | None, typer.Option(help="Where to begin (95.5 or 1:35.5).")] = None,
    end: Annotated[str | None, typer.Option(help="Where to end.")] = None,
    pad: Annotated[float, typer.Option(min=0, help="Seconds to add on both sides.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write (.mp4).", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it is there.")] = False,
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a moment out as an H.264 file: `vsearch clip 1` for the first hit of the last query."""
    from vsearch.indexer import export_clip
    from vsearch.library import Library, find_library

    begin_ms, end_ms = 0, None
    with Library.open(find_library(library)) as opened:
        if what.isdigit():
            path, begin_ms, end_ms = recall(opened, int(what))
            video = opened.find_video(path)
        else:
            video = opened.find_video(what)
        held = [known.path for known in opened.videos()] if force else []  # else nothing is replaced
    duration_ms = video.media.duration_ms if video.media else 0
    begin_ms = begin_ms if start is None else parse_time(start)
    end_ms = parse_time(end) if end is not None else duration_ms if end_ms is None else end_ms
    begin_ms = max(0, begin_ms - round(pad * 1000))
    end_ms = min(duration_ms, end_ms + round(pad * 1000))
    if begin_ms >= end_ms:
        raise VsearchError(
            f"the clip would be empty: from {timecode(begin_ms)} to {timecode(end_ms)} of a video that lasts "
            f"{timecode(duration_ms)}"
        )
    target = out or Path(_name(video.path.stem, timecode(begin_ms).replace(":", "-")))
    if word := export_clip(video.path, target, begin_ms, end_ms, overwrite=force, held=held):
        note(f"vsearch: {short_path(video.path)}: {word}")
    if as_json:
        print_json(
            {"path": str(target), "source": str(video.path), "start": begin_ms / 1000, "end": end_ms / 1000}
        )
    else:
        print(printable(str(target)))
        note(f"{timecode(begin_ms)} - {timecode(end_ms)} of {short_path(video.path)}")


def _name(stem: str, begin: str) -> str:
    """A file name that every file system takes, of the video's and where the clip begins."""
    short = (
        os.fsencode(stem)[:LONGEST_STEM].decode(errors="ignore")
        if len(os.fsencode(stem)) > LONGEST_STEM
        else stem
    )
    return f"{short}_{begin}.mp4"
