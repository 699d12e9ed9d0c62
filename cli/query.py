"""`vsearch query`: the moments that a sentence describes, best first."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vsearch.cli import output
from vsearch.cli.common import EXIT_NOTHING, DeviceOption, JsonOption, LibraryOption, note, verb


@verb
def query(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A sentence, written like a caption.")],
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="How many videos (with --in: moments) to show.")
    ] = 10,
    within: Annotated[
        str | None,
        typer.Option("--in", metavar="VIDEO", help="Rank the moments of this one video.", show_default=False),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Leave out moments that score lower.")] = None,
    as_json: JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one hit a line, as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    paths: Annotated[bool, typer.Option("-l", help="Print paths only.")] = False,
    null: Annotated[
        bool, typer.Option("-0", help="Print paths only, separated by NUL, for xargs -0.")
    ] = False,
    library: LibraryOption = None,
    device: DeviceOption = "auto",
    helper: Annotated[
        bool,
        typer.Option(
            "--helper/--no-helper",
            help="Leave a process behind for 10 minutes that makes new queries faster.",
        ),
    ] = True,
) -> None:
    """Find the moments that TEXT describes.

    Exit code 0 when something was found, 1 when nothing (confident) was found.
    """
    from vsearch.library import Library, find_library
    from vsearch.retriever import live_encoder, search
    from vsearch.retriever.helper import HelpedEncoder, start

    encoder = None
    with Library.open(find_library(library)) as opened:
        if within is None:
            encoder = HelpedEncoder(live_encoder(opened), device) if helper else None
            answer = search(opened, text, number=number, threshold=threshold, encoder=encoder, device=device)
        else:
            from vsearch.retriever.actions import search_in

            video = opened.find_video(within)
            answer = search_in(opened, video, text, number=number, threshold=threshold, device=device)
        output.remember(opened, answer)
    fmt = output.chosen_format(as_json=as_json, jsonl=jsonl, csv=csv, paths=paths, null=null)
    output.print_hits(answer, fmt)
    if encoder is not None and encoder.worked_alone:
        sys.stdout.flush()  # the answer first
        start(encoder.live, device)
    if not answer.hits:
        note("nothing found" if threshold is None else f"nothing found that scores {threshold} or more")
        raise typer.Exit(EXIT_NOTHING)
    if not answer.confident:
        note("no confident match: probably not in this library; the nearest moments are shown")
        raise typer.Exit(EXIT_NOTHING)
