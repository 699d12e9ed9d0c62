"""Decoding through torchcodec, on the CPU: the samples of PyAV, at the same times."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests import media
from vsearch.errors import VsearchError
from vsearch.indexer import IndexOptions, index_videos
from vsearch.indexer.decode import (
    DecodeJob,
    DecodeOptions,
    DecodePool,
    FrameChunk,
    FrameShape,
    JobDone,
    PyavSource,
    check_torchcodec,
)
from vsearch.indexer.decode.nvdec import TorchcodecSource, _opened, _sample, open_torchcodec, to_square
from vsearch.indexer.decode.sampling import Outcome, decode
from vsearch.library import Library
from vsearch.models import load_backbone


def _works() -> bool:
    if importlib.util.find_spec("torchcodec") is None:
        return False
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


needs_torchcodec = pytest.mark.skipif(not _works(), reason="torchcodec, or FFmpeg's libraries, not installed")
ON_CPU = DecodeOptions(fps=7, decoder="nvdec", gpus=("cpu",), shape=FrameShape(64))


class Kept:
    """A `decode.Sink` that keeps everything."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.frames: list[np.ndarray] = []
        self.posters = 0

    def info(self, info: Any) -> None: ...

    def progress(self, time_ms: int) -> None: ...

    def frame(self, time_ms: int, image: np.ndarray) -> None:
        self.times.append(time_ms)
        self.frames.append(image.copy())

    def poster(self, jpeg: bytes) -> None:
        assert jpeg.startswith(b"\xff\xd8")
        self.posters += 1


def sampled(path: Path, options: DecodeOptions) -> tuple[Kept, Outcome]:
    kept = Kept()
    return kept, decode(path, options, kept)


def plain(fps: float) -> DecodeOptions:
    return DecodeOptions(fps=fps, decoder="pyav", shape=ON_CPU.shape)


def made(kind: str, folder: Path) -> Path:
    mp4, mkv = folder / f"{kind}.mp4", folder / f"{kind}.mkv"
    if kind == "variable":
        return media.write_video(mkv, times=[0, 0.04, 0.5, 0.9, 1.4, 1.44, 3.0, 3.3])
    if kind == "sound first":
        return media.write_video(mp4, audio_s=2.5, start_s=0.3)
    if kind == "rotated":
        return media.rotate(media.write_video(mp4), 90)
    if kind == "edited":
        return media.edit(media.write_video(mp4), 0.7, 1.5)
    if kind == "truncated":
        return media.truncated(mkv, media.write_video(folder / "whole.mkv"))
    return media.write_video(mp4)


@needs_torchcodec
@pytest.mark.parametrize("fps", [0.3, 2, 7])
@pytest.mark.parametrize("kind", ["plain", "variable", "sound first", "rotated", "edited", "truncated"])
def test_samples_and_times_are_those_of_pyav(kind: str, fps: float, tmp_path: Path) -> None:
    path = made(kind, tmp_path)
    source = open_torchcodec(path, ON_CPU)
    source.close()
    assert isinstance(source, TorchcodecSource)
    expected, told = sampled(path, plain(fps))
    found, outcome = sampled(path, DecodeOptions(fps=fps, decoder="nvdec", gpus=("cpu",), shape=ON_CPU.shape))
    assert found.times == expected.times
    assert outcome == told
    assert found.posters == expected.posters > 0
    for one, other in zip(found.frames, expected.frames, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3  # grey levels: other scaling and rounding


@needs_torchcodec
def test_vectors_are_close_to_those_of_pyav(tmp_path: Path) -> None:
    path, shape = media.write_video(tmp_path / "a.mp4", size=(320, 240)), FrameShape(224)
    mini = load_backbone("mini", "cpu")
    vectors = [
        mini.encode_frames(np.stack(sampled(path, options)[0].frames))
        for options in (
            DecodeOptions(decoder="pyav", shape=shape),
            DecodeOptions(decoder="nvdec", gpus=("cpu",), shape=shape),
        )
    ]
    one, other = (found / np.linalg.norm(found, axis=1, keepdims=True) for found in vectors)
    assert (one * other).sum(axis=1).min() > 0.99


@needs_torchcodec
def test_what_devices_are_tried_with_can_be_decoded() -> None:
    decoder = _opened(_sample(), "cpu", 0)
    assert tuple(decoder.get_frame_at(7).data.shape) == (256, 256, 3)
    assert len(decoder) == 8


@needs_torchcodec
def test_what_it_does_not_do_goes_through_pyav(tmp_path: Path) -> None:
    stream = media.write_video(tmp_path / "a.ts", format="mpegts")
    source = open_torchcodec(stream, ON_CPU)
    source.close()
    assert isinstance(source, PyavSource)


@needs_torchcodec
def test_where_it_gives_up_in_the_middle_pyav_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.write_video(tmp_path / "a.mp4")
    expected, told = sampled(path, plain(7))
    shown_at, asked = TorchcodecSource._shown_at, []

    def failing(self: TorchcodecSource, stamp_s: float) -> Any:
        asked.append(stamp_s)
        if len(asked) > 5:
            raise RuntimeError("could not decode")
        return shown_at(self, stamp_s)

    monkeypatch.setattr(TorchcodecSource, "_shown_at", failing)
    found, outcome = sampled(path, ON_CPU)
    assert found.times == expected.times
    assert outcome == told
    assert len(asked) == 6


@needs_torchcodec
def test_a_decoder_process_loads_it_beside_pyav(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a b'\n%d.mp4")
    options = DecodeOptions(fps=7, decoder="nvdec", gpus=("cpu",), memory_limit_bytes=0, shape=ON_CPU.shape)
    with DecodePool(options, 1) as pool:
        events = list(pool.run([DecodeJob(0, path)]))
    assert isinstance(events[-1], JobDone)
    times = np.concatenate([event.times_ms for event in events if isinstance(event, FrameChunk)])
    assert times.tolist() == sampled(path, plain(7))[0].times


@needs_torchcodec
def test_an_index_made_with_it_has_the_frames_of_pyav(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsearch.indexer.decode.nvdec.check_torchcodec", lambda devices: None)  # on the CPU
    (tmp_path / "videos").mkdir()
    media.write_video(tmp_path / "videos" / "a.mp4")
    stored = []
    for decoder in ("pyav", "nvdec"):
        options = IndexOptions(model=str(tiny_model), fps=5, device="cpu", decoder=decoder, workers=1)
        done = index_videos(tmp_path / decoder, [tmp_path / "videos"], options, lambda progress: None)
        assert (done.indexed, done.partial) == (1, 0)
        with Library.open(tmp_path / decoder) as library:
            (video,) = library.videos()
            kept = library.frame_set_of(video, library.encoders()[0].backbone)
            assert kept
            stored.append(library.frames(kept.id))
    assert stored[0].times_ms.tolist() == stored[1].times_ms.tolist()
    one, other = (np.asarray(frames.vectors, np.float32) for frames in stored)
    assert (one != other).any()  # it really was the other decoder
    assert ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min() > 0.99


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_scaling_is_close_to_that_of_pyav(mode: str, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", frames=1)
    whole = sampled(path, DecodeOptions(decoder="pyav", shape=FrameShape(120)))[0].frames[0]
    options = DecodeOptions(shape=FrameShape(48, mode))
    expected = sampled(path, DecodeOptions(decoder="pyav", shape=FrameShape(48)))[0].frames[0]
    found = to_square(torch.from_numpy(whole), options, 120, 120)
    assert found.shape == (48, 48, 3)
    assert np.abs(found.astype(int) - expected).mean() < 3
    wide = to_square(torch.from_numpy(whole), options, 240, 120)
    assert wide.shape == (48, 48, 3)
    assert (wide[:12] == 0).all() == (mode == "longest")


def test_without_a_gpu_nvdec_is_refused_in_a_sentence() -> None:
    with pytest.raises(VsearchError, match="this run uses none; use --decoder auto"):
        check_torchcodec(["cpu"])


def test_without_torchcodec_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(VsearchError, match="needs torchcodec, which cannot be loaded"):
        check_torchcodec(["cuda:0"])


@pytest.mark.parametrize("fault", ["no CUDA build", "CPU fallback"])
def test_a_torchcodec_that_does_not_decode_on_the_gpu_is_refused(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Decoder:
        """Stands for torchcodec's: built without CUDA, or falling back to the CPU."""

        cpu_fallback = fault

        def __init__(self, video: bytes, **options: Any) -> None:
            assert b"moov" in video
            if fault == "no CUDA build":
                raise RuntimeError("Unsupported device: cuda\nand more")

    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = Decoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    with pytest.raises(
        VsearchError, match=r"cannot decode on cuda:0 \((CPU fallback|Unsupported device: cuda)\)"
    ):
        check_torchcodec(["cuda:0"])
