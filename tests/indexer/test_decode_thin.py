"""Pictures that nobody asks for are not decoded, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import media
from vsearch.indexer.decode import DecodeOptions, FrameShape
from vsearch.indexer.decode import pyav as decode_pyav
from vsearch.indexer.decode.sampling import decode
from vsearch.records import MediaInfo

Sample = tuple[int, bytes]


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.rest: list[Any] = []

    def info(self, info: MediaInfo) -> None:
        self.rest.append(info)

    def frame(self, time_ms: int, image: npt.NDArray[np.uint8]) -> None:
        self.samples.append((time_ms, image.tobytes()))

    def progress(self, time_ms: int) -> None:
        pass

    def poster(self, jpeg: bytes) -> None:
        self.rest.append(jpeg)


def everything(path: Path, fps: float) -> tuple[list[Sample], list[Any]]:
    sink = Kept()
    sink.rest.append(decode(path, DecodeOptions(fps=fps, shape=FrameShape(64)), sink))
    return sink.samples, sink.rest


def packets(path: Path, fps: float) -> tuple[int, int]:
    """(packets in the file, packets that reach the decoder)"""
    source = decode_pyav.PyavSource(path, DecodeOptions(fps=fps, shape=FrameShape(64)))
    try:
        thin = source._thin
        assert thin is not None
        thin.begin(lambda: 0.0, 0.0)
        source._container.seek(0)
        everything = list(source._container.demux(source._stream))
        return len(everything), len(list(thin.needed(iter(everything))))
    finally:
        source.close()


@pytest.mark.parametrize("fps", [0.7, 2.0, 5.0, 11.0, 30.0])
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_samples_times_poster_and_outcome_are_those_of_decoding_everything(
    tmp_path: Path, name: str, fps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    irregular = [0.0]
    for step in ([0.04] * 7 + [0.02, 0.3, 0.01, 0.033]) * 9:
        irregular.append(irregular[-1] + step)
    how = {"x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"}
    path = media.write_video(tmp_path / name, frames=len(irregular), times=irregular, gop=40, encoder=how)
    thinned = everything(path, fps)
    monkeypatch.setattr(decode_pyav, "thinning", lambda stream, fps: None)
    assert thinned == everything(path, fps)


def test_at_two_frames_a_second_most_b_pictures_stay_undecoded(tmp_path: Path) -> None:
    how = {"x264-params": "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0"}
    path = media.write_video(tmp_path / "b.mp4", frames=240, fps=30, gop=60, encoder=how)
    total, needed = packets(path, 2.0)
    assert total >= 240
    assert needed < 0.5 * total
    assert packets(path, 30.0) == (total, total)  # every picture is asked for


CODECS = [
    ("a.mp4", "libx264", {"bf": "2", "sc_threshold": "0"}),
    ("a.mkv", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ("a.mp4", "mpeg4", {}),
]


@pytest.mark.parametrize(("name", "codec", "encoder"), CODECS)
def test_what_comes_between_the_last_picture_asked_for_and_a_new_beginning_stays_undecoded(
    tmp_path: Path, name: str, codec: str, encoder: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.write_video(tmp_path / name, codec, frames=300, fps=30, gop=12, encoder=encoder)
    total, needed = packets(path, 2.0)
    assert total >= 300
    assert needed < 0.7 * total
    for fps in (0.8, 2.0, 7.0):
        with monkeypatch.context() as patch:
            patch.setattr(decode_pyav, "thinning", lambda stream, fps: None)
            whole = everything(path, fps)
        assert everything(path, fps) == whole


def test_parameters_between_pictures_are_never_left_out(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "p.mp4", frames=90, gop=10, encoder={"bf": "0"})
    source = decode_pyav.PyavSource(path, DecodeOptions(fps=1.0, shape=FrameShape(64)))
    assert source._thin is not None
    read = source._thin._read
    idr, other = b"\0\0\0\2\x65x", b"\0\0\0\2\x61x"
    parameters, droppable = b"\0\0\0\2\x67x", b"\0\0\0\2\x01x"
    assert read(memoryview(idr)) == (True, True, False)
    assert read(memoryview(other)) == (True, False, False)
    assert read(memoryview(droppable)) == (True, False, True)
    for broken in (parameters + idr, droppable + parameters, idr[:-1], idr + b"\0", b"", b"\0\0\0\0"):
        assert not read(memoryview(broken)).pictures_only
        assert not read(memoryview(broken)).no_reference
    source.close()


def test_references_and_what_cannot_be_read_are_always_decoded(tmp_path: Path) -> None:
    total, needed = packets(
        media.write_video(tmp_path / "p.mp4", frames=90, gop=90, encoder={"bf": "0", "sc_threshold": "0"}),
        1.0,
    )
    assert needed == total
    source = decode_pyav.PyavSource(
        media.write_video(tmp_path / "x.mkv", "libx265", frames=20), DecodeOptions(shape=FrameShape(64))
    )
    assert source._thin is None
    source.close()
