"""Whether the bytes from one packet of a file to another are what its container is made of, without a gap: a picture that
is held for long and one that is lost look the same otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vsearch.indexer.decode_parts import Part
from vsearch.indexer.sniff import ASF, ASF_PROPERTIES, FLV, MPEG, MPEGTS, OGG, read_head

_MOST_BYTES = 64_000_000
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
        data = file.read(until - since + _OGG_HEADER)
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
    return length % size == 0 and all(data.startswith(data[:3], at) for at in range(0, length, size))


_CHECKS: dict[str, Callable[[bytes, int], bool]] = {
    FLV: _flv_tags, MPEG: _program_packets, MPEGTS: _transport_packets, OGG: _ogg_pages,
}  # fmt: skip
