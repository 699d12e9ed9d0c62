"""The catalogue's schema as a numbered list of steps.

A new catalogue is created whole from the tables in catalogue.py. An older one runs the steps it lacks, in one
transaction, after a backup beside it. To change the schema: change the tables, and append a step here that
brings an existing catalogue to the same shape (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import LibraryError

if TYPE_CHECKING:  # the number of the schema alone must cost nothing: every query asks for it
    from sqlalchemy import Connection, Engine

Step = Callable[[Any], None]  # of a Connection

FIRST_SCHEMA = 1


def _generations_may_have_a_base(connection: Connection) -> None:
    from sqlalchemy import text

    connection.execute(text("ALTER TABLE generations ADD COLUMN base VARCHAR"))


def _videos_say_where_their_clock_starts(connection: Connection) -> None:
    from sqlalchemy import text

    connection.execute(text("ALTER TABLE videos ADD COLUMN start_ms BIGINT"))


def _query_vectors_have_digests(connection: Connection) -> None:
    from sqlalchemy import text

    connection.execute(text("DELETE FROM text_vectors"))  # they are made again when asked for


STEPS: tuple[Step, ...] = (
    _generations_may_have_a_base,
    _videos_say_where_their_clock_starts,
    _query_vectors_have_digests,
)  # STEPS[i] brings schema i + 1 to i + 2


def latest_schema() -> int:
    return FIRST_SCHEMA + len(STEPS)


def schema_of(engine: Engine) -> int | None:
    """The schema number of a catalogue; None when it is still empty. Raises LibraryError for other files."""
    from sqlalchemy import inspect, text

    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        if not tables:
            return None
        if "meta" in tables:
            found = connection.execute(text("SELECT value FROM meta WHERE key = 'schema'")).scalar()
            if found is not None:
                try:
                    return int(found)
                except ValueError:
                    raise LibraryError(
                        f"The catalogue is damaged (its schema is {found!r}): run `vsearch verify --repair`."
                    ) from None
    raise LibraryError("The catalogue is not one of vsearch: choose another folder with --library.")


def create(engine: Engine) -> None:
    from sqlalchemy import text

    from vsearch.library.catalogue.schema import Base

    with engine.execution_options(vsearch_immediate=True).begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(
            text("INSERT INTO meta (key, value) VALUES ('schema', :number)"), {"number": str(latest_schema())}
        )


def check(found: int, folder: Path) -> None:
    """Raises LibraryError for a catalogue made by a newer vsearch."""
    if found > latest_schema():
        raise LibraryError(
            f"The library {folder} was made by a newer vsearch (schema {found}, this one knows "
            f"{latest_schema()}): upgrade with `pip install -U vsearch`."
        )


def migrate(engine: Engine, found: int, folder: Path) -> None:
    """Bring an older catalogue up to date, under the writer's lock."""
    if found == latest_schema():
        return
    from sqlalchemy import text

    from vsearch.library.checks import copy_catalogue

    if engine.dialect.name == "sqlite":
        copy_catalogue(folder, f"catalogue.schema{found}.sqlite")
    with engine.execution_options(vsearch_immediate=True).begin() as connection:
        for step in STEPS[found - FIRST_SCHEMA :]:
            step(connection)
        connection.execute(
            text("UPDATE meta SET value = :number WHERE key = 'schema'"), {"number": str(latest_schema())}
        )
