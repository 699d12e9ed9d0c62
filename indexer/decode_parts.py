"""Files of which several were joined byte for byte, each with a header of its own (`cat a.flv b.flv`).

FFmpeg's readers of these containers take what follows the first for damage or for nothing, so each is opened by itself.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vsearch.indexer.sniff import ASF, FLV, MATROSKA, MP4, container_of, read_head

_MOST = 10_000
_MOST_SCANNED = 1 << 30  # bytes, behind a header that promises more than there is
_SIGNATURES = {  # of a header: how it begins, and what else its first bytes hold
    MP4: re.compile(rb"\0\0\0[\x10-\x7f]ftyp"),
    MATROSKA: re.compile(rb"\x1a\x45\xdf\xa3(?=.{,60}(?:matroska|webm))", re.DOTALL),
    ASF: re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"),
    FLV: re.compile(rb"FLV\x01.\0\0\0\x09\0\0\0\0", re.DOTALL),
}


class Part(NamedTuple):
    """A stretch of a file, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def parts_of(path: Path, container: str) -> list[Part]:
    """The files in a file, in order; most often the one. Raises OSError."""
    size = os.stat(path).st_size
    follows = {MP4: _after_mp4, MATROSKA: _after_matroska, ASF: _after_asf, FLV: _after_flv}.get(container)
    starts = [0]
    while follows and len(starts) < _MOST and (start := follows(path, Part(starts[-1], size))) is not None:
        starts.append(start)
    return [Part(start, end) for start, end in itertools.pairwise([*starts, size])]


def segment_end(head: bytes) -> int | None:
    """Where a matroska file's segment ends; None: it does not say, as in live recordings."""
    at = head.find(b"\x18\x53\x80\x67")  # Segment; its size is a variable-length integer
    if at < 0 or len(head) < at + 12 or not head[at + 4]:
        return None
    length = 9 - head[at + 4].bit_length()
    unknown = (1 << 7 * length) - 1
    value = int.from_bytes(head[at + 4 : at + 4 + length], "big") & unknown
    return None if value == unknown else at + 4 + length + value


def atoms(path: Path, part: Part) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where it begins, where it ends) of the top-level atoms of an mp4 file; the last may go beyond its end."""
    with open(path, "rb") as file:
        position = part.start
        for _ in range(1_000_000):
            file.seek(position)
            header = file.read(16)
            if len(header) < 8 or position >= part.end:
                return
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            end = position + size if size else part.end  # 0: reaches to the end
            yield header[4:8], position, end
            if end < position + 8:
                return
            position = end


# Each tells where in the rest of a file the next header is.


def _after_mp4(path: Path, rest: Part) -> int | None:
    """Behind an index."""
    indexed = False
    for kind, start, end in atoms(path, rest):
        if kind == b"ftyp" and indexed:
            return start
        indexed = indexed or kind == b"moov"
        if end > rest.end or not kind.isalnum():
            return _scanned(path, MP4, rest.start + 8, rest.end)
    return None


def _after_matroska(path: Path, rest: Part) -> int | None:
    length = segment_end(read_head(path, rest.start))
    if length is None or rest.start + length == rest.end:
        return None
    end = rest.start + length
    head = read_head(path, end)
    if container_of(head) == MATROSKA:
        return end
    # Cut short, its promised length ends amid another; what lies behind a whole one is zeros, if anything.
    return (
        _scanned(path, MATROSKA, rest.start + 4, min(end, rest.end))
        if head.strip(b"\0") or not head
        else None
    )


def _after_asf(path: Path, rest: Part) -> int | None:
    """Objects at the top level: 16 bytes that name each, 8 of its size (ASF specification, 2.1)."""
    position = rest.start
    with open(path, "rb") as file:
        while position < rest.end:
            file.seek(position)
            header = file.read(24)
            if position > rest.start and _SIGNATURES[ASF].match(header):
                return position
            length = int.from_bytes(header[16:24], "little")
            if length < 24 or position + length > rest.end:
                return _scanned(path, ASF, rest.start + 16, rest.end)
            position += length
    return None


def _after_flv(path: Path, rest: Part) -> int | None:
    """Tags say nothing of the file's size, so all of it is looked through: it is read to be sought in anyway."""
    return _scanned(path, FLV, rest.start + 1, rest.end, rest.size)


def _scanned(path: Path, container: str, start: int, end: int, most: int = _MOST_SCANNED) -> int | None:
    if start >= end:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _SIGNATURES[container].search(data, start, min(end, start + most))
        return found.start() if found else None
