"""Small real videos for tests, made with PyAV alone, and ways to break them.

Every frame carries its number as a barcode in the middle, so a test can tell which frame it got, and when
that frame should be shown. Use: `from tests.media import write_video, read_barcode`.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

SIZE = (160, 120)  # width, height
BROKEN_BARCODE = -1


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 60,
    fps: int = 25,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    gop: int = 12,
    format: str | None = None,
    audio_s: float = 0.0,
    start_s: float = 0.0,
    muxer: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
    title: str | None = None,
) -> Path:
    """Write a video whose frame i shows number i from i / fps, or from `times[i]` seconds, on.

    `audio_s` adds that many seconds of a tone, `start_s` shifts all pictures, `title` names the track. Skips the test when this PyAV
    has no such encoder.
    """
    import av

    need_encoder(codec)
    times = [start_s + t for t in ([i / fps for i in range(frames)] if times is None else times)]
    # A clock fine enough for any times, where the container allows one.
    base = Fraction(1, fps) if all(abs(t * fps - round(t * fps)) < 1e-9 for t in times) else Fraction(1, 1000)
    with _ordinary_priority(), av.open(str(path), "w", format=format, options=muxer or {}) as out:
        stream: Any = out.add_stream(codec, rate=fps, options=_encoder_options(codec) | (encoder or {}))
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = gop
        if title is not None:
            stream.metadata["title"] = title
        sound = _tone(out, audio_s) if audio_s else iter(())
        for number, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24").reformat(format=pixels)
            frame.pts = round(time_s / base)
            frame.time_base = base
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
        for packet in sound:
            out.mux(packet)
    return path


@contextmanager
def _ordinary_priority() -> Iterator[None]:
    """SVT-AV1, run by root, makes the thread that calls it a real-time one and leaves it so. Threads that wait
    for each other by spinning, as torch's do, would then take every core for ever."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def need_encoder(codec: str) -> None:
    import av

    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")


def picture(number: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB: grey, with 4 x 4 black and white cells over the middle 80 % of the shorter side."""
    width, height = size
    image = np.full((height, width, 3), 110, np.uint8)
    cell = min(size) * 8 // 10 // 4
    top, left = (height - 4 * cell) // 2, (width - 4 * cell) // 2
    code = number << 4 | _check(number)
    for bit in range(16):
        y, x = top + bit // 4 * cell, left + bit % 4 * cell
        image[y : y + cell, x : x + cell] = 255 if code >> bit & 1 else 0
    return image


def read_barcode(image: npt.NDArray[np.uint8]) -> int:
    """The number in a square picture whose side was the shorter one; BROKEN_BARCODE if not readable."""
    grey = image.astype(np.float32).mean(axis=2)
    side = image.shape[0]
    cell = 0.8 * side / 4
    code = 0
    for bit in range(16):
        y, x = (round(0.1 * side + (index + 0.25) * cell) for index in (bit // 4, bit % 4))
        half = max(1, round(cell / 2))
        code |= int(grey[y : y + half, x : x + half].mean() > 127) << bit
    number = code >> 4
    return number if code & 15 == _check(number) else BROKEN_BARCODE


def audio_only(path: Path, seconds: float = 1.0) -> Path:
    import av

    with av.open(str(path), "w") as out:
        for packet in _tone(out, seconds):
            out.mux(packet)
    return path


def without_frames(path: Path) -> Path:
    """An mp4 with a video stream that holds no picture."""
    import av

    need_encoder("libx264")
    with av.open(str(path), "w", format="mp4", options={"movflags": "empty_moov+default_base_moof"}) as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
    return path


def truncated(path: Path, source: Path, fraction: float = 0.5) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def bit_flipped(path: Path, source: Path, flips: int = 20, seed: int = 0) -> Path:
    """Flips single bits between the first and the last tenth of the file."""
    data = bytearray(source.read_bytes())
    chance = random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data) // 10, len(data) * 9 // 10)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return path


def hls_playlist(path: Path, target: Path) -> Path:
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n")
    return path


def ffconcat(path: Path, target: Path) -> Path:
    path.write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    return path


def sdp(path: Path) -> Path:
    path.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9999 RTP/AVP 96\n"
    )
    return path


def dash(path: Path, target: Path) -> Path:
    path.write_text(
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{target}</BaseURL></MPD>'
    )
    return path


def rotate(path: Path, degrees_clockwise: int) -> Path:
    """Give the first track of an mp4 a display matrix, in place."""
    one = 1 << 16
    a, b, c, d = {
        0: (one, 0, 0, one),
        90: (0, one, -one, 0),
        180: (-one, 0, 0, -one),
        270: (0, -one, one, 0),
    }[degrees_clockwise]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def edit(path: Path, skip_s: float, length_s: float) -> Path:
    """Make the edit list of an mp4's first track show only [skip_s, skip_s + length_s), in place."""
    data = bytearray(path.read_bytes())
    movie_scale = struct.unpack_from(">I", data, data.index(b"mvhd") + 4 + 12)[0]
    media_scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    at = data.index(b"elst") + 4 + 4
    assert struct.unpack_from(">I", data, at)[0] == 1, "expected one edit"
    media_time = struct.unpack_from(">i", data, at + 8)[0]
    struct.pack_into(
        ">Ii", data, at + 4, round(length_s * movie_scale), media_time + round(skip_s * media_scale)
    )
    path.write_bytes(data)
    return path


def pack_b_pictures(path: Path) -> Path:
    """Lay an AVI of MPEG-4 out as DivX and Xvid do: each first B-picture in the chunk of the picture that is decoded
    before it, an empty one at the end of their row."""
    import av

    with av.open(str(path)) as file:
        packets = [(bytes(p), p.is_keyframe) for p in file.demux(file.streams.video[0]) if p.size]
    is_b = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 == 2 for data, _ in packets] + [False]
    chunks: list[tuple[bytes, bool]] = []
    for i, (data, is_key) in enumerate(packets):
        if is_key:
            at = data.index(b"\0\0\1\xb3" if b"\0\0\1\xb3" in data else b"\0\0\1\xb6")
            data = data[:at] + b"\0\0\1\xb2DivX503b1393p" + data[at:]
        if is_b[i] and not is_b[i - 1]:
            chunks[-1] = chunks[-1][0] + data, chunks[-1][1]
        else:
            chunks.append((data, is_key))
        if is_b[i] and not is_b[i + 1]:
            chunks.append((b"\0\0\1\xb6\x50\x7f", False))
    packed = path.with_name(f"packed-{path.name}")
    with av.open(str(path)) as file, av.open(str(packed), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        for number, (data, is_key) in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), is_key
            packet.pts = packet.dts = number
            out.mux(packet)
    return packed


def _check(number: int) -> int:
    """Four bits that make a grid read turned, mirrored or mixed from two frames unlikely to be valid."""
    return (number * 7 + (number >> 4) * 5 + (number >> 8) * 3 + 11) & 15


def _encoder_options(codec: str) -> dict[str, str]:
    return {
        "libx264": {"preset": "veryfast", "crf": "20"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "25", "b": "0"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "500k"},
        "libsvtav1": {"preset": "12", "crf": "30", "svtav1-params": "lp=1"},
        "mpeg4": {"b": "800k"},
        "mpeg2video": {"b": "1500k"},
        "wmv2": {"b": "800k"},
        "flv": {"b": "800k"},
        "theora": {"b": "800k"},
    }.get(codec, {})


def _tone(out: Any, seconds: float) -> Any:
    """Packets of a 440 Hz tone in AAC (Vorbis where the container wants it)."""
    import av

    rate = 48_000
    codec = "libopus" if "webm" in out.format.name or "ogg" in out.format.name else "aac"
    need_encoder(codec)
    stream: Any = out.add_stream(codec, rate=rate)
    stream.codec_context.layout = "mono"
    stream.codec_context.format = "flt" if codec == "libopus" else "fltp"
    wave = np.sin(np.arange(int(seconds * rate)) * (2 * np.pi * 440 / rate)).astype(np.float32)

    def packets() -> Any:
        for first in range(0, len(wave), 960):
            block = wave[None, first : first + 960]
            frame = av.AudioFrame.from_ndarray(block, format=stream.codec_context.format.name, layout="mono")
            frame.sample_rate = rate
            frame.pts = first
            frame.time_base = Fraction(1, rate)
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets()
