"""SQLite's complaints as sentences."""

from __future__ import annotations

from pathlib import Path

from vsearch.errors import LibraryError
from vsearch.library.disk import disk_full


def complaint(said: str, where: Path) -> LibraryError | None:
    """What a database's error means for a user; None for a programming error."""
    reason = said.lower()
    if "disk is full" in reason:
        return disk_full(where)
    if "disk i/o error" in reason:
        return LibraryError(
            f"The disk of {where} is full or failing ({reason}): free some space or check it, "
            "and run the command again; the library is as it was before."
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
    if "malformed" in reason or "not a database" in reason:
        return LibraryError(
            f"The catalogue in {where} is damaged ({reason}): restore the folder from a backup, "
            "or delete it and run `vsearch index` again."
        )
    return None
