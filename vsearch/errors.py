"""The one family of errors that reaches a user.

Every message is a sentence that says what happened, why, and what to do. The command line prints
it in one line and leaves with `exit_code`; the search page shows it; nothing else is caught there.
"""

from __future__ import annotations

from collections.abc import Collection


class VsearchError(Exception):
    """Something the user can understand and mend. The message is shown as it is."""

    exit_code = 2


class LibraryError(VsearchError):
    """The library is missing, locked, damaged or of a newer version."""


class DamagedFramesError(LibraryError):
    """The stored frames of one video are missing or damaged: other videos can do without it."""


class ModelError(VsearchError):
    """A backbone or head cannot be found, loaded or used with this library."""


class MediaError(VsearchError):
    """A file cannot be read as video. The message is the reason stored with the file."""


def listed(names: Collection[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
