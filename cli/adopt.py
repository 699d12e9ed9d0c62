"""`vsearch adopt`: another head for the library, without touching a video."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import SCHEMA_VERSION, DeviceOption, JsonOption, LibraryOption, note, print_json, verb
from vsearch.errors import VsearchError


@verb
def adopt(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="Folder of a `vsearch train` run.", show_default=False),
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the head before.")] = False,
    library: LibraryOption = None,
    device: DeviceOption = "auto",
    progress: Annotated[str, typer.Option(help="auto, bar, plain, json or none.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search with the trained head in CHECKPOINT. Moments are made anew from stored frames; no video is decoded.

    The old index is kept: `vsearch adopt --rollback` restores it as it was.
    """
    from vsearch.cli.progress import reporter
    from vsearch.indexer import rollback as go_back
    from vsearch.indexer.adopt import adopt as take
    from vsearch.library import Library, find_library

    if (checkpoint is None) == (not rollback):
        raise VsearchError("give the folder of a checkpoint, or --rollback, and not both")
    with Library.open(find_library(library)) as opened:
        if checkpoint is None:
            done = go_back(opened)
        else:
            with reporter(progress) as report:
                done = take(opened, checkpoint, report, device)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(done)})
    elif done.changed:
        note(
            f"{done.head} answers now: {done.moments} moments in {done.seconds:.1f} s; before it was {done.former}"
        )
    else:
        note(f"{done.head} answers already")
    if done.behind:
        note(
            f"{done.behind} videos were indexed since; `vsearch index` on their folders brings them to this head"
        )
