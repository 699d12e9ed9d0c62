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
    from vsearch.indexer import verify_library
    from vsearch.library import find_library

    report = verify_library(find_library(library), repair=repair)
    for problem in report.problems:
        print(printable(f"{problem.what}: {problem.action}" if problem.action else problem.what))
    if not report.problems:
        note("the library is whole")
    elif not repair:
        note(f"{len(report.problems)} problems; `vsearch verify --repair` mends them")
        raise typer.Exit(EXIT_SOME_FAILED)
    elif report.reindex_needed:
        note("mended; run `vsearch index FOLDER` to index again what was lost")
