"""What a decoder is asked, and what an opened video gives: pictures, each with its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vsearch.indexer.decode.picture import FrameShape, Image, StoredPicture
from vsearch.machine import available_cores
from vsearch.records import MediaInfo

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

DECODERS = ("auto", "pyav", "decord", "nvdec")
_LOADING_CUDA_S = 60.0
MAX_DURATION_S = 48 * 3600.0  # a hostile file may claim years; longer ones are indexed up to here


@dataclass(frozen=True)
class DecodeOptions:
    """What decoding may use, and what it makes.

    `fps`: samples a second; infinity: every picture may be wanted. `keyframes_every_s`: not those, but keyframes, at most one in so many seconds, at their
    own times; always by PyAV, and without a word about damage. `decoder`: 'auto', 'pyav', 'decord' or 'nvdec'; auto is
    PyAV, see benchmarks/decoders.py. `gpus`: where nvdec works, each decoder process on one of them.
    A video may take `deadline_s` plus `deadline_per_video_s` for each second of it, and `stall_s` without any
    news; time during which the process waits for the consumer does not count. `memory_limit_bytes`: address
    space of a decoder process; 0: no limit, for CUDA reserves far more than it uses. `max_pixels`: of one picture. `chunk_frames`: frames in an event.
    """

    fps: float = 2.0
    keyframes_every_s: float | None = None
    shape: FrameShape = field(default_factory=lambda: FrameShape(224))
    decoder: str = "auto"
    gpus: tuple[str, ...] = ("cuda",)
    deadline_s: float = 120.0
    deadline_per_video_s: float = 6.0
    stall_s: float = 30.0
    memory_limit_bytes: int = 6 << 30
    max_pixels: int = 64_000_000
    chunk_frames: int = 32
    poster_height: int = 180
    threads: int = 1
    videos_per_process: int = 200

    def stall_for(self, path: Path) -> float:
        """Seconds without news that a file may take. decord and torchcodec read all of it before its first frame: a
        slow disk's time for that, and for the loading of torch and CUDA, which comes with a process's first file."""
        if self.decoder not in ("decord", "nvdec"):
            return self.stall_s
        loading_s = _LOADING_CUDA_S if self.decoder == "nvdec" else 0.0
        try:
            return self.stall_s + loading_s + os.stat(path).st_size / 20e6
        except OSError:
            return self.stall_s


def default_workers(devices: Sequence[str] = ("cpu",), decoder: str = "auto") -> int:
    """As many as there are cores where these encode, too, at most eight: decoders wait while the encoder is behind, and
    it does not wait for one of them alone where decoding takes longer. Where GPUs encode, all cores but one for each of
    them, at most 32: a GPU takes what many cores decode. Where GPUs decode, four for each: a process takes some
    hundred megabytes of its memory, and it has one to seven units that decode."""
    cores = available_cores()
    if decoder == "nvdec":
        return min(cores, 4 * len(devices))
    if devices[0].startswith("cuda"):
        return max(1, min(32, cores - len(devices)))
    return min(8, cores)


@dataclass(frozen=True)
class Shown:
    """One picture of a video and when it is shown, in seconds from the start of the presentation."""

    start_s: float
    end_s: float  # declared; the next picture's start is the truth
    draw: Callable[[], Image]  # -> (size, size, 3)
    draw_poster: Callable[[], bytes]
    stored: Callable[[], StoredPicture] | None = None  # PyAV's alone

    @cached_property
    def image(self) -> Image:
        return self.draw()


class Source(Protocol):
    """An opened video. `frames` yields pictures in order of presentation; it may leave out those that end
    before `wanted()`, the next target in seconds. Afterwards `damage` says what was lost on the way."""

    @property
    def info(self) -> MediaInfo: ...

    def duration_ms(self, covered_s: float) -> int:
        """Of the whole video, once all is read and pictures cover so many seconds."""

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]: ...

    def damage(self, covered_s: float) -> str | None: ...

    def close(self) -> None: ...


class PictureTimes:
    """Times of successive pictures, made to increase: missing and repeated time stamps."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._last_s: float | None = None

    def place(self, frame: VideoFrame) -> float:
        stamp = frame.pts if frame.pts is not None else frame.dts
        last = self._last_s
        base = frame.time_base
        if stamp is None or base is None:
            place = 0.0 if last is None else last + self._step_s
        else:
            place = stamp * base.numerator / base.denominator  # rounded once, as by Fraction, and faster
            if last is not None and place <= last:
                place = last + 0.001
        self._last_s = place
        return place

    def restart(self) -> None:
        """After a seek, whose landing may be anywhere."""
        self._last_s = None


def clock(seconds: float) -> str:
    """A time for a sentence: 5.3 s, or HH:MM:SS from a minute on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
