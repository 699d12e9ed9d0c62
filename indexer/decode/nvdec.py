"""Decoding on the GPU's video unit (NVDEC) through torchcodec: pictures are scaled there, and leave it small.

PyAV opens every file first, with all checks, and keeps it: what NVDEC cannot decode, and containers without an index
to seek by, are PyAV's, and so is the rest of a file that torchcodec gives up on. Samples are those of the usual rule,
at the same times; colours and scaling differ by rounding (`tests/indexer/test_decode_torchcodec.py`). Damage between samples goes
unnoticed where PyAV would name it, and so do pictures that a damaged stream makes the decoder patch up in silence.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vsearch.errors import VsearchError
from vsearch.indexer.decode.picture import Image, encode_jpeg, poster_size
from vsearch.indexer.decode.pyav import PyavSource
from vsearch.indexer.decode.source import MAX_DURATION_S, DecodeOptions, Shown, Source
from vsearch.indexer.sniff import MATROSKA, MP4

if TYPE_CHECKING:
    from torch import Tensor

_WITH_INDEX = (MP4, MATROSKA)
_SAME_S = 1e-3  # two readers of one file agree on the time of its first picture
_EPSILON_S = 1e-6


def open_torchcodec(path: Path, options: DecodeOptions) -> Source:
    """The video by torchcodec on the first of `options.gpus`, or by PyAV. Raises MediaError where neither can."""
    plain = PyavSource(path, options)
    if plain.info.container in _WITH_INDEX:
        with contextlib.suppress(RuntimeError, ValueError, IndexError):  # as torchcodec says that it cannot
            return TorchcodecSource(path, options, plain)
    return plain


@dataclass(frozen=True)
class _Picture:
    """A decoded picture (H, W, 3) on the device, its time stamp and declared length."""

    pixels: Tensor
    stamp_s: float
    length_s: float


class TorchcodecSource:
    """A video opened with torchcodec (see `decode.Source`), with PyAV at hand. Raises RuntimeError for one that it
    cannot decode as PyAV does."""

    def __init__(self, path: Path, options: DecodeOptions, plain: PyavSource) -> None:
        self._options, self._plain, self.info = options, plain, plain.info
        self._decoder = _opened(path, options.gpus[0], plain.stream_index)
        first = self._numbered(0)
        if abs(first.stamp_s - plain.zero_s - plain.first_s) > _SAME_S:
            raise RuntimeError("another time line")
        if -(getattr(self._decoder.metadata, "rotation", None) or 0) % 360 != self.info.rotation:
            raise RuntimeError("not turned as it is shown")
        self._first = first
        # The last picture may come without a length of its own.
        lasts_s = 0.0 if first.length_s else 1 / (self.info.avg_fps or 25.0)
        end_s = self._decoder.metadata.end_stream_seconds + lasts_s - plain.zero_s
        self._end_s = min(
            end_s, plain.first_s + MAX_DURATION_S + 2 / options.fps
        )  # a hostile file may claim years

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]:
        try:
            yield from self._sampled()
        except (RuntimeError, ValueError, IndexError):
            yield from self._plain.frames(wanted)

    def duration_ms(self, covered_s: float) -> int:
        return self._plain.duration_ms(covered_s)

    def damage(self, covered_s: float) -> str | None:
        return self._plain.damage(covered_s)

    def close(self) -> None:
        self._plain.close()

    def _sampled(self) -> Iterator[Shown]:
        """Just the pictures that targets fall on; each lasts until the next of them."""
        picture, k = self._first, 0
        first_s = start_s = picture.stamp_s - self._plain.zero_s
        while True:
            square = to_square(picture.pixels, self._options, self.info.width, self.info.height)
            following = None
            while (
                following is None and (target_s := first_s + (k := k + 1) / self._options.fps) < self._end_s
            ):
                if target_s + _EPSILON_S >= start_s + picture.length_s:
                    shown = self._shown_at(target_s + _EPSILON_S + self._plain.zero_s)
                    following = shown if shown.stamp_s > picture.stamp_s else None
            end_s = following.stamp_s - self._plain.zero_s if following else self._end_s
            yield Shown(start_s, end_s, partial(np.asarray, square), partial(self._poster, picture.pixels))
            if following is None:
                return
            picture, start_s = following, end_s

    def _shown_at(self, stamp_s: float) -> _Picture:
        if stamp_s >= self._decoder.metadata.end_stream_seconds:
            return self._numbered(len(self._decoder) - 1)
        # Asked for one time alone, torchcodec goes by declared lengths and may give the next picture; here, by stamps.
        found = self._decoder.get_frames_played_at([stamp_s])
        return _Picture(found.data[0], float(found.pts_seconds[0]), float(found.duration_seconds[0]))

    def _numbered(self, index: int) -> _Picture:
        found = self._decoder.get_frame_at(index)
        return _Picture(found.data, found.pts_seconds, found.duration_seconds)

    def _poster(self, pixels: Tensor) -> bytes:
        size = poster_size(self.info.width, self.info.height, self._options.poster_height)
        return encode_jpeg(_scaled(pixels, *size, "bicubic"))


def check_torchcodec(devices: list[str]) -> None:
    """Decode a small video on each device, unless this PyAV cannot make one. Raises VsearchError with what is missing."""
    if not all(device.startswith("cuda") for device in devices):
        raise VsearchError("decoder nvdec works on a GPU, and this run uses none; use --decoder auto")
    remedy = "or use --decoder auto"
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: FFmpeg's libraries are not there
        raise VsearchError(
            f"decoder nvdec needs torchcodec, which cannot be loaded ({_first_line(error)}); install the version for your "
            f"torch, and FFmpeg's libraries, {remedy}"
        ) from error
    import av

    try:
        sample = _sample()
    except (ValueError, av.FFmpegError):  # no H.264 encoder
        return
    for device in devices:
        try:
            _opened(sample, device, 0).get_frame_at(0)
        except Exception as error:  # torchcodec, torch and the driver raise what they like
            raise VsearchError(
                f"torchcodec cannot decode on {device} ({_first_line(error)}); its CUDA build and NVIDIA's video driver are "
                f"needed: install them, {remedy}"
            ) from error


def to_square(frame: Tensor, options: DecodeOptions, width: int, height: int) -> Image:
    """(H, W, 3) uint8 RGB on any device, shown as width x height -> (size, size, 3) as `options.shape` says."""
    shape = options.shape
    return shape.fit(_scaled(frame, *shape.scaled(width, height), shape.interpolation))


def _scaled(frame: Tensor, width: int, height: int, interpolation: str) -> Image:
    import torch
    import torch.nn.functional as F

    planes = frame.permute(2, 0, 1)[None].float()  # (1, 3, H, W)
    small = F.interpolate(planes, (height, width), mode=interpolation, antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().cpu().numpy()


def _opened(video: Path | bytes, device: str, stream_index: int) -> Any:
    """A decoder of torchcodec that really works on `device`. Raises RuntimeError."""
    from torchcodec.decoders import VideoDecoder

    options = {"stream_index": stream_index, "dimension_order": "NHWC", "device": device}
    if isinstance(video, bytes):
        decoder = VideoDecoder(video, **options)
    else:
        descriptor = os.open(video, os.O_RDONLY | os.O_CLOEXEC)
        try:  # the open descriptor spares it names that are not UTF-8, or look like a protocol
            name = f"/proc/self/fd/{descriptor}" if sys.platform == "linux" else str(video)
            decoder = VideoDecoder(name, **options)
        finally:
            os.close(descriptor)
    if fallback := getattr(decoder, "cpu_fallback", None):
        raise RuntimeError(str(fallback))
    return decoder


def _sample() -> bytes:
    """A second of grey in H.264, which every NVDEC knows."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=MP4) as out:
        stream: Any = out.add_stream("h264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((256, 256, 3), 16 * number, np.uint8), "rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    return file.getvalue()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
