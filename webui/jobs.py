"""Long work that a visitor may start: retry what failed, adopt a head. One at a time, in a process of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vsearch import process
from vsearch.errors import VsearchError

MAX_FILES = 500  # named on one command line
FINE = (0, 3)  # 3: finished, some files failed again


@dataclass(frozen=True)
class JobState:
    """`error`: what the command said when it failed."""

    name: str
    running: bool
    error: str | None = None


class Jobs:
    """The job at work, or the last one. `close` ends it as Ctrl-C would."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self._mutex = threading.Lock()
        self._process: process.Process | None = None
        self._job: JobState | None = None

    def retry(self, files: Sequence[Path]) -> None:
        self._start(
            "retry", ["index", "--retry-failed", *_progress(), "--", *map(os.fspath, files[:MAX_FILES])]
        )

    def adopt(self, checkpoint: Path) -> None:
        self._start("adopt", ["adopt", *_progress(), "--", os.fspath(checkpoint)])

    def state(self) -> JobState | None:
        with self._mutex:
            return self._job

    def close(self) -> None:
        with self._mutex:
            running = self._process
        if running is not None and running.poll() is None:
            running.end()

    def _start(self, name: str, arguments: list[str]) -> None:
        verb, *rest = arguments
        command = [verb, "--library", os.path.abspath(self._library), *rest]
        with self._mutex:
            if self._job is not None and self._job.running:
                raise VsearchError("this server is busy with such work already; wait for its end")
            job = process.start("vsearch.cli:program", command, stderr=True)
            self._process, self._job = job, JobState(name, True)

        def wait() -> None:
            said = job.communicate()[1].decode(errors="replace").strip().splitlines()
            code = job.returncode
            error = None if code in FINE else (said[-1] if said else f"it ended with code {code}")
            with self._mutex:
                self._job = JobState(name, False, error)

        threading.Thread(target=wait, daemon=True).start()


def _progress() -> list[str]:
    return ["--progress", "none"]
