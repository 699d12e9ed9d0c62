"""`vsearch clip`: cut a moment out as a file that plays everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import LibraryOption, note, parse_time, print_json, printable, short_path, timecode, verb
from vsearch.cli.common import JsonOption
from vsearch.errors import VsearchError


@verb
def clip(
    what: Annotated[
        str, typer.Argument(metavar="RESULT|VIDEO", help="A rank of the last query, or a video.", show_default=False)
    ],
    start: Annotated[str | None, typer.Option(help="Where to begin (95.5 or 1:35.5).")] = None,
    end: Annotated[str | None, typer.Option(help="Where to end.")] = None,
    pad: Annotated[float, typer.Option(min=0, help="Seconds to add on both sides.")] = 0.0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write (.mp4).", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it is there.")] = False,
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a moment out as an H.264 file: `vsearch clip 1` for the first hit of the last query."""
    from vsearch.indexer import export_clip
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        begin_ms, end_ms = 0, None
        if what.isdigit() and (hits := opened.remembered_hits()) and 1 <= int(what) <= len(hits):
            video_id, begin_ms, end_ms = hits[int(what) - 1]
            video = opened.video_by_id(video_id)
        elif what.isdigit():
            raise VsearchError(f"the last query had no hit number {what}; give a rank that it showed, or a video")
        else:
            video = opened.video(what)
    begin_ms = begin_ms if start is None else parse_time(start)
    end_ms = end_ms if end is None else parse_time(end)
    if end_ms is None:
        end_ms = video.duration_ms or 0
    begin_ms, end_ms = max(0, begin_ms - round(pad * 1000)), end_ms + round(pad * 1000)
    if video.duration_ms is not None:
        end_ms = min(end_ms, video.duration_ms)
    if begin_ms >= end_ms:
        raise VsearchError(f"the clip would be empty: it begins at {timecode(begin_ms)} and ends at {timecode(end_ms)}")
    source = Path(video.path)
    target = out or Path(f"{source.stem}_{timecode(begin_ms).replace(':', '-')}.mp4")
    export_clip(source, target, begin_ms, end_ms, overwrite=force)
    if as_json:
        print_json({"path": str(target), "source": str(source), "start": begin_ms / 1000, "end": end_ms / 1000})
    else:
        print(printable(str(target)))
        note(f"{timecode(begin_ms)} - {timecode(end_ms)} of {short_path(source)}")
