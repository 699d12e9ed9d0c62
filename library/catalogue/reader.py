"""A library opened for questions alone, through SQLite's own driver: SQLAlchemy takes longer to load than a query to
answer. Whatever is out of the ordinary is left to `Library.open`, which knows what to do or to say."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vsearch.library.catalogue.connection import BUSY_TIMEOUT_MS, Ask, complaint
from vsearch.library.catalogue.migrations import latest_schema
from vsearch.library.catalogue.reading import Reading
from vsearch.library.place import CATALOGUE, network_filesystem
from vsearch.library.read_only import connect_read_only, writable


def open_reading(path: Path) -> Reading:
    """The library in the folder `path`, for questions, in a `with` block and one thread.

    Raises LibraryError as `Library.open` does.
    """
    reader = open_reader(path)
    if reader is not None:
        return reader
    from vsearch.library.library import Library

    return Library.open(path)


def open_reader(path: Path) -> Reader | None:
    """The same, where nothing is out of the ordinary."""
    path = path.expanduser().resolve()
    connection = _connected(path / CATALOGUE)
    return None if connection is None else Reader(path, connection)


class Reader(Reading):
    """A sound local catalogue of today's schema, open. For one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path)
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction_for_asking(self) -> Iterator[Ask]:
        with self._transaction("BEGIN", BUSY_TIMEOUT_MS) as ask:
            yield ask

    @contextlib.contextmanager
    def _noting(self, patience_ms: int) -> Iterator[Ask]:
        # A writer takes the write lock at once: upgrading a read lock later can fail with no wait.
        with self._transaction("BEGIN IMMEDIATE", patience_ms) as ask:
            yield ask

    @contextlib.contextmanager
    def _transaction(self, begin: str, patience_ms: int) -> Iterator[Ask]:
        def ask(sql: str, **values: Any) -> Sequence[Any]:
            return self._connection.execute(sql, values).fetchall()

        try:
            self._connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
            self._connection.execute(begin)
            try:
                yield ask
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            found = complaint(str(error), self.path)
            if found is None:
                raise
            raise found from error


def _connected(file: Path) -> sqlite3.Connection | None:
    """None unless the catalogue is there, sound at first sight, on a local disk and of today's schema."""
    if not file.is_file() or network_filesystem(file) is not None:
        return None
    here = writable(file)
    try:
        if here:
            connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        else:
            connection = connect_read_only(file)
    except (sqlite3.Error, OSError):
        return None
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        ((schema,),) = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall()
        ((journal,),) = connection.execute("PRAGMA journal_mode").fetchall()
        if int(schema) == latest_schema() and (journal == "wal" or not here):
            return connection
    except (sqlite3.Error, ValueError):  # the caller's other way says what is wrong
        pass
    connection.close()
    return None
