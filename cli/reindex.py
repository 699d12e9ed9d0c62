"""`vsearch reindex`: another model for the library, while the one it has goes on answering."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vsearch.cli.common import (
    EXIT_SOME_FAILED,
    SCHEMA_VERSION,
    DeviceOption,
    JsonOption,
    LibraryOption,
    counted,
    note,
    print_json,
    printable,
    verb,
)
from vsearch.errors import VsearchError


@verb
def reindex(
    model: Annotated[
        str | None,
        typer.Option(help="The model to change to; see `vsearch models list`.", show_default=False),
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the model before.")] = False,
    library: LibraryOption = None,
    device: DeviceOption = "auto",
    progress: Annotated[str, typer.Option(help="auto, bar, plain, json or none.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Change the model that the library is searched with. Its videos are decoded and encoded anew.

    Until that is done the old model answers. Stopped, it goes on where it was when it is run again. The old index is
    kept: `vsearch reindex --rollback` restores it as it was.

    Exit code 0 when all is well, 3 when the model was changed but some files failed.
    """
    from vsearch.cli.progress import reporter
    from vsearch.indexer import IndexOptions, change_model
    from vsearch.library import find_library

    if (model is None) == (not rollback):
        raise VsearchError("give --model NAME, or --rollback, and not both")
    options = None if model is None else IndexOptions(model=model, device=device)
    with reporter(progress) as report:
        done = change_model(find_library(library), options, report)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(done)})
    else:
        note(
            f"{printable(done.model)} answers now, before it was {printable(done.former)}: {done.moments} moments in {done.seconds:.1f} s"
        )
    if done.behind:
        what = counted(done.behind, "video was", "videos were")
        note(f"{what} indexed since; `vsearch index` on their folders brings them to this model")
    for path, reason in done.failures[:10]:
        note(f"  failed: {printable(path)}: {reason}")
    if done.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
