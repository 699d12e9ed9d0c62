"""Standard streams that never surprise a verb: closed, full, without a reader, or of few letters."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

from vsearch.errors import VsearchError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputError(VsearchError):
    """Standard output does not take what is printed."""


class ReaderGone(VsearchError):
    """Nobody reads standard output any more (`vsearch query … | head`): a quiet end."""

    exit_code = 0


def guard() -> None:
    """Of a process's beginning: what stdout cannot take raises OutputError or ReaderGone, once; what stderr cannot take
    is lost; letters that they lack become escapes. The numbers of closed streams are taken, or the next file opened,
    the catalogue perhaps, would be one of them."""
    # Nothing can be printed into a stdout that was closed: it is open for reading.
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def _text(number: int, stream: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Guarded(number)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or os.isatty(number),
    )


class _Guarded(io.RawIOBase):
    def __init__(self, number: int) -> None:
        self._number = number
        self._lost = False

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        while not self._lost:
            try:
                return os.write(self._number, data)
            except BlockingIOError:  # a pipe that another program set so
                select.select([], [self._number], [])
            except OSError as error:
                self._lost = True  # once; what follows is dropped
                if self._number == 1:
                    raise _complaint(error) from None
        return len(data)


def _complaint(error: OSError) -> VsearchError:
    if error.errno == errno.EPIPE:
        return ReaderGone()
    if error.errno in _FULL:
        return OutputError("the output could not be written: no room is left on its disk")
    if error.errno == errno.EBADF:
        return OutputError("the output could not be written: standard output is closed")
    return OutputError("the output could not be written: the disk or terminal that it goes to fails")
