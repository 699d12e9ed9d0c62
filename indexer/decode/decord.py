"""Decoding with decord: fewer codecs, no salvage of damaged files, and no way to interrupt it.

It is offered because it is fast on some files. It cannot be told which containers to refuse, so PyAV opens
every file first, with all checks; decord is then given that same open file, not its name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vsearch.errors import MediaError
from vsearch.indexer.decode.picture import Image, encode_jpeg, poster_size
from vsearch.indexer.decode.pyav import PyavSource
from vsearch.indexer.decode.source import DecodeOptions, Shown, clock
from vsearch.indexer.sniff import MPEG, MPEGTS

# Pictures a whole group late in .ts and a hang at the end of some, open groups in HEVC (benchmarks/decoders.py)
_WRONG = {MPEGTS, MPEG, "hevc"}


class DecordSource:
    """A video opened with decord (see `decode.Source`). Raises MediaError."""

    def __init__(self, path: Path, options: DecodeOptions) -> None:
        decord = _import_decord()
        self._options = options
        probe = PyavSource(path, options)
        self.info = probe.info
        probe.close()
        if wrong := _WRONG & {self.info.container, self.info.codec}:
            raise MediaError(f"decord shows wrong pictures, or hangs, in {min(wrong)}; try --decoder pyav")
        width, height = options.shape.scaled(self.info.width, self.info.height)
        if self.info.rotation in (90, 270):  # decord scales first and turns then
            width, height = height, width
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # The open descriptor also spares decord names that are not UTF-8.
        name = f"/proc/self/fd/{self._descriptor}" if sys.platform == "linux" else str(path)
        try:
            self._reader = decord.VideoReader(
                name, ctx=decord.cpu(0), width=width, height=height, num_threads=options.threads
            )
            # (N, 2) seconds: when each picture appears and disappears
            self._stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
            if len(self._stamps) > 1 and not (np.diff(self._stamps[:, 0]) > 0).all():
                raise MediaError("decord gives no usable times for it; try --decoder pyav")  # H.264 in AVI
            if self._stamps[-1, 1] - self._stamps[0, 0] > 1.02 * self.info.duration_ms / 1000 + 0.5:
                raise MediaError(
                    "decord shows more than the file does, as with edit lists; try --decoder pyav"
                )
        except MediaError:
            self.close()
            raise
        except Exception as error:  # decord raises RuntimeError, DECORDError, AssertionError and more
            self.close()
            raise MediaError("decord cannot open it; try --decoder pyav") from error

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]:
        zero_s = self._stamps[0, 0]
        for index, (start, end) in enumerate(self._stamps - zero_s):
            draw = partial(self._read, index)
            yield Shown(float(start), float(end), partial(self._square, draw), partial(self._poster, draw))

    def duration_ms(self, covered_s: float) -> int:
        return max(self.info.duration_ms, round(covered_s * 1000))

    def damage(self, covered_s: float) -> str | None:
        expected_s = self.info.duration_ms / 1000
        if covered_s < expected_s - max(2.0, 0.1 * expected_s):
            return f"only {clock(covered_s)} of {clock(expected_s)} could be decoded by decord"
        return None

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, index: int) -> Image:
        try:
            return self._reader[index].asnumpy()  # (H, W, 3) RGB, turned as the display matrix says
        except Exception as error:
            raise MediaError(f"decord cannot decode picture {index}; try --decoder pyav") from error

    def _square(self, draw: Callable[[], Image]) -> Image:
        return self._options.shape.fit(draw())

    def _poster(self, draw: Callable[[], Image]) -> bytes:
        from PIL import Image as Pillow

        size = poster_size(self.info.width, self.info.height, self._options.poster_height)
        return encode_jpeg(np.asarray(Pillow.fromarray(draw()).resize(size, Pillow.Resampling.BICUBIC)))


def _import_decord() -> Any:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise MediaError(
            "decord is not installed (it has no build for this platform); use --decoder pyav"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord
