"""The catalogue's file itself: is it whole, and the way back when it is not.

An index that contradicts its table is made again. Anything else is replaced by the newest backup that is whole; the
damaged file stays beside it under another name. The next `vsearch index` brings that catalogue up to date.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vsearch.library.catalogue import latest_schema
from vsearch.library.checks.backup import BACKUPS
from vsearch.library.files import disk_errors, new_file, put_in_place, sync_folder
from vsearch.library.place import CATALOGUE
from vsearch.library.read_only import connect_read_only, writable

_OF_AN_INDEX = ("missing from index", "wrong # of entries in index", "non-unique entry in index")


def backups(library: Path) -> list[Path]:
    """Copies of the catalogue, newest first."""
    found = [path for path in library.glob(BACKUPS) if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def catalogue_faults(file: Path) -> list[str]:
    """What is wrong with a catalogue's file by SQLite's own check and by its schema number; nothing when it is sound, or
    was never made."""
    try:
        if file.is_dir():
            return ["a folder lies in its place"]
        if not file.exists() or file.stat().st_size == 0:
            return ["it is gone"] if backups(file.parent) else []  # else killed before it was made
        with _opened(file) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
            found += [f"foreign key of {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
            if not found[1:] and not connection.execute("SELECT name FROM sqlite_master").fetchone():
                return []  # killed before it was made: no library yet
            number = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            if number is None or not str(number[0]).isdecimal():
                found.append("its schema has no number")
            return [line for line in found if line != "ok"]
    except (sqlite3.Error, OSError, ValueError) as error:
        return [str(error)]


def mend_catalogue(library: Path) -> str | None:
    """Under the writer's lock: make the file whole again. Says what was done; None when there is no backup to go to."""
    file = library / CATALOGUE
    return _index_again(file) or _schema_again(file) or _from_backup(library, file)


def _index_again(file: Path) -> str | None:
    faults = catalogue_faults(file)
    if not faults or not all(any(kind in fault for kind in _OF_AN_INDEX) for fault in faults):
        return None
    try:
        with _opened(file) as connection:
            connection.execute("REINDEX")
    except sqlite3.Error:  # two rows that a unique index must keep apart
        return None
    return None if catalogue_faults(file) else "its indexes were made again from its tables"


def _schema_again(file: Path) -> str | None:
    """Tables of today with a number that is none: the tables tell which it is."""
    if catalogue_faults(file) != ["its schema has no number"]:
        return None
    from vsearch.library.catalogue import Base

    with _opened(file) as connection:
        for table in Base.metadata.tables.values():
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
            if columns != {column.name for column in table.columns}:
                return None
        connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('schema', ?)", (str(latest_schema()),)
        )
    return None if catalogue_faults(file) else "the number of its schema was written again"


def _from_backup(library: Path, file: Path) -> str | None:
    """Killed at any point there is a catalogue in place: the damaged one, or the backup's copy."""
    backup = next((each for each in backups(library) if not catalogue_faults(each)), None)
    if backup is None:
        return None
    with new_file(library) as (copy, temporary), backup.open("rb") as source:
        while block := source.read(1 << 20):
            copy.write(block)
    with disk_errors(library):
        aside = _aside(library, file)
        # A log that belongs to the damaged file must be gone before another lies in its place: SQLite would replay it.
        for end in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(file.with_name(file.name + end), aside.with_name(aside.name + end))
        sync_folder(library)
        if file.is_dir():
            os.replace(file, aside)
        elif file.exists() and not aside.exists():
            try:
                os.link(file, aside)
            except OSError:  # this disk knows no links
                shutil.copyfile(file, aside)
    put_in_place(temporary, file)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.stat().st_mtime))
    kept = f", the damaged one is {aside.name}" if aside.exists() else ""
    return f"restored from the backup of {when}{kept}; run `vsearch index`"


def _aside(library: Path, file: Path) -> Path:
    """Where a damaged catalogue is kept: a name of its own, or the one that a repair killed in between gave it."""
    kept = (
        path for path in library.glob("catalogue.damaged-*.sqlite") if file.exists() and path.samefile(file)
    )
    when = time.strftime("%Y%m%d-%H%M%S")
    return next(kept, library / f"catalogue.damaged-{when}-{secrets.token_hex(2)}.sqlite")


def spec_in(backup: Path, identity: str) -> dict[str, Any] | None:
    """An encoder's description in a backup."""
    try:
        with _opened(backup) as connection:
            row = connection.execute("SELECT spec FROM encoders WHERE identity = ?", (identity,)).fetchone()
        spec = json.loads(row[0]) if row else None
    except (sqlite3.Error, ValueError, TypeError):
        return None
    return spec if isinstance(spec, dict) else None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Never creates it. Autocommit."""
    if writable(file):
        where = f"file:{quote(os.fsencode(file))}?mode=rw"
        connection = sqlite3.connect(where, uri=True, timeout=30, isolation_level=None)
    else:
        connection = connect_read_only(file)
    try:
        yield connection
    finally:
        connection.close()
