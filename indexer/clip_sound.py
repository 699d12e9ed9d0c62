"""The sound of a clip: on the clock of the pictures, as one unbroken line of samples that AAC takes.

Whatever a file has (rates and layouts that change, holes, stamps that repeat or start again) is laid onto that line:
holes become silence, what overlaps is left out. Sound never costs the pictures: what cannot be had is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

    from vsearch.indexer.decode import Part

RATE = 48_000
_LEAD_S = 1.0  # read before the clip begins: some codecs need what was before
_BACK_S = 0.5  # sound further behind what was read belongs to a clock that started again
_DRIFT = RATE // 25  # samples between where sound is and where its stamps want it; less is rounding
_MOST_FAULTS = 1000


class Sound:
    """Sound of [begin_s, end_s) of a part of a video. `shifts_s`: from time stamps to times, as the pictures' clock went through
    them; it may grow. `word`: a sentence when there is sound that cannot be had."""

    def __init__(self, path: Path, part: Part, shifts_s: list[float], begin_s: float, end_s: float) -> None:
        self._path, self._part, self._shifts_s = path, part, shifts_s
        self._begin_s, self._end_s = begin_s, end_s
        self._length = round((end_s - begin_s) * RATE)
        self.word: str | None = None
        self._container: Any = None
        self._frames: Iterator[AudioFrame] = iter(())
        self._next: AudioFrame | None = None
        self._next_s: float | None = None  # where the frame after the latest is due
        self._kind: tuple[object, ...] | None = None
        self._resampler: Any = None
        self._heard = 0.0  # samples of the line that the resampler was given
        self._at = 0  # where its next sample belongs
        self._written = 0
        self._layout = "stereo"

    def open(self, out: Any) -> Any:
        """The stream for it in the file `out`; None when there is no sound."""
        if not self._find():
            return None
        frame = self._next
        assert frame is not None
        self._layout = "mono" if len(frame.layout.channels) == 1 else "stereo"
        stream = out.add_stream("aac", rate=RATE)
        stream.codec_context.layout = self._layout
        stream.codec_context.format = "fltp"
        return stream

    def write(self, stream: Any, until_s: float | None) -> None:
        """Sound up to `until_s` from the beginning, as far as pictures were read; None: the rest."""
        while stream is not None and self._next is not None and self._written < self._length:
            frame = self._next
            place_s = self._place(frame)
            read_s = None if until_s is None else self._begin_s + until_s
            if read_s is not None and (
                place_s > read_s if place_s is not None else read_s <= (self._next_s or 0.0) + 1
            ):
                return  # pictures may come to tell of another clock
            if place_s is not None:
                if place_s >= self._end_s:
                    break
                for block in self._heard_at(frame, place_s):
                    self._mux(stream, block)
                self._next_s = place_s + frame.samples / frame.sample_rate
            self._next = next(self._frames, None)
        if stream is not None and until_s is None:
            for block in self._flush():
                self._mux(stream, block)
            stream.container.mux(stream.encode(None))

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _find(self) -> bool:
        """Whether there is sound that can be decoded, and the first of it."""
        import av

        target_s = self._begin_s - self._shifts_s[-1] - _LEAD_S
        seek = len(self._shifts_s) == 1 and self._begin_s > 2 * _LEAD_S
        try:
            for sought in [True, False] if seek else [False]:
                self.close()
                stream = self._open()
                if stream is None:
                    return False
                if sought:
                    self._container.seek(int(target_s * av.time_base))
                self._frames = self._decoded(stream)
                self._next = next(self._frames, None)
                place_s = self._place(self._next) if self._next else None
                if not sought or (place_s is not None and place_s <= self._begin_s):
                    break
        except (av.FFmpegError, VsearchError, ValueError, OSError):
            self._next = None
        if self._next is None and self.word is None:
            self.word = "without sound: it cannot be decoded"
        return self._next is not None

    def _open(self) -> Any:
        """The default stream of sound, else the first that can be decoded."""
        from vsearch.indexer.decode import DecodeOptions, open_video

        self._container, _, _ = open_video(self._path, DecodeOptions().max_pixels, self._part)
        streams = list(self._container.streams.audio)
        known = [stream for stream in streams if stream.codec_context is not None]
        if streams and not known:
            self.word = "without sound: its format is not known to this decoder"
        return next(iter(known), None)

    def _decoded(self, stream: Any) -> Iterator[AudioFrame]:
        import av

        faults = 0
        packets = self._container.demux(stream)
        while faults < _MOST_FAULTS:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except (av.FFmpegError, EOFError):
                faults += 1
                continue
            for frame in frames:
                if frame.samples and frame.sample_rate:
                    yield frame

    def _place(self, frame: AudioFrame) -> float | None:
        """When a frame is heard, in seconds of the video: by the first clock on which it does not lie behind what
        was heard before. None: on none."""
        if frame.pts is None or frame.time_base is None:
            return self._next_s if self._next_s is not None else 0.0
        stamp_s = float(frame.pts * frame.time_base)
        if self._next_s is None:
            return stamp_s + self._shifts_s[0]
        earliest_s = self._next_s - _BACK_S
        return min((s for shift in self._shifts_s if (s := stamp_s + shift) >= earliest_s), default=None)

    def _heard_at(self, frame: AudioFrame, place_s: float) -> Iterator[npt.NDArray[np.float32]]:
        """Blocks (channels, samples) that come out of the resampler for a frame at its place."""
        import av

        due = round((place_s - self._begin_s) * RATE)
        kind = (frame.format.name, frame.layout.name, len(frame.layout.channels), frame.sample_rate)
        if kind != self._kind or abs(due - self._heard) > _DRIFT:
            yield from self._flush()
            self._kind, self._heard, self._at = kind, float(due), due
            self._resampler = av.AudioResampler("fltp", self._layout, RATE)
        samples = frame.samples * RATE / frame.sample_rate
        self._heard += samples
        frame.pts = None
        try:
            blocks = [block.to_ndarray() for block in self._resampler.resample(frame)]
        except (av.FFmpegError, ValueError):
            self._kind = None
            self.word = "part of its sound is left out: it cannot be converted"
            return
        for block in blocks:
            yield from self._laid(block)

    def _flush(self) -> Iterator[npt.NDArray[np.float32]]:
        import av

        if self._resampler is not None:
            resampler, self._resampler = self._resampler, None
            try:
                blocks = [block.to_ndarray() for block in resampler.resample(None)]
            except (av.FFmpegError, ValueError):
                return
            for block in blocks:
                yield from self._laid(block)

    def _laid(self, block: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """The part of a block that goes on with the line, and silence before it."""
        start, self._at = self._at, self._at + block.shape[1]
        if self._at <= self._written:
            return
        while (gap := min(start, self._length) - self._written) > 0:
            yield np.zeros((block.shape[0], min(gap, RATE)), np.float32)
        left = self._length - self._written
        yield block[:, max(0, self._written - start) :][:, : max(0, left)]

    def _mux(self, stream: Any, block: npt.NDArray[np.float32]) -> None:
        import av

        if block.shape[1] == 0:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", self._layout)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._written
        self._written += block.shape[1]
        stream.container.mux(stream.encode(frame))
