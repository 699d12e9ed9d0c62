"""`vsearch query`: the moments that a sentence describes, best first."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsearch.cli import output
from vsearch.cli.common import EXIT_NOTHING, DeviceOption, JsonOption, LibraryOption, note, verb

if TYPE_CHECKING:
    from vsearch.retriever import Answer, Question


@verb
def query(
    words: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="A sentence, written like a caption; quotes are not needed."),
    ],
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="How many videos (with --in: moments) to show.")
    ] = 10,
    within: Annotated[
        str | None,
        typer.Option("--in", metavar="VIDEO", help="Rank the moments of this one video.", show_default=False),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Leave out moments that score lower.")] = None,
    least: Annotated[
        str | None,
        typer.Option(
            "--min",
            metavar="WORD",
            help="Leave out what is less than weak, likely or strong.",
            show_default=False,
        ),
    ] = None,
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
            help="Leave a process behind for 10 minutes that makes further queries faster.",
        ),
    ] = True,
) -> None:
    """Find the moments that TEXT describes.

    Exit code 0 when something likely was found (with --min: that or better), else 1.
    """
    from vsearch.library import absolute, find_library
    from vsearch.retriever import Asked, Question, ask, start

    if within is None:  # for one sentence, threads cost a fifth of the CPU time and save none
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    fmt = output.chosen_format(as_json=as_json, jsonl=jsonl, csv=csv, paths=paths, null=null)
    place = find_library(library).expanduser().resolve()
    within_path = None if within is None else str(absolute(within))
    question = Question(str(place), " ".join(words), number, threshold, within, within_path, least)
    asked = ask(question, device) if helper else Asked(None, running=False)
    if asked.answer:
        answer, loaded = asked.answer, False
        _print_now(answer, fmt)
        if not asked.noted:
            _note(place, answer)
    else:
        answer, loaded = _answer_alone(place, question, device, fmt)
    if helper and not asked.running:
        start(place, device, encoder=loaded)
    if answer.cut:
        note("the end of this sentence was not read: it is longer than the model takes; write a shorter one")
    if answer.language is not None:
        note(f"this looks like {answer.language}, which {answer.model} was not taught; ask in English")
    if not answer.hits:
        asked_for = [f"scores {threshold} or more"] if threshold is not None else []
        asked_for += [f"is {least} or better"] if least is not None else []
        note("nothing found" + (f" that {' and '.join(asked_for)}" if asked_for else ""))
        raise typer.Exit(EXIT_NOTHING)
    output.note_gone(answer)
    if all(hit.strength is None for hit in answer.hits):
        note(
            "these answers have no words such as likely yet: run `vsearch index`, which measures what chance scores here"
        )
    elif not answer.confident and least is None:
        where = "library" if within is None else "video"
        note(f"no likely match: probably not in this {where}; the nearest moments are shown")
        raise typer.Exit(EXIT_NOTHING)


def _answer_alone(place: Path, question: Question, device: str, fmt: str) -> tuple[Answer, bool]:
    """Print the answer; gives it, and whether the model was needed."""
    from vsearch.library.catalogue import open_reading
    from vsearch.retriever import Session

    with open_reading(place) as library:
        session = Session.of(library, device)
        given = session.answer(question)
        _print_now(given, fmt)
        session.remember(given)
    return given, bool(session.encoders)


def _note(place: Path, given: Answer) -> None:
    from vsearch.library.catalogue import open_reading
    from vsearch.retriever import Session

    with open_reading(place) as library:
        Session.of(library).remember(given)


def _print_now(given: Answer, fmt: str) -> None:
    """The answer first, notes and helpers then."""
    output.print_hits(given, fmt)
    sys.stdout.flush()
