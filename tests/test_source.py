"""The one source of pictures and times: clocks, seeking, honesty about damage. In process, picture by picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import media
from vsearch.indexer.decode import DecodeOptions
from vsearch.indexer.decode_pyav import PyavSource
from vsearch.indexer.picture import FrameShape


def options(**changes: Any) -> DecodeOptions:
    return DecodeOptions(**{"fps": 25.0, "shape": FrameShape(96), **changes})


# What the file says of itself


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_how_far_a_browsers_clock_is_off_is_told(tmp_path: Path, name: str) -> None:
    late = PyavSource(media.write_video(tmp_path / name, frames=25, start_s=5), options())
    zero = PyavSource(media.write_video(tmp_path / f"zero-{name}", frames=25), options())
    assert late.info.start_ms == round(late.zero_s * 1000)
    assert (
        abs(late.info.start_ms - zero.info.start_ms - 5000) <= 80
    )  # a stream for broadcast sets off with its delay
    late.close()
    zero.close()


@pytest.mark.parametrize(
    ("name", "encoder", "codec"),
    [("a.mp4", "libsvtav1", "av1"), ("a.webm", "libvpx-vp9", "vp9"), ("b.mp4", "libx264", "h264")],
)
def test_the_codec_is_called_by_its_own_name_and_not_by_its_decoders(
    tmp_path: Path, name: str, encoder: str, codec: str
) -> None:
    source = PyavSource(media.write_video(tmp_path / name, encoder, frames=10), options())
    assert source.info.codec == codec
    source.close()
