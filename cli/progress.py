"""Progress of an index run on stderr: a bar on a terminal, plain lines in a log, JSON lines for a program."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsearch.cli.common import note, printable
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.indexer import Progress

    Report = Callable[[Progress], None]

PLAIN_EVERY_S = 5.0


@contextmanager
def reporter(mode: str) -> Iterator[Report]:
    """A callable that takes Progress values; 'auto' picks by whether stderr is a terminal. A run goes on when that is
    gone."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "plain"
    if mode == "bar":
        with _bar() as report:
            yield _while_heard(report)
    elif mode == "plain":
        yield _plain()
    elif mode == "json":
        yield _while_heard(_json_lines)
    elif mode == "none":
        yield lambda progress: None
    else:
        raise VsearchError(f"unknown progress mode {mode!r}; use auto, bar, plain, json or none")


def _while_heard(report: Report) -> Report:
    def told(progress: Progress) -> None:
        with contextlib.suppress(OSError):
            report(progress)

    return told


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("videos"),
        TextColumn("[dim]{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    bars = Bars(*columns, console=Console(stderr=True), refresh_per_second=4)
    with contextlib.suppress(OSError):
        bars.start()
    try:
        task = bars.add_task("indexing", total=None, rate="")
        stage = ""

        def report(p: Progress) -> None:
            nonlocal stage
            if p.stage != stage:  # the pace of one pass says nothing of the next
                stage = p.stage
                bars.reset(task)
            if p.warning:
                bars.console.print(f"[yellow]warning:[/] {escape(printable(p.warning))}", highlight=False)
            rate = f"{p.frames_per_s:.0f} frames/s" if p.frames else ""
            bars.update(task, description=p.stage, completed=p.videos_done, total=p.videos or None, rate=rate)

        yield report
    finally:
        with contextlib.suppress(OSError):
            bars.stop()


def _plain() -> Report:
    last_stage, last_time = "", 0.0

    def report(p: Progress) -> None:
        nonlocal last_stage, last_time
        if p.warning:
            note(f"warning: {p.warning}")
            return
        if p.stage == last_stage and time.monotonic() - last_time < PLAIN_EVERY_S:
            return
        last_stage, last_time = p.stage, time.monotonic()
        if p.videos:
            eta = f", ETA {p.eta_s:.0f} s" if p.eta_s is not None else ""
            note(
                f"{p.stage}: {p.videos_done}/{p.videos} videos, {p.frames} frames, {p.frames_per_s:.0f} frames/s{eta}"
            )
        else:
            note(p.stage)

    return report


def _json_lines(p: Progress) -> None:
    record = {
        "stage": p.stage, "videos": p.videos, "videos_done": p.videos_done, "frames": p.frames,
        "frames_per_s": round(p.frames_per_s, 2), "eta_s": p.eta_s, "warning": p.warning,
    }  # fmt: skip
    print(json.dumps(record), file=sys.stderr, flush=True)
