"""Whether the bytes from one packet of a file to another are what its container is made of, without a gap: a picture that
is held for long and one that is lost look the same otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vsearch.indexer.decode_parts import Part
from vsearch.indexer.sniff import ASF, ASF_PROPERTIES, FLV, MPEG, MPEGTS, OGG, read_head

_MOST_BYTES = 64_000_000
_OGG_HEADER = 27
_PACK, _END = 0xBA, 0xB9


def is_unbroken(path: Path, part: Part, container: str, since: int, until: int) -> bool:
    """`since`, `until`: where packets begin in a part of the file. True where nothing can be told. Raises OSError."""
    check = _CHECKS.get(container)
    if (check is None and container != ASF) or not 0 <= since < until <= since + _MOST_BYTES:
        return True
    with open(path, "rb") as file:
        file.seek(part.start + since)
        data = file.read(until - since + _OGG_HEADER)
    if container == ASF:
        return _asf_packets(data, until - since, _asf_packet_bytes(read_head(path, part.start)))
    return check is None or check(data, until - since)


def _transport_packets(data: bytes, length: int) -> bool:
    """Of 188 bytes, in some files of 192."""
    return any(not data[:length:size].strip(b"\x47") for size in (188, 192))


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
            at += 14 + (data[at + 13] & 7) if data[at + 4] >> 6 == 1 else 12
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
    return length % size == 0 and all(data.startswith(data[:3], at) for at in range(0, length, size))


_CHECKS: dict[str, Callable[[bytes, int], bool]] = {
    FLV: _flv_tags, MPEG: _program_packets, MPEGTS: _transport_packets, OGG: _ogg_pages,
}  # fmt: skip
