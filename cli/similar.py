"""`vsearch similar`: moments that look like a given one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vsearch.cli import output
from vsearch.cli.common import EXIT_NOTHING, JsonOption, LibraryOption, note, parse_time, verb
from vsearch.errors import VsearchError


@verb
def similar(
    moment: Annotated[
        str, typer.Argument(metavar="VIDEO@TIME", help="Such as trip.mp4@1:35.", show_default=False)
    ],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many videos to show.")] = 10,
    as_json: JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one hit a line, as JSON.")] = False,
    library: LibraryOption = None,
) -> None:
    """Find moments that look like what VIDEO shows at TIME."""
    from vsearch.library import find_library
    from vsearch.library.catalogue import open_reading
    from vsearch.retriever import Session

    video, at, time = moment.rpartition("@")
    if not at:
        raise VsearchError(f"write VIDEO@TIME, such as {moment}@1:35")
    time_ms, fmt = parse_time(time), output.chosen_format(as_json=as_json, jsonl=jsonl)
    with open_reading(find_library(library)) as opened:
        session = Session.of(opened)
        answer = session.similar(opened.find_video(video), time_ms, number=number)
        output.print_hits(answer, fmt)
        sys.stdout.flush()  # the answer first
        session.remember(answer)
    if not answer.hits:
        note("nothing found")
        raise typer.Exit(EXIT_NOTHING)
    output.note_gone(answer)
