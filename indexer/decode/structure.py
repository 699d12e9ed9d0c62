"""Whether the bytes from one packet of a file to another are what its container is made of, without a gap: a picture that
is held for long and one that is lost look the same otherwise."""

from __future__ import annotations

import itertools
import mmap
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vsearch.indexer.sniff import (
    ASF,
    ASF_PROPERTIES,
    AVI,
    FLV,
    MATROSKA,
    MP4,
    MPEG,
    MPEGTS,
    OGG,
    container_of,
    read_head,
)

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


_MOST_BYTES = 64_000_000
_MOST_CHUNKS = (
    1 << 17
)  # bytes of an AVI file that are looked through; streams that lie apart are far from each other
_OGG_HEADER = 27
_PACK, _END, _SYSTEM = 0xBA, 0xB9, 0xBB
_PACK_START = b"\0\0\1\xba"
_MOST_BETWEEN_S = 10.0  # packs; 0.7 s by the standard
_TRANSPORT = (188, 0), (192, 4)  # (bytes of a packet, those before its sync byte)
_FILLING = 0x1FFF  # packets of nothing
_BEFORE_BYTES, _NEXT_BYTES = 1 << 19, 192  # numbers before a leap, and behind it


def is_unbroken(path: Path, part: Part, container: str, since: int, until: int) -> bool:
    """`since`, `until`: where packets begin in a part of the file. True where nothing can be told. Raises OSError."""
    check = _CHECKS.get(container)
    if (check is None and container != ASF) or not 0 <= since < until <= since + _MOST_BYTES:
        return True
    with open(path, "rb") as file:
        file.seek(part.start + since)
        data = file.read(min(until - since, _MOST_CHUNKS if container == AVI else _MOST_BYTES) + _OGG_HEADER)
    if container == ASF:
        return _asf_packets(data, until - since, _asf_packet_bytes(read_head(path, part.start)))
    return check is None or check(data, until - since)


def is_one_recording(
    path: Path, part: Part, container: str, since: int, until: int | None, *, alone: bool
) -> bool:
    """Whether a transport or program stream whose clock leaps from one packet to another goes on there, holding a
    picture; else another recording follows. `until`: None where the second begins in a packet of the container that
    began before it. `alone`: it has no sound, which would go on. Raises OSError."""
    if until is None:
        until = min(part.size, since + _BEFORE_BYTES)
    if not 0 <= since < until <= since + _MOST_BYTES:
        return False
    first = max(0, since - _BEFORE_BYTES)
    with open(path, "rb") as file:
        file.seek(part.start + first)
        data = file.read(until - first + _NEXT_BYTES)
    if container == MPEGTS:
        return _is_numbered(data, until - first)
    return _is_clocked(data, since - first, until - first, alone)


def _is_numbered(data: bytes, length: int) -> bool:
    """ISO 13818-1, 2.4.3.3 and 2.4.3.5: packets of each stream are numbered, and a new clock is announced."""
    size, sync = next(
        (each for each in _TRANSPORT if data[length + each[1] :: each[0]].startswith(b"\x47")), (0, 0)
    )
    if not size:
        return False
    numbers: dict[int, int] = {}
    for at in range((length + sync) % size, min(length + size, len(data) - 6), size):
        stream = int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF
        is_counted, number = data[at + 3] >> 4 & 1, data[at + 3] & 15
        is_new_clock = data[at + 3] & 0x20 and data[at + 4] and data[at + 5] & 0x80
        if data[at] != 0x47 or is_new_clock:
            return False
        if stream == _FILLING:
            continue
        if stream in numbers and number != (numbers[stream] + is_counted) & 15:
            return False
        numbers[stream] = number
    return True


def _is_clocked(data: bytes, since: int, until: int, alone: bool) -> bool:
    """ISO 13818-1, 2.5.3: packs tell the time. Where that leaps, too, pictures without sound may have been held; a
    recording begins with a system header."""
    at = max(0, data.rfind(_PACK_START, 0, since + 4))
    latest: float | None = None
    while at < min(until, len(data) - 18):
        if not data.startswith(b"\0\0\1", at):
            return False
        kind = data[at + 3]
        if kind == _PACK:
            at, clock_s = _pack(data, at)
            if latest is not None and not 0 <= clock_s - latest <= _MOST_BETWEEN_S:
                return alone and clock_s > latest and data[at + 3] != _SYSTEM
            latest = clock_s
        else:
            at += 4 if kind == _END else 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    return True


def _pack(data: bytes, at: int) -> tuple[int, float]:
    """(where a pack's header ends, its clock in seconds); MPEG-2 and MPEG-1."""
    bits = int.from_bytes(data[at + 4 : at + 9], "big")
    if data[at + 4] >> 6 == 1:
        ticks = (bits >> 35 & 7) << 30 | (bits >> 19 & 0x7FFF) << 15 | bits >> 3 & 0x7FFF
        return at + 14 + (data[at + 13] & 7), ticks / 90_000
    return at + 12, ((bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF) / 90_000


def _transport_packets(data: bytes, length: int) -> bool:
    return any(not data[sync:length:size].strip(b"\x47") for size, sync in _TRANSPORT)


def _flv_tags(data: bytes, length: int) -> bool:
    at = 0
    while at < length:
        size = 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        if int.from_bytes(data[at + size : at + size + 4], "big") != size:
            return False
        at += size + 4
    return at == length


def _ogg_pages(data: bytes, length: int) -> bool:
    """RFC 3533, 6: pages of each stream are numbered."""
    numbers: dict[bytes, int] = {}
    at = 0
    while at <= length and data.startswith(b"OggS", at) and len(data) >= at + _OGG_HEADER:
        stream, number = data[at + 14 : at + 18], int.from_bytes(data[at + 18 : at + 22], "little")
        if numbers.get(stream, number - 1) != number - 1:
            return False
        numbers[stream] = number
        if at == length:
            return True
        segments = data[at + 26]
        at += _OGG_HEADER + segments + sum(data[at + _OGG_HEADER : at + _OGG_HEADER + segments])
    return False


def _program_packets(data: bytes, length: int) -> bool:
    """ISO 13818-1, 2.5.3: packs, and packets with their lengths."""
    at = 0
    while at < length:
        if not data.startswith(b"\0\0\1", at) or len(data) < at + 14:
            return False
        kind = data[at + 3]
        if kind == _PACK:
            at, _ = _pack(data, at)
        else:
            at += 4 if kind == _END else 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    return at == length


def _asf_packet_bytes(head: bytes) -> int:
    """From the file properties (ASF specification, 3.2); 0: not told."""
    at = head.find(ASF_PROPERTIES)
    return int.from_bytes(head[at + 92 : at + 96], "little") if at > 0 else 0


def _asf_packets(data: bytes, length: int, size: int) -> bool:
    """All of one size, and most often they begin alike: with two zeros of error correction."""
    if not size or data[1:3] != b"\0\0":
        return True
    starts = range(0, length + 1, size)
    return length % size == 0 and all(
        data.startswith(data[:3], at) and (at == length or _asf_payloads(data[at : at + size]))
        for at in starts
    )


def _asf_payloads(packet: bytes) -> bool:
    """Whether a packet's payloads fill it (ASF specification, 5.2)."""
    at = 3

    def number(kind: int) -> int:
        nonlocal at
        size = (0, 1, 2, 4)[kind & 3]
        at += size
        return int.from_bytes(packet[at - size : at], "little")

    lengths, properties = packet[at], packet[at + 1]
    at += 2
    whole = number(lengths >> 5) or len(packet)
    number(lengths >> 1)  # of the packet in a sequence
    whole -= number(lengths >> 3)  # padding
    at += 6  # its times
    several = lengths & 1
    count, length_kind = (packet[at] & 63, packet[at] >> 6) if several else (1, 0)
    at += several
    for _ in range(count):
        at += 1  # of which stream
        for kind in (properties >> 4, properties >> 2):
            number(kind)  # which object of it, from where on
        told = number(properties)  # bytes about the object
        at += told
        length = number(length_kind) if several else whole - at
        at += length
        if at > whole:
            return False
    return at == whole


def _avi_chunks(data: bytes, length: int) -> bool:
    """RIFF: chunks with their sizes, in lists; some writers leave out the byte that makes a size even."""
    at = 0 if data[:1].isalnum() else 1
    while at < min(length, len(data) - 8):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if not kind.strip(b" ").isalnum():
            return False
        if kind in (b"LIST", b"RIFF"):
            at += 12
        else:
            at += 8 + size
            at += size & 1 and not data[at : at + 1].isalnum()
    return at == length or len(data) - 8 < at < length


def gif_is_whole(path: Path, part: Part) -> bool:
    """Whether blocks follow each other to the end (GIF89a, 17 to 27), in every picture file joined. Raises OSError."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end = part.start, part.end
        while at < end:
            kind = data[at]
            if data[at : at + 4] == b"GIF8":
                at += 13 + _colours(data[at + 10 : at + 11])
                continue
            if kind == 0x3B:
                at += 1
                if data[at : at + 4] != b"GIF8":
                    return True
                continue
            if kind == 0x21:
                at += 2
            elif kind == 0x2C:
                at += 11 + _colours(data[at + 9 : at + 10])
            else:
                return False
            while at < end and data[at]:
                at += 1 + data[at]
            at += 1
        return at == end


def _colours(flags: bytes) -> int:
    """Bytes of the table that follows."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0


_CHECKS: dict[str, Callable[[bytes, int], bool]] = {
    AVI: _avi_chunks, FLV: _flv_tags, MPEG: _program_packets, MPEGTS: _transport_packets, OGG: _ogg_pages,
}  # fmt: skip
