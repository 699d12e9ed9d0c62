"""Packets of a video's pictures, on one clock that never starts again, and what was lost between them.

A clock that starts again (files joined end to end, a counter that wraps) is told by a keyframe that would be shown
before something already read: in decoding order a keyframe comes after all that is shown before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.indexer.decode.structure import Part, is_one_recording, is_unbroken
from vsearch.indexer.decode.thin import is_b_picture, is_whole_picture
from vsearch.indexer.sniff import ASF, AVI, FLV, GIF, MATROSKA, MP4, MPEG, MPEGTS, OGG

if TYPE_CHECKING:
    from av.bitstream import BitStreamFilterContext
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Clocks of broadcast streams may leap; FFmpeg's tools take 10 s for that (dts_delta_threshold). Elsewhere long pauses
# are real.
_JUMP_S = {MPEGTS: 10.0, MPEG: 10.0, MP4: float("inf"), MATROSKA: float("inf")}
_OTHER_JUMP_S = 600.0
_BACK_S = 1.0  # decoding times never go back so far, but for a clock that starts again
_TRIES = 16  # after a fault that reading may get past
_BYTES_A_TRY = 1 << 15  # a transport stream's reader gives up for the moment after 64 KB without a packet
_HOLE_BYTES = 2048
_AVI_HEAD_BYTES = 8  # of a chunk
_MATROSKA_PAUSE_S = 0.7
_MOST_HELD, _MOST_HELD_BYTES = 2000, 64_000_000
_REORDER = 16  # pictures, at most (H.264, A.3.1)


class Packets:
    """Reads an opened video's packets. `mended`: whether a clock started again. `hole_s`: (from, to) of the first gap
    in which bytes lie that nothing could be made of, as time stamps; `holes`: how many there are; `pause_s`: of the
    first without pictures, whatever the reason. `lost_at_s`: where bytes are of which nobody tells how long they
    are shown, as a time stamp. `torn`: pictures without their end. `position`: where in
    the file the last packet begins. `read_fault`: the file could not be read to its
    end. `progress`: (seconds of the clock, share of the file) where it started again.
    """

    def __init__(
        self, path: Path, part: Part, container: InputContainer, stream: VideoStream, name: str, step_s: float
    ) -> None:
        self._path = path
        self._part = part
        self._name = name
        self._codec = stream.codec_context.name
        base = stream.time_base
        self._base_s = float(base) if base else 0.0
        self._ticks = 1 / self._base_s if base else 1.0
        self._step = max(1, round(step_s * self._ticks))
        self._jump = _JUMP_S.get(name, _OTHER_JUMP_S) * self._ticks
        self._other_jump = _OTHER_JUMP_S * self._ticks
        self.mended = False
        self.read_fault = False
        self.holes = 0
        self.hole_s: tuple[float, float] | None = None
        self.pause_s: tuple[float, float] | None = None
        self.lost_at_s: float | None = None
        self.torn = 0
        self.progress: tuple[float, float] | None = None
        self.end: int | None = None  # ticks: where a picture ends that is told to stay
        self.attach(container, stream)

    def attach(self, container: InputContainer, stream: VideoStream) -> None:
        """Go on with the same file, opened anew or sought in: whatever comes now."""
        self._container, self._stream = container, stream
        self._shift = 0
        self._shifts: list[tuple[int, int]] = []  # (from this time on, shift); ticks
        self._fresh: tuple[int, int] | None = (
            None  # (shift, latest time) before the last packet, where it began a clock
        )
        self._top: int | None = None  # the latest time shown
        self._top_length = self._step
        self._last_dts: int | None = None
        self.position = -1  # in the file: of the last packet of which it is known
        self._earlier = -1  # the place before that
        self._known = 0  # bytes of all packets from there on
        self._edge, self._edge_size = (
            -1,
            0,
        )  # of the last packet of any stream: where it ends, bytes (Matroska)
        self._broken = False  # what lies between the last two packets of any stream (AVI)
        self._pause: tuple[int, int] | None = None  # (from, to) without pictures, not looked at yet
        self._tear = False  # whether the last picture lacks something
        self._stumbled = 0  # packets for which bytes that are none count
        self._unpack: BitStreamFilterContext | None = None
        self._packets = self._read()

    def __iter__(self) -> Iterator[Packet[Any]]:
        return self._packets

    def shift_s(self, time_s: float) -> float:
        """What time stamps in the file take to be the clock's time around `time_s`, seconds."""
        latest = (shift for since, shift in reversed(self._shifts) if since * self._base_s <= time_s + 1e-6)
        return next(latest, 0) * self._base_s

    @property
    def end_s(self) -> float:
        """When the latest picture that was read ends."""
        return ((self._top or 0) + self._top_length) * self._base_s

    def _read(self) -> Iterator[Packet[Any]]:
        index = self._stream.index
        for packet in self._demuxed():
            self._measure(packet)
            if packet.stream_index != index:
                self._known += packet.size
                continue
            if not packet.size:  # the flush at the end, or "the same picture again" (Theora)
                self._reach(packet)
                continue
            self._look_for_tears(packet)
            for picture in self._unpacked(packet):
                self._mend(picture)
                yield picture

    def _measure(self, packet: Packet[Any]) -> None:
        """Whether the packet before it, of any stream, ends too far away."""
        if packet.pos is None or packet.pos < 0:
            return
        if self._name == AVI:
            head = packet.pos - _AVI_HEAD_BYTES
            if 0 <= self._edge < head - 1 and not is_unbroken(self._path, self._part, AVI, self._edge, head):
                self._broken = True
            self._edge = packet.pos + packet.size
        elif self._name == MATROSKA:
            distance = packet.pos - self._edge
            if self._edge >= 0 and distance > max(
                _HOLE_BYTES, self._edge_size
            ):  # not what is added to one: its alpha
                self._stumbled = 2
            self._edge, self._edge_size = packet.pos + packet.size, packet.size

    def _look_for_tears(self, packet: Packet[Any]) -> None:
        """Decoders of MPEG-2 make up what a picture lacks; so does its clock, where whole packets are lost."""
        if self._tear:  # what is cut off at the end of a recording is no damage
            self.torn += 1
            self._stumbled = 2
        self._tear = self._codec == "mpeg2video" and not is_whole_picture(bytes(packet), self._stream.height)

    def _unpacked(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """DivX and Xvid put a B-picture into the chunk of the one before it, to be shown with an empty chunk that
        follows: to each its own."""
        if self._name != AVI or self._codec != "mpeg4":
            return [packet]
        import av
        from av.bitstream import BitStreamFilterContext

        if self._unpack is None:
            self._unpack = BitStreamFilterContext("mpeg4_unpack_bframes", self._stream)
        try:
            pictures = self._unpack.filter(packet)
        except av.FFmpegError:  # not a picture of the kind
            return []
        for picture in pictures:
            picture.stream = self._stream
        return pictures

    def _demuxed(self) -> Iterator[Packet[Any]]:
        """Every packet of the file, past faults as far as reading gets on."""
        import av

        left = tries = _TRIES + self._part.size // _BYTES_A_TRY
        others = _TRIES
        while left and others:
            try:
                for packet in self._container.demux():
                    left = tries
                    yield packet
                return
            except MemoryError:
                raise
            except (
                IndexError
            ):  # a packet of a stream that shows itself only now, such as sound that begins late
                continue
            except av.BlockingIOError:
                left -= 1
                self._stumbled = 2
            except av.FFmpegError:
                others -= 1
                self._stumbled = 2
        self.read_fault = True

    def _reach(self, packet: Packet[Any]) -> None:
        if packet.pts is not None and self._top is not None:
            self.end = max(self.end or 0, packet.pts + self._shift + self._step)

    def _mend(self, packet: Packet[Any]) -> None:
        if self._name == AVI:
            packet.pts = None  # it stores times of decoding alone; others are FFmpeg's guesses
        elif self._name == GIF and packet.is_keyframe:
            packet.is_keyframe = bytes(packet).startswith(b"GIF8")  # not the last picture before a joint
        elif self._is_anothers(packet):
            packet.pts = (self._top or 0) + self._step - self._shift
        pts, dts = packet.pts, packet.dts
        stamp = pts if pts is not None else dts
        if stamp is None:
            return
        stamp += self._shift
        if self._name == AVI:
            skipped = self._skipped(packet)
            stamp += skipped
            if self._broken and not skipped and self.lost_at_s is None and self._top is not None:
                self.lost_at_s = self._top * self._base_s
            self._broken = False
        top = self._top
        if top is None:
            top = stamp
        else:
            leap = stamp - top
            if self._is_pause(leap, dts):
                self._pause = top + self._step, stamp
                if self.pause_s is None:
                    self.pause_s = (top + self._step) * self._base_s, stamp * self._base_s
            is_hole = self._look_for_hole(packet)
            if is_hole and self._fresh is not None and stamp - self._shift + self._fresh[0] >= self._fresh[1]:
                # The start was a packet broken at the edge of a hole, and what follows is of the clock before it.
                stamp -= self._shift - self._fresh[0]
                leap = stamp - top
                self._shift = self._fresh[0]
                self._shifts.pop()
            self._fresh = None
            if self._starts_again(packet, leap, self._other_jump if is_hole else self._jump):
                self.mended = True
                self._fresh = self._shift, top
                self._shift += top + self._step - stamp
                stamp = top + self._step
                self._shifts.append((stamp, self._shift))
                if packet.pos and packet.pos > 0:
                    self.progress = stamp * self._base_s, packet.pos / self._part.size
        self._last_dts = dts
        if stamp >= top:
            self._top, self._top_length = stamp, packet.duration or self._step
        if self._shift:
            if pts is not None:
                packet.pts = pts + self._shift
            if dts is not None:
                packet.dts = dts + self._shift
        if packet.pos is not None and packet.pos >= 0:
            if packet.pos != self.position:
                self._earlier = self.position
            self.position, self._known = packet.pos, 0
        self._known += packet.size

    def _skipped(self, packet: Packet[Any]) -> int:
        """Ticks that an AVI file's index has between two packets and its reader, who counts chunks, has not: where
        chunks are lost."""
        if packet.pos is None or packet.dts is None or self.position < 0:
            return 0
        if packet.pos - self.position <= self._known + 8 * _AVI_HEAD_BYTES:
            return 0
        entries = self._stream.index_entries
        at = bisect_left(entries, packet.pos - _AVI_HEAD_BYTES, key=lambda entry: entry.pos)
        if at == len(entries) or entries[at].pos != packet.pos - _AVI_HEAD_BYTES:
            return 0
        skipped = entries[at].timestamp - packet.dts - self._shift
        if skipped <= 0:
            return 0
        self._shift += skipped
        self._stumbled = 2
        return skipped

    def _is_pause(self, leap: int, dts: int | None) -> bool:
        """Pictures that are shown in another order leap, too; times of decoding do not, where there are any."""
        least = 4 * self._step
        if self._name == MATROSKA:
            return leap > max(least, _MATROSKA_PAUSE_S * self._ticks)
        has_dts = self._name in (FLV, MP4, MPEGTS) and dts is not None and self._last_dts is not None
        return leap > least and not (has_dts and (dts or 0) - (self._last_dts or 0) <= least)

    def _starts_again(self, packet: Packet[Any], leap: int, most: float) -> bool:
        """Whether a packet `leap` ticks after the latest picture is of another clock."""
        if packet.is_keyframe and leap < -self._step:
            return True
        forward = leap
        if packet.dts is not None and self._last_dts is not None:
            forward = packet.dts - self._last_dts  # of pictures shown in another order the time between them
        if forward > most + self._step:
            return forward > self._other_jump or not self._is_held(packet)
        return self._jump < float("inf") and -forward > _BACK_S * self._ticks

    def _is_anothers(self, packet: Packet[Any]) -> bool:
        """Whether FFmpeg gave a picture that has no time stamp in the stream that of a recording joined behind it."""
        if packet.pos is not None or packet.pts is None or packet.dts is None:
            return False
        if self._name not in (MPEGTS, MPEG) or packet.pts - packet.dts <= self._jump:
            return False
        return self._top is not None and not self._is_held(packet)

    def _is_held(self, packet: Packet[Any]) -> bool:
        """Whether the stream goes on where its clock leaps forward."""
        if self._name not in (MPEGTS, MPEG) or self.position < 0:
            return False
        alone = len(self._container.streams) == 1
        return is_one_recording(self._path, self._part, self._name, self.position, packet.pos, alone=alone)

    def _look_for_hole(self, packet: Packet[Any]) -> bool:
        """Whether pictures paused where bytes are that belong to no packet."""
        stumbled = self._stumbled > 0 or packet.is_corrupt
        if packet.pos is None or self.position < 0:
            if not stumbled:
                return False  # not yet
        else:
            between = packet.pos - self.position
            if self._name not in (MP4, AVI, ASF, MPEGTS) and between - self._known > max(
                _HOLE_BYTES, between // 2
            ):
                self._stumbled, stumbled = 2, True
            if self._pause is not None and not stumbled:
                # Ogg's pages tell when they end, so what is lost shows a page later, or as early as the next page.
                since = self._earlier if self._name == OGG and self._earlier >= 0 else self.position
                stumbled = not is_unbroken(self._path, self._part, self._name, since, packet.pos)
        self._stumbled -= self._stumbled > 0
        if self._pause is None:
            return False
        if stumbled:
            self.holes += 1
            if self.hole_s is None:
                self.hole_s = self._pause[0] * self._base_s, self._pause[1] * self._base_s
        self._pause = None
        return stumbled

    def landing(self, packets: Iterator[Packet[Any]], until: int, *, in_slots: bool) -> Landing:
        """Read on without decoding: packets from the last keyframe shown at or before `until` (ticks).

        `in_slots`: times are those of decoding (AVI), so pictures that follow a keyframe and are shown before it
        leave their times to it.
        """
        held: list[Packet[Any]] = []
        key: int | None = None
        size = 0
        if in_slots:
            until -= _REORDER * self._step
        for packet in packets:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.is_keyframe and stamp is not None and stamp <= until:
                held, key, size = [], stamp, 0
            held.append(packet)
            size += packet.size
            late = packet.dts if packet.dts is not None and not packet.is_keyframe else stamp
            if late is not None and late > until:
                break
            if len(held) > _MOST_HELD or size > _MOST_HELD_BYTES:
                break
        if in_slots and key is not None:
            while len(held) <= _REORDER and (more := next(packets, None)) is not None:
                held.append(more)
            leading = 1
            while leading < len(held) and is_b_picture(self._codec, bytes(held[leading])):
                leading += 1
            if held[leading - 1].dts is not None:
                held[0].dts = key = held[leading - 1].dts
            del held[1:leading]
        return Landing(held, key)


class Landing:
    """`packets` to decode; `key`: when the keyframe among them is shown, in ticks, with which decoding begins anew.
    None: there was none, and decoding goes on."""

    def __init__(self, packets: list[Packet[Any]], key: int | None) -> None:
        self.packets, self.key = packets, key


class AviSlots:
    """AVI stores pictures in decoding order and only the times at which to decode. Its pictures are shown one
    after the other, so the n-th one shown takes the n-th of those times."""

    def __init__(self) -> None:
        self._slots: deque[int] = deque()

    def fill(self, packet: Packet[Any]) -> None:
        if packet.dts is not None and packet.size:
            self._slots.append(packet.dts)

    def drop_last(self) -> None:
        if self._slots:
            self._slots.pop()

    def clear(self) -> None:
        self._slots.clear()

    def place(self, frame: VideoFrame) -> None:
        # Pictures that the decoder left out in silence would delay all later ones; reordering spans a few.
        while len(self._slots) > 1 and frame.dts is not None and self._slots[0] < frame.dts - 4:
            self._slots.popleft()
        if self._slots:
            frame.pts = self._slots.popleft()
