"""A catalogue in a folder that cannot be written: a read-only disk, or another user's library."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path


def writable(file: Path) -> bool:
    """Whether a catalogue can be written; one that is not there counts."""
    return not file.is_file() or (os.access(file.parent, os.W_OK) and os.access(file, os.W_OK))


def connect_read_only(file: Path) -> sqlite3.Connection:
    """A connection for questions alone that writes nothing beside the catalogue. Raises sqlite3.Error, OSError.

    SQLite reads a write-ahead log only beside shared memory, which it cannot make here. Where a writer's is there, it
    is used. Without a log the file alone is all there is; with one, of a run that was killed, both are copied elsewhere.
    """
    try:
        return _connected(file, "mode=ro")
    except sqlite3.OperationalError:
        logs = [Path(f"{file}{end}") for end in ("-wal", "-journal")]
        logs = [log for log in logs if log.is_file() and log.stat().st_size > 0]
    if not logs:
        return _connected(file, "mode=ro&immutable=1")
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(
        prefix="vsearch-"
    ) as folder:  # what is open stays readable when it is gone
        for path in (file, *logs):
            shutil.copyfile(path, Path(folder) / path.name)
        return _connected(Path(folder) / file.name, "mode=rw")


def _connected(file: Path, mode: str) -> sqlite3.Connection:
    import urllib.parse

    where = urllib.parse.quote(os.fsencode(file))
    connection = sqlite3.connect(
        f"file:{where}?{mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
