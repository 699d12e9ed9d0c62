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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `warning` marks a report about one file or folder."""

    stage: str
    videos: int = 0
    videos_done: int = 0
    frames: int = 0
    frames_per_s: float = 0.0
    eta_s: float | None = None
    warning: str | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class RunSummary:
    """What a run did, in videos. `failures`: path and reason of those that failed now or still."""

    found: int = 0
    unchanged: int = 0
    indexed: int = 0
    partial: int = 0
    moved: int = 0
    copies: int = 0
    missing: int = 0
    to_do: int = 0
    frames: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The run in a sentence."""
        if not self.found and not self.missing:
            return ["no videos found"]
        parts = [f"{self.found} videos found"]
        if self.dry_run:
            parts.append(f"{self.to_do} would be decoded")
        named = (
            (self.indexed, "indexed"), (self.partial, "of them in part"), (self.unchanged, "unchanged"),
            (self.moved, "moved"), (self.copies, "copies of known content"), (self.missing, "missing"),
            (len(self.failures), "failed"),
        )  # fmt: skip
        parts += [f"{count} {name}" for count, name in named if count]
        rate = f"; {self.frames} frames in {self.seconds:.1f} s" if self.frames else ""
        return [", ".join(parts) + rate]


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
