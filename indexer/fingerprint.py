"""A video's identity: a hash of its content, so that a move or a rename costs nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
FULL_BYTES = 256 * MIB  # up to here every byte counts
SAMPLES = 256  # above: this many blocks of 1 MiB


class Content(NamedTuple):
    """A file's fingerprint, and its size in bytes and time when it had that."""

    fingerprint: str
    size: int
    mtime_ns: int


class FileChanged(Exception):
    """A file is not what it was, or where it was, any more. The message is a sentence's beginning."""


class Watched:
    """A file from now on: whatever was read of it since belongs to one fingerprint, or to none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._look()

    def content(self, known: Content | None = None) -> Content:
        """Its content then and now; `known` spares reading it where its size and time are those.

        Raises FileChanged, OSError.
        """
        if self._before is None:
            raise FileChanged("it disappeared")
        size, mtime_ns = self._before.st_size, self._before.st_mtime_ns
        if known is None or known[1:] != (size, mtime_ns):
            try:
                known = Content(fingerprint(self._path), size, mtime_ns)
            except FileNotFoundError:
                raise FileChanged("it disappeared") from None
        after = self._look()
        if after is None:
            raise FileChanged("it disappeared")
        if _stamp(after) != _stamp(self._before):
            raise FileChanged("it changed")
        return known

    def _look(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except FileNotFoundError:
            return None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes with a file's content, also where somebody sets its time back."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def fingerprint(path: Path) -> str:
    """BLAKE2b-160 in hex of the file's size and content. Raises OSError.

    Up to 256 MiB the whole content is hashed. Above, 256 blocks of 1 MiB are: the first, the last, and evenly
    spaced ones between, so a 50 GB film costs no more than a short one. Two large files of equal size that
    differ only between the blocks count as one: re-encoding or editing a video changes far more than that.
    """
    digest = hashlib.blake2b(digest_size=20)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(f"{size}:".encode())
        if size <= FULL_BYTES:
            while block := file.read(MIB):
                digest.update(block)
        else:
            for index in range(SAMPLES):
                file.seek((size - MIB) * index // (SAMPLES - 1))
                digest.update(_read_fully(file.fileno(), MIB))
    return digest.hexdigest()


def _read_fully(descriptor: int, count: int) -> bytes:
    blocks = []
    while count and (block := os.read(descriptor, count)):
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)
