"""A video's picture at a time, for the page."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import media
from vsearch.errors import MediaError
from vsearch.indexer import still, still_at
from vsearch.indexer.decode import FrameShape
from vsearch.indexer.still import picture_at


def _number(jpeg: bytes, quarter_turns_left: int = 0) -> int:
    image = np.rot90(np.asarray(Image.open(io.BytesIO(jpeg))), quarter_turns_left)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return media.read_barcode(image[top : top + side, left : left + side])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_it_is_the_picture_on_screen_at_that_time(tmp_path: Path, name: str) -> None:
    times = [0, 1, 2.0004, 2.5, 10, 20, 20.04]
    path = media.write_video(tmp_path / name, times=times)
    for time_ms, number in [(0, 0), (999, 0), (2000, 2), (9999, 3), (15_000, 4), (20_000, 5), (99_000, 6)]:
        assert _number(picture_at(path, time_ms, 96)) == number, time_ms


def test_it_is_upright_and_has_the_height_asked_for(tmp_path: Path) -> None:
    path = media.rotate(media.write_video(tmp_path / "a.mp4"), 90)
    jpeg = still_at(path, 1000, 160)
    assert Image.open(io.BytesIO(jpeg)).size == (120, 160)
    assert _number(jpeg, 1) == 25


def test_without_a_picture_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no pictures"):
        still_at(media.without_frames(tmp_path / "a.mp4"), 0, 90)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
@pytest.mark.parametrize("megabytes", [60, 120, 200])
def test_want_of_memory_is_no_fault_of_the_picture(
    tmp_path: Path, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits as of `ulimit -v`: too little for Python, for FFmpeg, for the pictures."""
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    video = media.write_video(tmp_path / "a.mp4", frames=10)
    monkeypatch.setattr(still, "MEMORY_BYTES", megabytes << 20)
    monkeypatch.setattr(still, "VIDEO_MEMORY_BYTES", megabytes << 20)
    with pytest.raises(MediaError, match="not enough memory"):
        still.read_still(tmp_path / "a.png", FrameShape(64, "squash", "bicubic"))
    with pytest.raises(MediaError, match="not enough memory"):
        still_at(video, 0, 90)
