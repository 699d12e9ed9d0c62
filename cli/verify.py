"""`vsearch verify`: is everything on disk whole? `--repair` mends what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from vsearch.cli.common import EXIT_SOME_FAILED, LibraryOption, note, printable, verb


@verb
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    library: LibraryOption = None,
) -> None:
    """Check catalogue, frame vectors and index against each other.

    Exit code 0 when all is whole (or was mended), 3 when problems remain.
    """
    from vsearch.indexer import embedder
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        encoder = opened.live_encoder()
        report = opened.verify(repair=repair, embed=embedder(opened, encoder.id) if encoder else None)
    for problem in report.problems:
        print(printable(f"{problem.what}: {problem.done}" if problem.done else problem.what))
    for text in report.notes:
        note(text)
    if report.clean:
        note("the library is whole")
    elif not repair:
        note(f"{len(report.problems)} problems; `vsearch verify --repair` mends what can be mended")
        raise typer.Exit(EXIT_SOME_FAILED)
    elif not report.mended:
        note("some problems remain")
        raise typer.Exit(EXIT_SOME_FAILED)
