"""What the C library does with memory that is freed (glibc; elsewhere nothing happens here).

Large arrays are asked for with an alignment. glibc before 2.38 does not fit such a request into a hole that an equal one
has left, so the heap of a long run fills with holes that nothing uses; `give_back` returns those to the system.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES = 1 << 30


def keep_freed() -> None:
    """Keep what a batch's layers free for those of the next. glibc would give large blocks back to the system each
    time, and half of a small network's time would go into having the pages cleared again. For the whole process;
    before libraries start their threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_ARENA_MAX, 1)  # those of further threads keep no large blocks


def give_back() -> None:
    """Return all that is free now; takes some milliseconds, and what is used again has to be cleared again. For now
    and then."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
