"""Every video of a folder cut at three places, and each clip compared with the index's own pictures, one by one.

    python benchmarks/clips.py FOLDER

The truth is what indexing decodes: its source's pictures at their times, drawn as frames for an encoder. A clip is wrong
when the number of pictures, a time (over 2 ms), the size, or a picture (mean difference over 6 of 255, H.264 at crf 20
and 4:2:0 included) differ. Exit status 1 when any is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError
from vsearch.indexer import export_clip
from vsearch.indexer.clip import fitting
from vsearch.indexer.decode import DecodeOptions, FrameShape, open_pyav
from vsearch.indexer.sniff import container_of, read_head

LENGTH_MS = 600
TOLERANCE_MS, TOLERANCE = 2.0, 6.0
SHAPE = FrameShape(96, "squash")

Picture = tuple[float, npt.NDArray[np.uint8]]  # ms, (96, 96, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    videos = [p for p in sorted(folder.rglob("*")) if p.is_file() and container_of(read_head(p))]
    clips = wrong = 0
    print(f"{'video':40} {'at ms':>9} {'pictures':>8} {'off ms':>7} {'colour':>7}")
    for video in videos:
        for start_ms, pictures, off_ms, colour, fault in _three_cuts(video):
            clips += 1
            wrong += fault is not None
            print(
                f"{video.name[:40]:40} {start_ms:9d} {pictures:8d} {off_ms:7.2f} {colour:7.2f}  {fault or ''}",
                flush=True,
            )
    print(f"{len(videos)} videos, {clips} clips, {wrong} wrong")
    return 1 if wrong or not clips else 0


def _three_cuts(video: Path) -> Iterator[tuple[int, int, float, float, str | None]]:
    """(begin in ms, pictures, largest difference of times in ms and of pictures, what is wrong)"""
    try:
        times_ms, size = _times(video)
    except VsearchError as error:
        yield 0, 0, 0.0, 0.0, str(error)
        return
    last = times_ms[-1]
    for start_ms in sorted({0, round(last / 2) + 7, max(0, round(last) - LENGTH_MS)}):
        end_ms = start_ms + LENGTH_MS
        expected = _expected(video, start_ms, end_ms)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "clip.mp4"
            try:
                export_clip(video, target, start_ms, end_ms)
                got = list(_pictures(target))
                made_size = _times(target)[1]
            except VsearchError as error:
                yield start_ms, 0, 0.0, 0.0, str(error)
                continue
        pairs = list(zip(expected, got, strict=False))
        off_ms = max((abs(a[0] - b[0]) for a, b in pairs), default=0.0)
        colour = max((float(np.abs(a[1].astype(int) - b[1]).mean()) for a, b in pairs), default=0.0)
        fault = None
        if len(expected) != len(got):
            fault = f"{len(got)} pictures for {len(expected)}"
        elif made_size != fitting(*size):
            fault = f"{made_size} for {fitting(*size)}"
        elif off_ms > TOLERANCE_MS:
            fault = "times"
        elif colour > TOLERANCE:
            fault = "colour"
        yield start_ms, len(got), off_ms, colour, fault


def _pictures(path: Path) -> Iterator[Picture]:
    """All of a file, read from its beginning, without seeking."""
    source = open_pyav(path, DecodeOptions(fps=float("inf"), shape=SHAPE))
    try:
        for shown in source.frames(lambda: 0.0):
            yield shown.start_s * 1000, shown.image
    finally:
        source.close()


def _times(path: Path) -> tuple[list[float], tuple[int, int]]:
    """Times in ms of all pictures, and the size of them as shown."""
    source = open_pyav(path, DecodeOptions(fps=float("inf"), shape=SHAPE))
    try:
        return [s.start_s * 1000 for s in source.frames(lambda: 0.0)], (source.info.width, source.info.height)
    finally:
        source.close()


def _expected(video: Path, start_ms: int, end_ms: int) -> list[Picture]:
    """What is on screen in [start_ms, end_ms), from the clip's beginning; the first is held from before, or begins it."""
    source = open_pyav(video, DecodeOptions(fps=float("inf"), shape=SHAPE))
    try:
        pictures: list[Picture] = []
        for shown in source.frames(lambda: 0.0):
            at_ms = round(shown.start_s * 1000)
            if at_ms >= end_ms and pictures:
                break
            if at_ms <= start_ms or not pictures:
                pictures = [(0.0, shown.image)] if at_ms > start_ms - 2000 else [(0.0, SKIPPED)]
                held = shown
            else:
                pictures.append((shown.start_s * 1000 - start_ms, shown.image))
        if pictures[0][1] is SKIPPED:
            pictures[0] = 0.0, held.image
        return pictures
    finally:
        source.close()


SKIPPED: npt.NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)  # not drawn: it is long before

if __name__ == "__main__":
    sys.exit(main())
