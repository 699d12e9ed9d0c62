"""The catalogue: tables, connection, units of work. It is the truth; everything else can be rebuilt from it
and the frame files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    CursorResult,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

from vsearch.library.catalogue.connection import BUSY_TIMEOUT_MS, Ask, complaint
from vsearch.library.files import disk_errors, mode_like
from vsearch.library.place import network_filesystem
from vsearch.library.read_only import connect_read_only, writable

_log = logging.getLogger(__name__)

RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER PRIMARY KEY


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, bytes: LargeBinary}  # noqa: RUF012


class MetaRow(Base):
    """`schema`: number of the last migration; `live_generation`: id of the generation that answers."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class RootRow(Base):
    """A registered folder. `path` is relative to the library's folder where both can move together."""

    __tablename__ = "roots"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    path: Mapped[bytes] = mapped_column(unique=True)
    relative: Mapped[bool]


class VideoRow(Base):
    """One row a path; `rel_path` is the file name's own bytes, below the root."""

    __tablename__ = "videos"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    root_id: Mapped[int] = mapped_column(ForeignKey("roots.id"))
    rel_path: Mapped[bytes]
    size: Mapped[int]
    mtime_ns: Mapped[int]
    fingerprint: Mapped[str | None] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str | None]
    container: Mapped[str | None]
    codec: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    rotation: Mapped[int | None]
    duration_ms: Mapped[int | None]
    avg_fps: Mapped[float | None]
    covered_ms: Mapped[int]
    added_at: Mapped[int]
    attempts: Mapped[int]
    start_ms: Mapped[int | None]


class FrameSetRow(Base):
    """The stored frames of one content by one backbone at one rate. The newest of a backbone counts."""

    __tablename__ = "frame_sets"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(index=True)
    backbone: Mapped[str]
    fps: Mapped[float]
    file: Mapped[str] = mapped_column(index=True)
    count: Mapped[int]
    dim: Mapped[int]
    bytes: Mapped[int]


class EncoderRow(Base):
    __tablename__ = "encoders"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    identity: Mapped[str] = mapped_column(unique=True)
    backbone: Mapped[str]
    head: Mapped[str]
    spec: Mapped[str]


class MomentRow(Base):
    __tablename__ = "moments"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    frame_set_id: Mapped[int] = mapped_column(ForeignKey("frame_sets.id", ondelete="CASCADE"), index=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id", ondelete="CASCADE"), index=True)
    start_ms: Mapped[int]
    end_ms: Mapped[int]
    first_frame: Mapped[int]
    last_frame: Mapped[int]


class GenerationRow(Base):
    """`sha256` of the whole file, `sample` of some blocks of it, `id_check` of its ids (see index.py).

    `base`: JSON of records.IndexBase, where the library is large."""

    __tablename__ = "generations"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"))
    file: Mapped[str] = mapped_column(unique=True)
    count: Mapped[int]
    dim: Mapped[int]
    sha256: Mapped[str]
    sample: Mapped[str]
    bytes: Mapped[int]
    id_check: Mapped[str]
    created_at: Mapped[int]
    base: Mapped[str | None]


class TextVectorRow(Base):
    """Query vectors, packed as sentences.py says, so that a repeated query loads no model."""

    __tablename__ = "text_vectors"
    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id", ondelete="CASCADE"))
    text: Mapped[str]
    vector: Mapped[bytes]


class GarbageRow(Base):
    """Files (names below the library) that no row needs since a committed change; the next writer deletes
    them. A query that began before may still read them until then."""

    __tablename__ = "garbage"
    file: Mapped[str] = mapped_column(primary_key=True)


def _unique(table: str, *columns: str) -> None:
    from sqlalchemy import Index

    rows = Base.metadata.tables[table]
    Index(f"uq_{table}", *(rows.c[name] for name in columns), unique=True)


_unique("videos", "root_id", "rel_path")
_unique("frame_sets", "fingerprint", "backbone", "fps")
_unique("text_vectors", "encoder_id", "text")
for _table in ("videos", "moments", "frame_sets", "generations", "text_vectors"):
    Base.metadata.tables[_table].dialect_options["sqlite"]["autoincrement"] = True  # ids are never reused


class Catalogue:
    """The open catalogue. `read` and `write` are units of work; errors come out as LibraryError."""

    def __init__(self, engine: Engine, where: Path) -> None:
        self.engine = engine
        self._where = where
        self.changed = False  # by a unit of work other than a note

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view."""
        with database_errors(self._where), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self, patience_ms: int = BUSY_TIMEOUT_MS, *, note: bool = False) -> Iterator[Session]:
        """All or nothing: committed, and on the disk, when the block is left, rolled back on any error. Waits
        `patience_ms` for another process that is writing. A `note` may be lost in a power cut."""
        writer = self.engine.execution_options(
            vsearch_immediate=True, vsearch_patience_ms=patience_ms, vsearch_note=note
        )
        with (
            database_errors(self._where),
            Session(writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            before = self._changes(session)
            yield session
            session.flush()
            self.changed |= not note and self._changes(session) != before

    def _changes(self, session: Session) -> int:
        if self.engine.dialect.name != "sqlite":
            return 0
        return int(session.execute(text("SELECT total_changes()")).scalar_one())

    def close(self) -> None:
        self.engine.dispose()


def connect_sqlite(file: Path) -> Engine:
    """SQLite set for one writer and many readers; the file is created, private, when it is not there.

    A commit is on the disk when it returns (synchronous=FULL): files that it gives up may be deleted then. Notes
    alone are not waited for; a power cut can cost them (sqlite.org/pragma.html#pragma_synchronous).
    """
    if not writable(file):
        engine = create_engine("sqlite://", creator=lambda: connect_read_only(file), poolclass=QueuePool)
        event.listen(engine, "begin", _begin_reading)
        return engine
    with disk_errors(file):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, mode_like(file.parent) & 0o666))
    kind = network_filesystem(file)
    if kind is not None:
        _log.warning("The library %s is on a network disk (%s): slower, one writer.", file.parent, kind)
    journal = "WAL" if kind is None else "DELETE"
    where = URL.create("sqlite", database=str(file))
    engine = create_engine(where, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, so that DDL is inside them too
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA journal_mode = {journal}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A writer takes the write lock at once: upgrading a read lock later can fail with no wait.
        options = connection.get_execution_options()
        patience_ms = int(options.get("vsearch_patience_ms", BUSY_TIMEOUT_MS))
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience_ms}")
        level = "NORMAL" if options.get("vsearch_note") and journal == "WAL" else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("vsearch_immediate") else "BEGIN")

    return engine


def _begin_reading(connection: Any) -> None:
    immediate = connection.get_execution_options().get("vsearch_immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextlib.contextmanager
def database_errors(where: Path) -> Iterator[None]:
    """Turns SQLite's complaints into sentences; a programming error passes through."""
    try:
        yield
    except DatabaseError as error:
        found = complaint(str(error.orig), where)
        if found is not None:
            raise found from error
        raise


def asking(session: Session) -> Ask:
    """A session that can be asked in SQL; see reading.py."""

    def ask(sql: str, **values: Any) -> Sequence[Any]:
        result = session.execute(text(sql), values)
        return result.all() if isinstance(result, CursorResult) and result.returns_rows else ()

    return ask


def integrity_problems(session: Session) -> list[str]:
    """What SQLite itself finds wrong with the file; nothing on a sound catalogue or another database."""
    if session.get_bind().dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in session.execute(text("PRAGMA integrity_check(20)"))]
    found += [f"foreign key of {row[0]}" for row in session.execute(text("PRAGMA foreign_key_check"))]
    return [line for line in found if line != "ok"]
