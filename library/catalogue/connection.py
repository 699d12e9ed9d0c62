"""What every connection to a catalogue shares: how it is asked, how long it waits, and what its complaints mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vsearch.errors import LibraryError
from vsearch.library.files import disk_full

BUSY_TIMEOUT_MS = 30_000
Ask = Callable[
    ..., Sequence[Any]
]  # ask(sql, name=value, …) -> rows, each a tuple in the order of the columns


def complaint(said: str, where: Path) -> LibraryError | None:
    """What a database's error means for a user; None for a programming error."""
    reason = said.lower()
    if "disk is full" in reason:
        return disk_full(where)
    if "disk i/o error" in reason:
        return LibraryError(
            f"The disk of {where} is full or failing ({reason}): free some space or check it, "
            "and run the command again; what was finished is kept."
        )
    if "locked" in reason or "busy" in reason:
        return LibraryError(
            f"The library at {where} is busy: another program holds its catalogue; try again."
        )
    if "readonly" in reason or "unable to open" in reason:
        return LibraryError(
            f"The catalogue in {where} cannot be opened or written ({reason}): "
            "check who owns the folder and whether its disk is read-only."
        )
    if any(
        word in reason
        for word in ("malformed", "not a database", "could not decode", "no such table", "no such column")
    ):
        return LibraryError(
            f"The catalogue in {where} is damaged ({reason}): run `vsearch verify --repair`, which "
            "restores it from its backup where there is one; else delete the folder and run `vsearch index` again."
        )
    return None
