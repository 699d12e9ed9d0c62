"""Leaving out pictures that nobody asks for and that no picture somebody asks for is decoded from.

Two kinds. B-pictures of H.264 that are no reference (ITU-T H.264, 7.4.1: nal_ref_idc 0), about every second picture
of usual files. And whatever comes between the last picture asked for and one with which decoding begins anew: up to
half of all pictures where those are a second apart, as cameras and streams have them. Container and packet tell when a
picture is shown and what it is; all that is decoded comes out as it would have otherwise.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import Buffer

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


def keyframes(
    packets: Iterable[Packet[Any]],
    stream: VideoStream,
    every_s: float,
    zero_s: float,
    seek: Callable[[int], None] | None,
) -> Iterator[tuple[VideoFrame, float]]:
    """(picture, seconds from `zero_s`) of the first keyframe after every `every_s` seconds, the one at 0 not among
    them. What cannot be decoded is left out.

    `seek`: reach each by the container's index, without reading what lies between; `packets` then go on at or before
    the time stamp asked for.
    """
    last_s = 0.0
    while True:
        target_s = last_s + every_s
        if seek:
            seek(int((target_s + zero_s) / stream.time_base))  # type: ignore[operator]
        reading = iter(packets)
        packet = next(reading, None)
        if packet is not None and seek and _time_s(packet, zero_s, target_s) < last_s:
            seek = None  # the index is of no use: read on from here
        packet = _next_keyframe(chain([packet] if packet else [], reading), target_s, zero_s, last_s)
        if packet is None:
            return
        time_s = _time_s(packet, zero_s, last_s)
        frame = _decoded(stream, packet)
        last_s = time_s
        if frame is not None:
            yield frame, time_s


def _next_keyframe(
    packets: Iterator[Packet[Any]], target_s: float, zero_s: float, last_s: float
) -> Packet[Any] | None:
    for packet in packets:
        if packet.is_keyframe and packet.size and _time_s(packet, zero_s, last_s) >= target_s:
            return packet
    return None


def _time_s(packet: Packet[Any], zero_s: float, unknown_s: float) -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or not packet.time_base:
        return unknown_s
    return float(stamp * packet.time_base) - zero_s


def _decoded(stream: VideoStream, packet: Packet[Any]) -> VideoFrame | None:
    """One picture by itself: the decoder forgets what was before, and need not wait for what comes."""
    import av

    codec = stream.codec_context
    codec.flush_buffers()
    try:
        frames = [*codec.decode(packet), *codec.decode(None)]
    except (av.FFmpegError, EOFError):
        return None
    return frames[0] if frames else None


class Units(NamedTuple):
    """`pictures_only`: nothing but pictures and what is of no consequence. `anew`: decoding can begin here, and nothing
    that comes later needs what was before. `no_reference`: no other picture is decoded from these."""

    pictures_only: bool
    anew: bool
    no_reference: bool


Reader = Callable[[memoryview], Units]

_UNKNOWN = Units(False, False, False)
_SLICES = range(1, 6)  # kinds of units of H.264 that hold parts of a picture
_IDR = 5
_HARMLESS = (6, 9, 12)  # supplemental information, delimiters, filler
_VOP, _GROUP_OF_VOPS = b"\x00\x00\x01\xb6", b"\x00\x00\x01\xb3"


def reader(codec: Any) -> Reader | None:
    """Of a codec context's packets: H.264 with length-prefixed units (avcC, ISO 14496-15, 5.3.3), VP8, VP9 and the
    Simple Profile of MPEG-4 part 2, which has no B-pictures."""
    extra = codec.extradata
    if codec.name == "h264" and extra and len(extra) >= 7 and extra[0] == 1:
        return partial(_h264, (extra[4] & 3) + 1)
    if codec.name == "mpeg4":
        return _mpeg4 if codec.profile == "Simple Profile" and not codec.has_b_frames else None
    return {"vp8": _vp8, "vp9": _vp9}.get(codec.name)


def _h264(length_bytes: int, data: memoryview) -> Units:
    """ITU-T H.264, 7.3.1 and table 7-1. Nothing after an IDR picture refers to what was before it."""
    at = 0
    slices = idr = references = 0
    while at + length_bytes < len(data):
        length = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        kind = data[at] & 31
        if kind in _SLICES:
            slices += 1
            idr += kind == _IDR
            references += data[at] >> 5 & 3 > 0
        elif kind not in _HARMLESS:
            return Units(False, idr > 0, False)
        at += length
    if not slices or at != len(data):
        return _UNKNOWN
    return Units(True, idr > 0, references == 0)


def _mpeg4(data: memoryview) -> Units:
    """ISO 14496-2, 6.2.5: vop_coding_type 0 is an intra picture."""
    head = bytes(data[:64])
    at = head.find(_VOP)
    if at < 0 or at + 4 >= len(head):
        return _UNKNOWN
    return Units(at == 0 or head.startswith(_GROUP_OF_VOPS), not head[at + 4] >> 6, False)


def _vp8(data: memoryview) -> Units:
    """RFC 6386, 9.1."""
    return Units(True, not data[0] & 1, False) if len(data) > 3 else _UNKNOWN


def _vp9(data: memoryview) -> Units:
    """VP9 bitstream specification, 6.2: marker 2, profile below 3, no repeated picture, frame type 0."""
    if not data or data[0] >> 6 != 2 or data[0] & 0x30 == 0x30:
        return _UNKNOWN
    return Units(True, not data[0] & 0x0C, False)


def is_header(codec: str, data: Buffer) -> bool:
    """Whether a packet of Ogg is a header: in mid-stream, of the next part of a chained file (Theora specification, 6.1;
    VP8 in Ogg)."""
    head = bytes(memoryview(data)[:5])
    return head == b"OVP80" if codec == "vp8" else codec == "theora" and head >= b"\x80"


def is_b_picture(codec: str, data: bytes) -> bool:
    """Whether a packet of H.264 in a byte stream (ITU-T H.264, 7.3.3 and table 7-6) or of MPEG-4 part 2 (ISO 14496-2,
    6.2.5) begins with a B-picture. False for all others."""
    if codec == "mpeg4":
        at = data.find(_VOP)
        return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == 2
    at = data.find(b"\x00\x00\x01") if codec == "h264" else -1
    while 0 <= at < len(data) - 8:
        if data[at + 3] & 31 in _SLICES:
            bits = int.from_bytes(data[at + 4 : at + 12].ljust(8, b"\x00"), "big")
            _, used = _golomb(bits, 64)
            kind, _ = _golomb(bits, 64 - used)
            return kind % 5 == 1
        at = data.find(b"\x00\x00\x01", at + 3)
    return False


_ROW = re.compile(rb"\x00\x00\x01([\x01-\xaf])", re.DOTALL)
_MOST_ROWS_HEIGHT = 2800  # higher pictures number their rows in another way
_EXTENSION = b"\0\0\1\xb5"


def is_whole_picture(data: bytes, height: int) -> bool:
    """Whether a packet of MPEG-2 has slices for every row of blocks of its picture, or of both its fields (ISO
    13818-2, 6.1.2 and 6.3.10)."""
    at = data.find(b"\0\0\1\0")
    if height > _MOST_ROWS_HEIGHT or at < 0:
        return True
    extension = data.find(_EXTENSION, at)
    while extension >= 0 and data[extension + 4 : extension + 5] > b"" and data[extension + 4] >> 4 != 8:
        extension = data.find(_EXTENSION, extension + 4)
    is_frame = extension < 0 or len(data) < extension + 7 or data[extension + 6] & 3 == 3
    least = (height + 15) // 16 if is_frame else (height + 31) // 32
    found = {match[1] for match in _ROW.finditer(data, at)}
    return len(found) >= least


def _golomb(bits: int, left: int) -> tuple[int, int]:
    """(value, bits used) of the unsigned Exp-Golomb code at the top of the lowest `left` bits (ITU-T H.264, 9.1)."""
    bits &= (1 << left) - 1
    zeros = left - bits.bit_length()
    length = 2 * zeros + 1
    return (bits >> max(0, left - length)) - 1, length


_AHEAD = 24  # packets; the picture shown next is among them, as at most 16 are held back (H.264, A.3.1)
_MOST_HELD, _MOST_HELD_BYTES = 256, 32_000_000
_MARGIN_S = 0.002  # for times that are mended afterwards


def thinning(stream: VideoStream, fps: float) -> Thinning | None:
    """For a stream whose packets can be read (`units`)."""
    read = reader(stream.codec_context)
    if read is None or not stream.time_base:
        return None
    step = math.ceil(float(stream.average_rate or 30) / fps)  # packets to the next picture asked for
    return Thinning(float(stream.time_base), fps, read, min(_MOST_HELD, step))


class _Judged(NamedTuple):
    packet: Packet[Any]
    asked_for: bool
    units: Units


class Thinning:
    """Which packets are needed, for samples at `fps` a second. `hold`: packets that may wait to be judged together."""

    def __init__(self, time_base_s: float, fps: float, read: Reader, hold: int) -> None:
        self._time_base_s = time_base_s
        self._fps = fps
        self._read = read
        self._hold = hold
        self._wanted: Callable[[], float] | None = None
        self._zero_s = 0.0
        self._to_anew = False  # whether all is left out up to where decoding begins anew

    def begin(self, wanted: Callable[[], float], zero_s: float) -> None:
        """From now on leave out. `wanted` gives a sampling time in seconds from `zero_s`; all others are whole
        steps away."""
        self._wanted, self._zero_s = wanted, zero_s

    def needed(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Packets in order without those to leave out. A fault in reading is raised after what was read before it."""
        faults: list[Exception] = []
        held: deque[_Judged] = deque()
        held_bytes = 0
        self._to_anew = False
        for judged in self._judged(_until_fault(packets, faults)):
            held.append(judged)
            held_bytes += judged.packet.size
            while held and (self._wanted is None or len(held) > self._hold or held_bytes > _MOST_HELD_BYTES):
                first = held.popleft()
                held_bytes -= first.packet.size
                if self._is_needed(first, held):
                    yield first.packet
        while held:
            first = held.popleft()
            if self._is_needed(first, held):
                yield first.packet
        if faults:
            raise faults[0]

    def _judged(self, packets: Iterator[Packet[Any]]) -> Iterator[_Judged]:
        queue: deque[Packet[Any]] = deque()
        stamps: list[int] = []  # of packets around the one in hand, sorted
        for packet in packets:
            queue.append(packet)
            if packet.pts is not None:
                insort(stamps, packet.pts)
            if len(queue) > _AHEAD:
                yield self._judge(queue.popleft(), stamps)
            if len(stamps) > 4 * _AHEAD:
                del stamps[:_AHEAD]
        for packet in queue:
            yield self._judge(packet, stamps)

    def _judge(self, packet: Packet[Any], stamps: list[int]) -> _Judged:
        return _Judged(packet, self._asked_for(packet, stamps), self._read(memoryview(packet)))

    def _asked_for(self, packet: Packet[Any], stamps: list[int]) -> bool:
        """Whether a sampling time may fall into the picture's time. The last picture tells how far the video goes."""
        if self._wanted is None or packet.pts is None:
            return True
        after = bisect_right(stamps, packet.pts)
        if after == len(stamps):
            return True
        origin_s = self._zero_s + self._wanted()
        begin = (packet.pts * self._time_base_s - _MARGIN_S - origin_s) * self._fps
        end = (stamps[after] * self._time_base_s + _MARGIN_S - origin_s) * self._fps
        return math.ceil(begin) <= math.floor(end)

    def _is_needed(self, judged: _Judged, behind: deque[_Judged]) -> bool:
        _, asked_for, units = judged
        if units.anew:
            self._to_anew = False
        if self._to_anew or asked_for:
            return not self._to_anew
        self._to_anew = units.pictures_only and _nothing_up_to_anew(behind)
        return not (self._to_anew or units.no_reference)


def _nothing_up_to_anew(judged: Iterable[_Judged]) -> bool:
    """Whether decoding begins anew before anything that is asked for, or that is more than pictures."""
    for _, asked_for, units in judged:
        if units.anew or asked_for or not units.pictures_only:
            return units.anew
    return False


def _until_fault(packets: Iterator[Packet[Any]], faults: list[Exception]) -> Iterator[Packet[Any]]:
    try:
        yield from packets
    except Exception as error:
        faults.append(error)
