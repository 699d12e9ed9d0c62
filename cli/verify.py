"""`vsearch verify`: is everything on disk whole? `--repair` mends what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from vsearch.cli.common import EXIT_SOME_FAILED, LibraryOption, note, printable, verb

_QUIET_BELOW = 1_000  # videos: a second or two of work


@verb
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    library: LibraryOption = None,
) -> None:
    """Check catalogue, frame vectors, index and posters against each other.

    Exit code 0 when all is whole (or was mended), 3 when problems remain.
    """
    from vsearch.cli.progress import reporter
    from vsearch.indexer import Progress, verify_library
    from vsearch.library import find_library

    with reporter("auto") as report:

        def progress(done: int, of: int) -> None:
            if of >= _QUIET_BELOW:
                report(Progress("checking stored frames", of, done))

        found = verify_library(find_library(library), repair=repair, progress=progress)
    for problem in found.problems:
        print(printable(f"{problem.what}: {problem.done}" if problem.done else problem.what))
    for text in found.notes:
        note(text)
    if found.clean:
        note("the library is whole")
    elif not repair:
        note(f"{len(found.problems)} problems; `vsearch verify --repair` mends what can be mended")
        raise typer.Exit(EXIT_SOME_FAILED)
    elif not found.mended:
        note("some problems remain")
        raise typer.Exit(EXIT_SOME_FAILED)
    else:
        note("what was found is mended")
