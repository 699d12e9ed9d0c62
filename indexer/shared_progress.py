"""A run's progress for other programs: a small file in the library's folder, rewritten about once a second.

The search page reads it. A lock beside it, which the operating system drops when the run ends, however it ends, says
whether it is of a run at work. A courtesy: a run goes on when it cannot be written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsearch.indexer.summary import Progress, Report

FILE = "index.progress"
LOCK = f"{FILE}.lock"
EVERY_S = 1.0


@contextlib.contextmanager
def shared(library: Path, report: Report) -> Iterator[Report]:
    """`report`, which also tells other programs. Only with the writer's lock: one run at a time has a progress."""
    path, told, warnings = library / FILE, float("-inf"), 0
    part = library / f"{FILE}.part"

    def both(progress: Progress) -> None:
        nonlocal told, warnings
        report(progress)
        warnings += progress.warning is not None
        if time.monotonic() - told < EVERY_S or not library.is_dir():
            return
        told = time.monotonic()
        record = {**asdict(progress), "warnings": warnings}
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(record), encoding="utf-8", errors="backslashreplace")
            os.replace(part, path)

    with contextlib.ExitStack() as locked:
        with contextlib.suppress(OSError):
            handle = locked.enter_context(open(library / LOCK, "wb"))
            fcntl.flock(handle, fcntl.LOCK_EX)  # a reader holds it for an instant
        for stale in (path, part):  # of a run that was killed
            with contextlib.suppress(OSError):
                stale.unlink(missing_ok=True)
        try:
            yield both
        finally:
            for mine in (path, part, library / LOCK):
                with contextlib.suppress(OSError):
                    mine.unlink(missing_ok=True)


def running(library: Path) -> dict[str, object] | None:
    """The progress of the run at work on a library: the fields of Progress, and `warnings`. None: there is none."""
    try:
        with open(library / LOCK, "rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                record = json.loads((library / FILE).read_text(encoding="utf-8"))
                return record if isinstance(record, dict) else None
    except (OSError, ValueError):
        pass
    return None
