"""A run's progress for other programs: a small file in the library's folder, rewritten about once a second.

The search page reads it. A courtesy: a run goes on when it cannot be written.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsearch.indexer.run import Progress, Report

FILE = "index.progress"
EVERY_S = 1.0
STALE_S = 120.0  # a run that was killed leaves its file


@contextlib.contextmanager
def shared(library: Path, report: Report) -> Iterator[Report]:
    """`report`, which also tells other programs."""
    path, told, warnings = library / FILE, 0.0, 0

    def both(progress: Progress) -> None:
        nonlocal told, warnings
        report(progress)
        warnings += progress.warning is not None
        if time.monotonic() - told < EVERY_S or not library.is_dir():
            return
        told = time.monotonic()
        record = {**asdict(progress), "warnings": warnings}
        with contextlib.suppress(OSError):
            part = path.with_name(f"{FILE}.{os.getpid()}")
            part.write_text(json.dumps(record), encoding="utf-8", errors="backslashreplace")
            os.replace(part, path)

    try:
        yield both
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def running(library: Path) -> dict[str, object] | None:
    """The progress of the run at work on a library: the fields of Progress, and `warnings`. None: there is none."""
    path = library / FILE
    try:
        if time.time() - path.stat().st_mtime > STALE_S:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
