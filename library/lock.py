"""One writer at a time. The operating system drops the lock when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from vsearch.errors import LibraryError
from vsearch.library.files import disk_errors, mode_like

_log = logging.getLogger(__name__)


class WriterLock:
    """An advisory exclusive lock on `index.lock`. Not inherited by spawned workers; readers need none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self.busy = False  # at the last try another had it

    def acquire(self) -> None:
        """Raises LibraryError, naming the holder, when another process (or library object) has it."""
        with disk_errors(self._path):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, mode_like(self._path.parent) & 0o666)
        try:
            self.busy = False
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.busy = error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
            if self.busy:
                holder = _describe(handle)
                os.close(handle)
                raise LibraryError(
                    f"Another vsearch ({holder}) is indexing this library; wait or stop it."
                ) from error
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                os.close(handle)
                raise
            _log.warning(
                "The disk of %s cannot lock files: run only one indexing at a time.", self._path.parent
            )
        self._handle = handle
        word = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())})
        with contextlib.suppress(OSError):  # only a courtesy to whoever waits; a full disk must not stop us
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, word.encode())

    def release(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)  # closing unlocks
            self._handle = None


def _describe(handle: int) -> str:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        word = json.loads(os.read(handle, 4096))
        since = time.strftime("%H:%M", time.localtime(word["since"]))
        return f"pid {int(word['pid'])} on {word['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just writing its name
        return "process unknown"
