"""Leaving out pictures that nobody asks for and that no picture somebody asks for is decoded from.

Two kinds. B-pictures of H.264 that are no reference (ITU-T H.264, 7.4.1: nal_ref_idc 0), about every second picture
of usual files. And whatever comes between the last picture asked for and one with which decoding begins anew: up to
half of all pictures where those are a second apart, as cameras and streams have them. Container and packet tell when a
picture is shown and what it is; all that is decoded comes out as it would have otherwise.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vsearch.indexer.decode_units import Reader, Units, reader

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_AHEAD = 24  # packets; the picture shown next is among them, as at most 16 are held back (H.264, A.3.1)
_MOST_HELD, _MOST_HELD_BYTES = 256, 32_000_000
_MARGIN_S = 0.002  # for times that are mended afterwards


def thinning(stream: VideoStream, fps: float) -> Thinning | None:
    """For a stream whose packets can be read (`decode_units`)."""
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
