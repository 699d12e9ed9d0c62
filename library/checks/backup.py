"""Copies of the catalogue in the library's folder: the truth on a disk that may lose a part of it.

`catalogue.backup.sqlite` is as of the last run that changed something, `catalogue.backup-2.sqlite` as of the one before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from vsearch.errors import LibraryError
from vsearch.library.files import disk_errors, new_file, put_in_place, sync_file
from vsearch.library.place import CATALOGUE

_log = logging.getLogger(__name__)
BACKUPS = "catalogue.backup*.sqlite"
NEWEST, FORMER = "catalogue.backup.sqlite", "catalogue.backup-2.sqlite"


def back_up(library: Path) -> None:
    """Copy the catalogue and keep the copy before. Under the writer's lock. Where that fails, a warning is all."""
    try:
        copy_catalogue(library, NEWEST, former=FORMER)
    except (LibraryError, sqlite3.Error) as error:
        _log.warning("The catalogue of %s could not be backed up (%s).", library, error)


def copy_catalogue(library: Path, name: str, *, former: str | None = None) -> None:
    """Write a copy of the catalogue beside it, wholly or not at all; one of that name becomes `former`.

    Row by row, so damage is not copied but found. Raises LibraryError or sqlite3.Error; the copies are then as before.
    """
    with new_file(library, sync=False) as (_, temporary):
        pass
    try:
        with contextlib.closing(sqlite3.connect(library / CATALOGUE)) as catalogue:
            catalogue.execute("VACUUM INTO CAST(? AS TEXT)", (os.fsencode(temporary),))  # any bytes
        with disk_errors(library):
            sync_file(temporary)
            if former is not None and (library / name).is_file():
                os.replace(library / name, library / former)
        put_in_place(temporary, library / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
