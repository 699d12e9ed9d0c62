"""Leaving out pictures of H.264 that nobody asks for and no other picture is decoded from.

Encoders make about every second picture so: a B-picture that is no reference (ITU-T H.264, 7.4.1: nal_ref_idc 0).
Container and packet tell when a picture is shown and what it is, so those that are not shown at any sampling time
need not be decoded; all others are, and come out as they would have otherwise.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_AHEAD = 24  # packets; the picture shown next is among them, as at most 16 are held back (A.3.1)
_MARGIN_S = 0.002  # for times that are mended afterwards
_SLICES = range(1, 6)  # kinds of units that hold parts of a picture
_HARMLESS = (6, 9, 12)  # supplemental information, delimiters, filler


def thinning(stream: VideoStream, fps: float) -> Thinning | None:
    """For a stream whose packets can be read here: H.264 with length-prefixed units (avcC, ISO 14496-15, 5.3.3)."""
    extra = stream.codec_context.extradata
    if (
        stream.codec_context.name != "h264"
        or not stream.time_base
        or not extra
        or len(extra) < 7
        or extra[0] != 1
    ):
        return None
    return Thinning(float(stream.time_base), (extra[4] & 3) + 1, fps)


class Thinning:
    """Which packets are needed, for samples at `fps` a second."""

    def __init__(self, time_base_s: float, length_bytes: int, fps: float) -> None:
        self._time_base_s = time_base_s
        self._length_bytes = length_bytes
        self._fps = fps
        self._wanted: Callable[[], float] | None = None
        self._zero_s = 0.0

    def begin(self, wanted: Callable[[], float], zero_s: float) -> None:
        """From now on leave out. `wanted` gives a sampling time in seconds from `zero_s`; all others are whole
        steps away."""
        self._wanted, self._zero_s = wanted, zero_s

    def needed(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Packets in order without those to leave out. A fault in reading is raised after what was read before it."""
        queue: deque[Packet[Any]] = deque()
        stamps: list[int] = []  # of packets around the one in hand, sorted
        fault: Exception | None = None
        while True:
            try:
                packet = next(packets, None)
            except Exception as error:
                fault = error
                break
            if packet is None:
                break
            queue.append(packet)
            if packet.pts is not None:
                insort(stamps, packet.pts)
            if len(queue) > _AHEAD:
                first = queue.popleft()
                if not self._superfluous(first, stamps):
                    yield first
            if len(stamps) > 4 * _AHEAD:
                del stamps[:_AHEAD]
        yield from queue  # the last picture tells how far the video goes
        if fault:
            raise fault

    def _superfluous(self, packet: Packet[Any], stamps: list[int]) -> bool:
        if self._wanted is None or packet.pts is None:
            return False
        after = bisect_right(stamps, packet.pts)
        if after == len(stamps):
            return False
        origin_s = self._zero_s + self._wanted()
        begin = (packet.pts * self._time_base_s - _MARGIN_S - origin_s) * self._fps
        end = (stamps[after] * self._time_base_s + _MARGIN_S - origin_s) * self._fps
        return math.ceil(begin) > math.floor(end) and self._no_reference(memoryview(packet))

    def _no_reference(self, data: memoryview) -> bool:
        """Whether all its units are parts of a picture that is no reference, or of no consequence."""
        at = 0
        slices = 0
        while at + self._length_bytes < len(data):
            length = int.from_bytes(data[at : at + self._length_bytes], "big")
            at += self._length_bytes
            kind, reference = data[at] & 31, data[at] >> 5 & 3
            if kind in _SLICES and not reference:
                slices += 1
            elif kind not in _HARMLESS:
                return False
            at += length
        return slices > 0 and at == len(data)
