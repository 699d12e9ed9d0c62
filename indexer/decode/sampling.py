"""Sampling a video at a fixed rate on true presentation time. Runs in decoder processes only.

For every target time, first frame + k / fps, the frame being shown then is emitted. Its time is the moment at
which it appeared; a frame that stays for several targets is emitted for each of them, with the target as its
time from the second on, so a still picture or a slide covers all the time during which it is shown. Times
count from the start of the file's presentation (what players call 0:00): the container's start time is
subtracted, edit lists and variable frame rates are followed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from vsearch.errors import MediaError
from vsearch.indexer.decode.picture import Image
from vsearch.indexer.decode.source import MAX_DURATION_S, DecodeOptions, Shown, Source
from vsearch.records import MediaInfo

_EPSILON_S = 1e-6  # float error of pts * time_base
_POSTER_CONTRAST = 12.0  # standard deviation of grey values that a picture must have to stand for a video
_POSTER_AT = 1 / 3  # of the duration: past titles and fades
_POSTER_WITHIN = 7  # frames, of whatever there is: should the decoder crash later, the video has one


class Sink(Protocol):
    """Where results go, in this order: info once, then frames, progress and posters."""

    def info(self, info: MediaInfo) -> None: ...

    def frame(self, time_ms: int, image: Image) -> None: ...

    def progress(self, time_ms: int) -> None: ...

    def poster(self, jpeg: bytes) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What decoding a file came to. `partial`: a sentence when not all of it could be decoded."""

    info: MediaInfo
    frames: int
    covered_ms: int
    partial: str | None


def decode(path: Path, options: DecodeOptions, sink: Sink) -> Outcome:
    """Sample one file into `sink`. Raises MediaError with the reason when not one frame can be had."""
    if options.keyframes_every_s is not None:
        return _first_look(path, options, options.keyframes_every_s, sink)
    source = open_source(path, options)
    try:
        sink.info(source.info)
        targets = _Targets(options.fps)
        count = 0
        last_ms = -1
        with _Poster(source, sink) as poster:
            for time_s, shown in _sample(source.frames(targets.next_s), targets, sink):
                last_ms = max(last_ms + 1, round(time_s * 1000))
                image = shown.image
                sink.frame(last_ms, image)
                poster.consider(last_ms, image, shown)
                count += 1
        if not count:
            raise MediaError(source.damage(0.0) or "no picture could be decoded")
        covered_ms = round(targets.covered_s * 1000)
        partial = source.damage(targets.covered_s)
        if targets.too_long:
            partial = f"longer than {MAX_DURATION_S / 3600:.0f} hours; only so much of it is indexed"
        duration_ms = source.duration_ms(targets.covered_s)
        return Outcome(replace(source.info, duration_ms=duration_ms), count, covered_ms, partial)
    finally:
        source.close()


def _first_look(path: Path, options: DecodeOptions, every_s: float, sink: Sink) -> Outcome:
    from vsearch.indexer.decode.joined import open_pyav

    source = open_pyav(path, options)
    try:
        sink.info(source.info)
        count, last_ms, covered_s = 0, -1, 0.0
        with _Poster(source, sink) as poster:
            for shown in source.keyframes(every_s):
                if shown.start_s > MAX_DURATION_S:
                    break
                last_ms = max(last_ms + 1, round(shown.start_s * 1000))
                sink.frame(last_ms, shown.image)
                sink.progress(last_ms)
                poster.consider(last_ms, shown.image, shown)
                count, covered_s = count + 1, max(covered_s, shown.end_s)
        covered_ms = source.duration_ms(covered_s)
        return Outcome(replace(source.info, duration_ms=covered_ms), count, covered_ms, None)
    finally:
        source.close()


def open_source(path: Path, options: DecodeOptions) -> Source:
    """Probe and open with the decoder asked for. Raises MediaError."""
    from vsearch.indexer.decode.joined import is_joined, open_pyav

    if options.decoder == "decord" and not is_joined(path):
        from vsearch.indexer.decode.decord import DecordSource

        return DecordSource(path, options)
    if options.decoder == "nvdec" and not is_joined(path):
        from vsearch.indexer.decode.nvdec import open_torchcodec

        return open_torchcodec(path, options)
    return open_pyav(path, options)


class _Targets:
    """The next target time, and how far pictures have covered the time line."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._k = 0
        self.first_s: float | None = None
        self.covered_s = 0.0
        self.too_long = False

    def next_s(self) -> float:
        return (self.first_s or 0.0) + self._k / self._fps

    def step(self) -> None:
        self._k += 1


def _sample(frames: Iterator[Shown], targets: _Targets, sink: Sink) -> Iterator[tuple[float, Shown]]:
    """(time_s, picture) for every target."""
    previous: Shown | None = None
    for shown in frames:
        if previous is None:
            targets.first_s = shown.start_s
        else:
            yield from _held(previous, shown.start_s, targets)
            if targets.too_long:
                return
        previous = shown
        targets.covered_s = max(targets.covered_s, shown.end_s)
        sink.progress(round(shown.start_s * 1000))
    if previous is not None:
        yield from _held(previous, max(previous.end_s, previous.start_s + 2 * _EPSILON_S), targets)


def _held(shown: Shown, until_s: float, targets: _Targets) -> Iterator[tuple[float, Shown]]:
    """The picture for each target that falls into its time on screen."""
    first = True
    while (target := targets.next_s()) < until_s - _EPSILON_S:
        if target - (targets.first_s or 0.0) > MAX_DURATION_S:
            targets.too_long = True
            targets.covered_s = target
            return
        yield (shown.start_s if first else target), shown
        first = False
        targets.step()


class _Poster:
    """Chooses the picture that stands for a video: past the beginning, and not plain black or white. Leaving the
    block of a `with` draws it, unless that was done."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._contrast = -1.0
        self._settled = False
        self._best: Shown | None = None  # not drawn yet: a better one may come
        self._seen = 0

    def consider(self, time_ms: int, image: Image, shown: Shown) -> None:
        if self._settled:
            return
        self._seen += 1
        late = time_ms >= self._source.info.duration_ms * _POSTER_AT
        if self._contrast < 0 or late:
            contrast = float(np.std(image[::4, ::4].mean(axis=2)))  # a sixteenth of the pixels tells as much
            if contrast > self._contrast or (late and contrast >= _POSTER_CONTRAST):
                self._best = shown
                self._contrast = contrast
            self._settled = late and contrast >= _POSTER_CONTRAST
        if self._settled or self._seen == _POSTER_WITHIN:
            self._draw()

    def __enter__(self) -> _Poster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with (
            contextlib.suppress(Exception) if error else contextlib.nullcontext()
        ):  # the first fault is the reason
            self._draw()

    def _draw(self) -> None:
        best, self._best = self._best, None
        if best:
            self._sink.poster(best.draw_poster())
