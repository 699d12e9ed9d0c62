"""Decoding with PyAV: in sequence, or by seeking over large gaps where seeking is right."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import MediaError
from vsearch.indexer.decode import MAX_DURATION_S, DecodeOptions, Shown, clock
from vsearch.indexer.decode_keyframes import keyframes
from vsearch.indexer.decode_thin import thinning
from vsearch.indexer.picture import Kept, StoredPicture, orientation_of, render, render_poster, shown_size
from vsearch.indexer.probe import (
    MediaInfo,
    codec_name,
    cut_short,
    open_video,
    pixel_aspect,
    stream_duration_s,
)

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# These have an index to seek by; seeking in .ts and .avi lands wrong.
_SEEKABLE = {"mp4", "matroska"}
_FIRST_GAP_S = 4.0  # shorter gaps are read through: a seek, too, decodes from a keyframe on
# Clocks of broadcast streams may restart; FFmpeg's tools take a jump of 10 s for that (dts_delta_threshold).
_JUMP_S = {"mpegts": 10.0, "mpeg": 10.0, "mp4": float("inf"), "matroska": float("inf")}
_OTHER_JUMP_S = 600.0
_GUESSES_DURATION = {"avi", "asf"}  # FFmpeg estimates it from the file's size, also when that is cut short
_MAX_LEAD_S = 3600.0  # of sound before the first picture


class PyavSource:
    """A video opened with PyAV (see `decode.Source`). Raises MediaError when no picture can be decoded.

    `zero_s`: the time stamp that is 0:00; `first_s`: when the first picture appears, from there.
    """

    def __init__(self, path: Path, options: DecodeOptions) -> None:
        self._path = path
        self._options = options
        self._lost_packets = 0
        self._read_error: str | None = None
        self._open()
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._step_s = float(1 / rate) if rate else 0.04
        self._timeline = _Timeline(_JUMP_S.get(self._name, _OTHER_JUMP_S), self._step_s)
        self._thin = None
        if self._name in _SEEKABLE and options.keyframes_every_s is None and isfinite(options.fps):
            self._thin = thinning(self._stream, self._options.fps)
        decoded = self._decoded()
        try:
            first = next(decoded, None)
            if first is None:
                raise MediaError(self._why_nothing())
        except BaseException:
            self.close()
            raise
        self._lost_packets = 0  # a stream that was joined in the middle begins with some
        if first.interlaced_frame:
            self._thin = None  # fields may come alone
        self.zero_s, self.first_s = self._presentation_start(first)
        self.stream_index = self._stream.index
        self.info, self._expected_s, self._expected_is_exact = self._describe(
            first, self.first_s, float(rate or 0)
        )
        self._ahead = chain([first], decoded)

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]:
        decoded: Iterator[VideoFrame] = self._ahead
        if self._thin:
            self._thin.begin(wanted, self.zero_s)
        gap_s = _FIRST_GAP_S if self._name in _SEEKABLE else float("inf")
        last_s = float("-inf")
        sought_s: float | None = None  # the target of a seek whose landing is not checked yet
        while True:
            frame = next(decoded, None)
            start_s = self._timeline.place(frame) - self.zero_s if frame else float("inf")
            if sought_s is not None:
                if (
                    start_s > sought_s
                ):  # behind the target: this file cannot be sought in; read it from the start
                    gap_s, sought_s = float("inf"), None
                    self.close()
                    self._open()
                    self._timeline.restart()
                    decoded = self._decoded()
                    continue
                if start_s <= last_s:  # nothing gained: keyframes are further apart than this
                    gap_s *= 4
                sought_s = None
            if frame is None:
                return
            if start_s <= last_s:
                continue
            yield self._shown(frame, start_s)
            last_s = start_s
            if wanted() - start_s > gap_s:
                sought_s = wanted()
                self._timeline.restart()
                self._seek(sought_s + self.zero_s)
                decoded = self._decoded()

    @property
    def shift_s(self) -> float:
        """What the latest picture's time stamp takes to be its time: other streams of the file take the same."""
        return self._timeline.shift_s - self.zero_s

    def keyframes(self, every_s: float) -> Iterator[Shown]:
        """The first picture, then keyframes at least `every_s` apart, each by itself."""
        first = next(self._ahead)
        zero_s = self.zero_s
        yield self._shown(first, self._timeline.place(first) - zero_s)
        seekable = self._name in _SEEKABLE
        for frame, start_s in keyframes(self._container, self._stream, every_s, zero_s, seekable=seekable):
            yield self._shown(frame, start_s)

    def damage(self, covered_s: float) -> str | None:
        cut = cut_short(self._path, self._name)
        lost = self._lost_packets
        expected = None if self._timeline.mended else self._expected_s
        complete = expected is not None and covered_s >= expected - 3 * self._step_s
        if cut and (self._name in _GUESSES_DURATION or (complete and not self._expected_is_exact)):
            expected = None
        if expected is None:
            if cut:
                return f"the file is cut short after {clock(covered_s)}"
        elif not complete and (
            cut
            or (
                covered_s < expected - max(1.0, 0.02 * expected)
                and (self._expected_is_exact or self._read_error or lost)
            )
        ):
            why = "the file is cut short" if cut else self._read_error or "the rest is damaged or missing"
            return f"only {clock(covered_s)} of {clock(expected)} could be decoded: {why}"
        if lost:
            return f"damaged: {lost} of its pictures could not be decoded" if lost > 1 else (
                "damaged: one of its pictures could not be decoded"
            )  # fmt: skip
        return None

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        self._container, self._stream, self._name = open_video(self._path, self._options.max_pixels)
        self._aspect = pixel_aspect(self._stream)
        self._kept = Kept()
        codec = self._stream.codec_context
        codec.thread_count = self._options.threads
        codec.thread_type = "AUTO" if self._options.threads > 1 else "NONE"
        codec.options = {"max_pixels": str(self._options.max_pixels)}

    def _decoded(self) -> Iterator[VideoFrame]:
        """Every picture from here on; damaged packets are counted and left out."""
        import av

        packets: Iterator[Packet[Any]] = self._container.demux(self._stream)
        if self._thin:
            packets = self._thin.needed(packets)
        slots = _AviSlots() if self._name == "avi" and self._stream.codec_context.has_b_frames else None
        while True:
            try:
                packet = next(packets, None)
            except MemoryError as error:
                raise MediaError(self._needs_memory()) from error
            except av.FFmpegError as error:
                self._read_error = f"the file cannot be read further ({error.strerror})"
                packet = None
            if slots and packet:
                slots.fill(packet)
            try:
                frames = packet.decode() if packet else self._stream.codec_context.decode(None)
            except MemoryError as error:
                raise MediaError(self._needs_memory()) from error
            except EOFError:  # the decoder was flushed by the last packet
                frames = []
            except av.FFmpegError:
                self._lost_packets += 1
                frames = []
                if slots:
                    slots.drop_last()
            for frame in frames:
                if slots:
                    slots.place(frame)
                yield frame
            if packet is None:
                return

    def _seek(self, time_s: float) -> None:
        import av

        base = self._stream.time_base
        if base:
            with contextlib.suppress(
                av.FFmpegError
            ):  # where reading then goes on is checked like any landing
                self._container.seek(int(time_s / base), stream=self._stream)

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
        its encoder. An absurd distance to the first picture means that the clocks have nothing in common.
        """
        first_s = _Timeline(float("inf"), self._step_s).place(first)
        start_s = (
            max(0.0, (self._container.start_time or 0) / 1e6)
            if self._container.start_time is not None
            else first_s
        )
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
        own_s = stream_duration_s(self._stream)
        expected_s = first_s + own_s if own_s else whole_s or None
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
        cut = cut_short(self._path, self._name)
        if self._read_error:
            return f"damaged: {self._read_error}; nothing could be decoded"
        if self._lost_packets:
            return f"damaged: none of its pictures ({self._lost_packets} tried) could be decoded"
        return (
            "the file is cut short before its first picture" if cut else "its video stream holds no pictures"
        )

    def _needs_memory(self) -> str:
        return f"needs more than {self._options.memory_limit_bytes / (1 << 30):.1f} GB of memory to decode"


class _AviSlots:
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

    def place(self, frame: VideoFrame) -> None:
        # Pictures that the decoder left out in silence would delay all later ones; reordering spans a few.
        while len(self._slots) > 1 and frame.dts is not None and self._slots[0] < frame.dts - 4:
            self._slots.popleft()
        if self._slots:
            frame.pts = self._slots.popleft()


class _Timeline:
    """Time stamps of successive pictures, made to increase: missing and repeated ones, restarted clocks."""

    def __init__(self, jump_s: float, step_s: float) -> None:
        self._jump_s = jump_s
        self._step_s = step_s
        self.shift_s = 0.0  # since the last restart of the clock
        self._last_s: float | None = None
        self.mended = False  # whether a clock restarted

    def place(self, frame: VideoFrame) -> float:
        stamp = frame.pts if frame.pts is not None else frame.dts
        last = self._last_s
        base = frame.time_base
        if stamp is None or base is None:
            place = 0.0 if last is None else last + self._step_s
        else:
            # Rounded once, as by Fraction, and faster.
            place = stamp * base.numerator / base.denominator + self.shift_s
            if last is not None and abs(place - last) > self._jump_s:
                self.shift_s += last + self._step_s - place
                self.mended = True
                place = last + self._step_s
            elif last is not None and place <= last:
                place = last + 0.001
        self._last_s = place
        return place

    def restart(self) -> None:
        """After a seek, whose landing may be anywhere."""
        self._last_s = None
        self.shift_s = 0.0
