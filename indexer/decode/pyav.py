"""Decoding with PyAV: in sequence, or by seeking over large gaps where seeking is right."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import MediaError
from vsearch.indexer.decode.packets import AviSlots, Packets
from vsearch.indexer.decode.picture import (
    Kept,
    StoredPicture,
    orientation_of,
    render,
    render_poster,
    shown_size,
)
from vsearch.indexer.decode.probe import (
    codec_name,
    cut_short,
    is_fragmented,
    is_one_segment,
    is_tail_lost,
    open_video,
    pixel_aspect,
    stream_duration_s,
)
from vsearch.indexer.decode.source import MAX_DURATION_S, DecodeOptions, PictureTimes, Shown, clock
from vsearch.indexer.decode.structure import Part
from vsearch.indexer.decode.thin import is_header, keyframes, thinning
from vsearch.indexer.sniff import ASF, AVI, FLV, GIF, MATROSKA, MP4, MPEG, MPEGTS
from vsearch.records import MediaInfo

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

_BY_INDEX = (MP4, MATROSKA)  # are sought in by their index; others are read on, packets undecoded
_GAP_S = 4.0  # shorter gaps are read through: a seek, too, decodes from a keyframe on
_GUESSES_DURATION = (AVI, ASF, GIF)  # FFmpeg estimates it from the file, also when that is cut short
_EPSILON_S = 1e-6
_MAX_LEAD_S = 3600.0  # of sound before the first picture


class PyavSource:
    """One recording, which is a file or a part of it, opened with PyAV (see `decode.Source` and `joined`). Raises
    MediaError when no picture can be decoded.

    `zero_s`: the time stamp that is 0:00; `first_s`: when the first picture appears, from there.
    """

    def __init__(self, path: Path, options: DecodeOptions, part: Part | None = None) -> None:
        self._path = path
        self._options = options
        self._lost_packets = 0
        self._open(part)
        self.part = part or Part(0, path.stat().st_size)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._step_s = float(1 / rate) if rate else 0.04
        self._timeline = PictureTimes(self._step_s)
        self._packets = Packets(path, self.part, self._container, self._stream, self._name, self._step_s)
        self._thin = None
        if self._name in _BY_INDEX and options.keyframes_every_s is None and math.isfinite(options.fps):
            self._thin = thinning(self._stream, self._options.fps)
        self._by_index = self._name in _BY_INDEX and not (
            self._name == MATROSKA and not is_one_segment(path, self.part)
        )
        self._skip_to: int | None = None  # ticks
        self._latest_s = 0.0
        decoded = self._decoded()
        try:
            first = next(decoded, None)
            if first is None:
                raise MediaError(self._why_nothing())
        except BaseException:
            self.close()
            raise
        self._lost_packets = self._packets.torn = 0  # a stream that was joined in the middle begins with some
        if first.interlaced_frame:
            self._thin = None  # fields may come alone
        self.zero_s, self.first_s = self._presentation_start(first)
        self.stream_index = self._stream.index
        self._info, self._expected_s, self._expected_is_exact = self._describe(
            first, self.first_s, float(rate or 0)
        )
        self._ahead = chain([first], decoded)

    @property
    def info(self) -> MediaInfo:
        """Its duration is an estimate while a clock that started again makes nonsense of the declared one."""
        if self._packets.mended and self._packets.progress:
            reached_s, share = self._packets.progress
            return replace(self._info, duration_ms=round(1000 * (reached_s - self.zero_s) / share))
        return self._info

    def duration_ms(self, covered_s: float) -> int:
        """Of the whole, once all is read and pictures cover so much."""
        return round(1000 * covered_s) if self._packets.mended else max(
            self._info.duration_ms, round(1000 * covered_s)
        )  # fmt: skip

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]:
        decoded: Iterator[VideoFrame] = self._ahead
        if self._thin:
            self._thin.begin(wanted, self.zero_s)
        gap_s = _GAP_S
        last_s = float("-inf")
        sought_s: float | None = None  # the target of a seek whose landing is not checked yet
        while True:
            frame = next(decoded, None)
            start_s = self._timeline.place(frame) - self.zero_s if frame else float("inf")
            if sought_s is not None:
                if start_s > sought_s + _EPSILON_S:  # behind the target
                    # This file's index is wrong, or its keyframes are none: read it from the start, the second time
                    # picture by picture.
                    gap_s = gap_s if self._by_index else float("inf")
                    self._by_index, sought_s = False, None
                    self._reopen()
                    decoded = self._decoded()
                    continue
                if start_s <= last_s:  # nothing gained: keyframes are further apart than this
                    gap_s *= 4
                sought_s = None
            if frame is None:
                return
            if start_s <= last_s:
                continue
            self._latest_s = start_s
            yield self._shown(frame, start_s)
            last_s = start_s
            target_s = wanted()
            if gap_s < target_s - start_s < float("inf"):
                sought_s = target_s
                self._skip_to = self._ticks_of(target_s)
                if self._by_index and not self._packets.mended:
                    self._seek(self._skip_to)
                    decoded = self._decoded()

    @property
    def end_s(self) -> float:
        """When the latest picture that was read ends, from 0:00."""
        return self._packets.end_s - self.zero_s

    @property
    def shift_s(self) -> float:
        """What the latest picture's time stamp takes to be its time: other streams of the file take the same."""
        return self._packets.shift_s(self._latest_s + self.zero_s) - self.zero_s

    @property
    def colours(self) -> tuple[int, int]:
        """(primaries, transfer) as AVColorPrimaries and AVColorTransferCharacteristic; 2: not told."""
        codec = self._stream.codec_context
        return int(codec.color_primaries), int(codec.color_trc)

    def keyframes(self, every_s: float) -> Iterator[Shown]:
        """The first picture, then keyframes at least `every_s` apart, each by itself."""
        first = next(self._ahead)
        yield self._shown(first, self._timeline.place(first) - self.zero_s)
        seek = self._seek if self._by_index else None
        for frame, start_s in keyframes(self._packets, self._stream, every_s, self.zero_s, seek):
            yield self._shown(frame, start_s)

    def damage(self, covered_s: float) -> str | None:
        cut = cut_short(self._path, self._name, self.part)
        lost = self._lost_packets + self._packets.torn
        if self._packets.lost_at_s is not None:
            since_s = max(0.0, self._packets.lost_at_s - self.zero_s)
            return f"damaged: part of it could not be read at {clock(since_s)}, and times after that may be too early"
        if self._packets.end is not None:  # a picture that stays may be told to stay
            covered_s = max(covered_s, self._packets.end * self._base_s - self.zero_s)
        expected = None if self._packets.mended else self._expected_s
        complete = expected is not None and covered_s >= expected - 3 * self._step_s
        hole_s = self._packets.hole_s
        if cut and complete and hole_s is None:  # what is missing is not at the end
            hole_s = self._packets.pause_s
        if cut and (
            self._name in _GUESSES_DURATION
            or (complete and not self._expected_is_exact)
            or (self._name == MP4 and is_fragmented(self._path, self.part))
        ):
            expected = None
        if expected is None:
            if cut and hole_s is None:
                how = "damaged or cut short" if self._name in (MP4, GIF) else "cut short"
                return f"the file is {how} after {clock(covered_s)}"
        elif not complete and (
            cut
            or (
                covered_s < expected - max(1.0, 0.02 * expected)
                and (self._expected_is_exact or self._packets.read_fault or lost)
            )
        ):
            why = "the file is cut short" if cut else "the rest is damaged or missing"
            return f"only {clock(covered_s)} of {clock(expected)} could be decoded: {why}"
        if hole_s:
            since_s, until_s = (max(0.0, stamp_s - self.zero_s) for stamp_s in hole_s)
            more = ", and more further on" if self._packets.holes > 1 else ""
            return f"damaged: nothing from {clock(since_s)} to {clock(until_s)} could be read{more}"
        if (self._name == MPEGTS or (self._name == FLV and not complete)) and is_tail_lost(
            self._path, self._name, self.part, self._packets.position
        ):
            return f"damaged: nothing after {clock(covered_s)} could be read"
        if lost:
            return f"damaged: {lost} of its pictures could not be decoded" if lost > 1 else (
                "damaged: one of its pictures could not be decoded"
            )  # fmt: skip
        return None

    def close(self) -> None:
        self._container.close()

    def _open(self, part: Part | None) -> None:
        self._container, self._stream, self._name = open_video(self._path, self._options.max_pixels, part)
        self._base_s = float(self._stream.time_base or 0)
        self._aspect = pixel_aspect(self._stream)
        self._kept = Kept()
        codec = self._stream.codec_context
        codec.thread_count = self._options.threads
        codec.thread_type = "AUTO" if self._options.threads > 1 else "NONE"
        codec.options = {"max_pixels": str(self._options.max_pixels)}

    def _reopen(self) -> None:
        self.close()
        self._open(self.part)
        self._skip_to = None
        self._packets.attach(self._container, self._stream)
        self._timeline.restart()

    def _seek(self, ticks: int) -> None:
        """By the container's index; where reading then goes on is checked like any landing."""
        import av

        with contextlib.suppress(av.FFmpegError):
            self._container.seek(ticks, stream=self._stream)
        self._packets.attach(self._container, self._stream)

    def _decoded(self) -> Iterator[VideoFrame]:
        """Every picture from here on; damaged packets are counted and left out. When there is `_skip_to`, those between
        the picture in hand and the last keyframe before it are not decoded."""
        import av

        packets: Iterator[Packet[Any]] = iter(self._packets)
        if self._thin:
            packets = self._thin.needed(packets)
        codec = self._stream.codec_context
        slots = AviSlots() if self._name == AVI and codec.has_b_frames else None
        landed: deque[Packet[Any]] = deque()
        floor: int | None = None  # of pictures that need some from before the landing
        while True:
            try:
                if self._skip_to is not None:
                    rest = chain(tuple(landed), packets)
                    landing = self._packets.landing(rest, self._skip_to, in_slots=slots is not None)
                    landed, self._skip_to = deque(landing.packets), None
                    if landing.key is not None:
                        floor = landing.key
                        codec.flush_buffers()
                        self._timeline.restart()
                        if slots:
                            slots.clear()
                packet = landed.popleft() if landed else next(packets, None)
                if slots and packet:
                    slots.fill(packet)
                frames = packet.decode() if packet else codec.decode(None)
            except MemoryError as error:
                limit = self._options.memory_limit_bytes / (1 << 30)
                raise MediaError(f"needs more than {limit:.1f} GB of memory to decode") from error
            except EOFError:  # the decoder was flushed by the last packet
                frames = []
            except av.FFmpegError:
                if packet and not is_header(codec.name, packet):  # of another part of a chained file
                    self._lost_packets += 1
                frames = []
                if slots:
                    slots.drop_last()
            for frame in frames:
                if packet is None and self._stream.time_base:
                    frame.time_base = self._stream.time_base
                if slots:
                    slots.place(frame)
                if floor is None or frame.pts is None or frame.pts >= floor:
                    yield frame
            if packet is None:
                return

    def _ticks_of(self, time_s: float) -> int:
        """The time stamp of a time from 0:00."""
        return math.floor((time_s + self.zero_s) / self._base_s + _EPSILON_S) if self._base_s else 0

    def _shown(self, frame: VideoFrame, start_s: float) -> Shown:
        base = frame.time_base
        length_s = (
            frame.duration * base.numerator / base.denominator if frame.duration and base else self._step_s
        )
        return Shown(
            start_s,
            start_s + length_s,
            partial(render, frame, self._options.shape, self._aspect, self._kept),
            partial(render_poster, frame, self._options.poster_height, self._aspect),
            partial(StoredPicture, frame, self._aspect, self._kept),
        )

    def _presentation_start(self, first: VideoFrame) -> tuple[float, float]:
        """(time stamp that is 0:00, time of the first picture from there), in seconds.

        0:00 is where the first stream starts, as players have it; sound that starts before zero is padding of
        its encoder, but where clocks wrap. An absurd distance to the first picture means that the clocks have nothing in common.
        """
        first_s = PictureTimes(self._step_s).place(first)
        begin = self._container.start_time  # microseconds
        start_s = first_s if begin is None else begin / 1e6
        if self._name not in (MPEGTS, MPEG):
            start_s = max(0.0, start_s)
        if not 0 <= first_s - start_s <= _MAX_LEAD_S:
            start_s = first_s
        return start_s, first_s - start_s

    def _describe(
        self, first: VideoFrame, first_s: float, fps: float
    ) -> tuple[MediaInfo, float | None, bool]:
        """(info, declared end of the pictures in seconds, whether that is said of the pictures themselves)"""
        orientation = orientation_of(first)
        width, height = shown_size(first.width, first.height, self._aspect, orientation)
        whole_s = max(0, self._container.duration or 0) / 1e6
        if self._name == MATROSKA:  # an end, not a length
            whole_s = max(0.0, whole_s - max(0.0, self.zero_s))
        own_s = stream_duration_s(self._stream, self._name)
        expected_s = whole_s or None
        if own_s:
            begin = self._stream.start_time  # before the first picture that can be decoded
            begin_s = first_s if begin is None else begin * self._base_s - self.zero_s
            expected_s = min(first_s, max(0.0, begin_s)) + own_s
        if max(whole_s, expected_s or 0.0) > 2 * MAX_DURATION_S:  # nonsense
            whole_s, expected_s = 0.0, None
        info = MediaInfo(
            container=self._name,
            codec=codec_name(self._stream),
            width=width,
            height=height,
            rotation=orientation.rotation,
            duration_ms=round(max(whole_s, expected_s or 0.0) * 1000),
            avg_fps=round(fps, 3),
            start_ms=max(0, round(self.zero_s * 1000)),
        )
        alone = len(self._container.streams) == 1
        return info, expected_s, own_s is not None or alone

    def _why_nothing(self) -> str:
        if self._packets.read_fault:
            return "damaged: the file cannot be read further; nothing could be decoded"
        if self._lost_packets:
            return f"damaged: none of its pictures ({self._lost_packets} tried) could be decoded"
        cut = cut_short(self._path, self._name, self.part)
        return (
            "the file is cut short before its first picture" if cut else "its video stream holds no pictures"
        )
