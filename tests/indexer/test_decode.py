"""Decoding: the right frame at the right time, a true reason for everything else, and nothing ever hangs."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import media
from vsearch.errors import VsearchError
from vsearch.indexer.decode import (
    DecodeJob,
    DecodeOptions,
    DecodePool,
    Event,
    FrameChunk,
    FrameShape,
    JobDone,
    render,
)
from vsearch.indexer.decode import child as decode_child
from vsearch.indexer.decode import pool as decode_pool
from vsearch.indexer.decode.picture import Kept, Orientation
from vsearch.indexer.decode.sampling import decode

FPS = 5.0
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds child processes through /proc")


@dataclass
class Result:
    """What came of one file."""

    frames: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    done: JobDone | None = None
    reason: str | None = None

    @property
    def barcodes(self) -> list[int]:
        return [media.read_barcode(frame) for frame in self.frames]


def options(**changes: Any) -> DecodeOptions:
    return DecodeOptions(**{"fps": FPS, "shape": FrameShape(96), **changes})


def collect(events: Iterable[Event], count: int) -> list[Result]:
    results = [Result() for _ in range(count)]
    for event in events:
        result = results[event.job_id]
        if isinstance(event, FrameChunk):
            result.frames += list(event.frames)
            result.times_ms += event.times_ms.tolist()
        elif isinstance(event, JobDone):
            result.done = event
            assert event.frames == len(result.frames)
        else:
            result.reason = event.reason
    return results


def decode_all(paths: list[Path], workers: int = 1, **changes: Any) -> list[Result]:
    with DecodePool(options(**changes), workers) as pool:
        return collect(pool.run(DecodeJob(i, path) for i, path in enumerate(paths)), len(paths))


def decode_one(path: Path, **changes: Any) -> Result:
    return decode_all([path], **changes)[0]


def truth(times: list[float], end_s: float, fps: float = FPS) -> list[tuple[int, int]]:
    """(time in ms, frame number) that sampling must give, worked out from the frames' own times."""
    expected = []
    last = -1
    k = 0
    while (target := times[0] + k / fps) < end_s - 1e-6:
        number = max(i for i, t in enumerate(times) if t <= target + 1e-6)
        expected.append((round(1000 * (target if number == last else times[number])), number))
        last = number
        k += 1
    return expected


FORMATS: list[tuple[str, str, dict[str, Any]]] = [
    ("h264.mp4", "libx264", {}),
    ("h264.mov", "libx264", {}),
    ("h264.mkv", "libx264", {}),
    ("h264.ts", "libx264", {}),
    ("h264.m2ts", "libx264", {}),
    ("h264.flv", "libx264", {}),
    ("h264.avi", "libx264", {}),
    ("fragmented.mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("hevc.mp4", "libx265", {}),
    ("hevc-10bit.mkv", "libx265", {"pixels": "yuv420p10le"}),
    ("vp8.webm", "libvpx", {}),
    ("vp9.webm", "libvpx-vp9", {}),
    ("av1.mp4", "libsvtav1", {}),
    ("av1.webm", "libsvtav1", {}),
    ("mpeg4.avi", "mpeg4", {}),
    ("mjpeg.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("mpeg2.mpg", "mpeg2video", {}),
    ("mpeg2.ts", "mpeg2video", {}),
    ("wmv2.wmv", "wmv2", {}),
    ("prores.mov", "prores", {"pixels": "yuv422p10le"}),
    ("animation.gif", "gif", {"pixels": "rgb8"}),
    ("with-sound.mp4", "libx264", {"audio_s": 2.0}),
    ("with-sound.mkv", "libx264", {"audio_s": 2.0}),
]


@pytest.mark.parametrize(("name", "codec", "how"), FORMATS, ids=[name for name, _, _ in FORMATS])
def test_every_format_gives_the_right_frames_at_the_right_times(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    result = decode_one(media.write_video(tmp_path / name, codec, frames=35, fps=25, **how))
    assert list(zip(result.times_ms, result.barcodes, strict=True)) == truth([i / 25 for i in range(35)], 1.4)
    assert result.done
    assert result.done.partial is None
    assert abs(result.done.covered_ms - 1400) <= 2
    assert (result.done.info.width, result.done.info.height) == media.SIZE
    assert result.done.poster_jpeg
    assert result.done.poster_jpeg.startswith(b"\xff\xd8")


VARIABLE = [0, 0.04, 0.08, 0.5, 0.52, 1.7, 1.71, 1.9, 3.0, 3.04]


@pytest.mark.parametrize(
    ("name", "codec"), [("v.mp4", "libx264"), ("v.webm", "libvpx-vp9"), ("v.mkv", "libx264")]
)
def test_variable_frame_rate_and_stills_cover_all_the_time(tmp_path: Path, name: str, codec: str) -> None:
    result = decode_one(media.write_video(tmp_path / name, codec, times=VARIABLE))
    assert list(zip(result.times_ms, result.barcodes, strict=True)) == truth(VARIABLE, 3.08)


def test_transport_stream_times_start_at_zero_where_its_sound_does(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", frames=30, fps=25, audio_s=1.2, start_s=0.5)
    result = decode_one(path)
    assert result.barcodes == [0, 5, 10, 15, 20, 25]
    assert all(abs(t - (500 + 200 * i)) <= 25 for i, t in enumerate(result.times_ms)), result.times_ms


def test_transport_streams_joined_end_to_end_go_on_in_time(tmp_path: Path) -> None:
    one = media.write_video(tmp_path / "one.ts", frames=25, fps=25).read_bytes()
    late = media.write_video(tmp_path / "late.ts", frames=25, fps=25, start_s=5000).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one + late + one)
    result = decode_one(joined)
    assert result.barcodes == [0, 5, 10, 15, 20] * 3
    assert result.times_ms == list(range(0, 3000, 200))


def test_an_edit_list_is_followed(tmp_path: Path) -> None:
    path = media.edit(media.write_video(tmp_path / "a.mp4", frames=60, fps=25), skip_s=0.6, length_s=1.0)
    result = decode_one(path)
    assert result.barcodes == [15, 20, 25, 30, 35]
    assert result.times_ms == [0, 200, 400, 600, 800]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int, decoder: str) -> None:
    need(decoder)
    path = media.rotate(media.write_video(tmp_path / "a.mp4", frames=10), degrees)
    result = decode_one(path, decoder=decoder)
    upright = np.rot90(result.frames[0], degrees // 90)  # counter-clockwise
    assert media.read_barcode(upright) == 0
    assert result.done
    assert result.done.info.rotation == degrees
    turned = media.SIZE[::-1] if degrees in (90, 270) else media.SIZE
    assert (result.done.info.width, result.done.info.height) == turned


def test_mirrored_pictures_are_mirrored_back() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert (Orientation(flip_x=True).apply(image) == image[:, ::-1]).all()
    assert (Orientation(transpose=True, flip_x=True).apply(image) == np.rot90(image, -1)).all()


def test_a_third_of_a_second_and_a_single_frame_give_a_frame(tmp_path: Path) -> None:
    short = media.write_video(tmp_path / "short.mp4", frames=8, fps=25)
    single = media.write_video(tmp_path / "single.gif", "gif", frames=1, pixels="rgb8")
    for result in decode_all([short, single], fps=0.5):
        assert result.barcodes == [0]
        assert result.times_ms == [0]


@pytest.mark.parametrize("gop", [20, 2000])
@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_seeking_over_large_gaps_gives_the_same_frames_as_reading_on(
    tmp_path: Path, name: str, gop: int
) -> None:
    path = media.write_video(tmp_path / name, frames=900, fps=10, gop=gop, encoder={"sc_threshold": "0"})
    result = decode_one(path, fps=0.07)
    assert list(zip(result.times_ms, result.barcodes, strict=True)) == truth(
        [i / 10 for i in range(900)], 90, 0.07
    )


def test_all_formats_but_the_indexed_ones_are_read_in_sequence_whatever_the_gap(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", frames=400, fps=10)
    assert decode_one(path, fps=0.1).barcodes == [0, 100, 200, 300]


def test_absurd_time_stamps_end_in_a_partial_result_not_in_years_of_frames(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "years.mkv", times=[0, 1, 400 * 3600])
    result = decode_one(path, fps=0.001)
    assert result.done
    assert len(result.frames) <= 175
    assert result.done.partial == "longer than 48 hours; only so much of it is indexed"


def colour_frame(rgb: tuple[int, int, int], space: int, full: bool, size: tuple[int, int] = (128, 96)) -> Any:
    """A plain yuv420p frame, computed from the definition of its colour space."""
    import av

    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[space if space != 2 else 5]
    if space == 2 and min(size) > 576:
        kr, kb = 0.2126, 0.0722
    r, g, b = (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    planes = (
        [255 * y, *(255 * c + 128 for c in chroma)]
        if full
        else [16 + 219 * y, *(128 + 224 * c for c in chroma)]
    )
    width, height = size
    counts = [width * height, width * height // 4, width * height // 4]
    data = np.concatenate(
        [np.full(n, min(255, round(p)), np.uint8) for n, p in zip(counts, planes, strict=True)]
    )
    frame = av.VideoFrame.from_ndarray(data.reshape(height * 3 // 2, width), format="yuv420p")
    frame.colorspace, frame.color_range = space, 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(128, 96), (1280, 720)])
@pytest.mark.parametrize("space", [1, 2, 5, 9], ids=["bt709", "untagged", "bt601", "bt2020"])
def test_colours_are_right_in_every_matrix_and_range(space: int, size: tuple[int, int], full: bool) -> None:
    for rgb in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (40, 90, 200)):
        image = render(colour_frame(rgb, space, full, size), FrameShape(32), Fraction(1))
        assert np.abs(image.astype(int) - rgb).max() <= 3, (rgb, image[16, 16])


def test_shapes_cut_squash_and_pad() -> None:
    import av

    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, :50] = 255, 0, 0
    picture[:, 50:150] = 0, 255, 0
    picture[:, 150:] = 0, 0, 255
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")

    def middle_row(mode: str) -> list[str]:
        image = render(frame, FrameShape(40, mode, "bilinear"), Fraction(1))
        assert image.shape == (40, 40, 3)
        assert image.dtype == np.uint8
        return ["rgb"[int(np.argmax(pixel))] for pixel in image[20, [2, 20, 37]]]

    assert middle_row("shortest") == ["g", "g", "g"]
    assert middle_row("squash") == ["r", "g", "b"]
    assert middle_row("longest") == ["r", "g", "b"]
    padded = render(frame, FrameShape(40, "longest"), Fraction(1))
    assert padded[:9].max() == padded[-9:].max() == 0
    # pixels twice as wide as high: the same picture is now four times as wide as high
    assert render(frame, FrameShape(40, "longest"), Fraction(2))[:14].max() == 0


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_shrinking_averages_fine_patterns_instead_of_picking_pixels(interpolation: str) -> None:
    import av

    checks = np.indices((640, 640)).sum(axis=0) % 2 * np.uint8(255)
    frame = av.VideoFrame.from_ndarray(
        np.repeat(checks[:, :, None], 3, axis=2).astype(np.uint8), format="rgb24"
    )
    image = render(frame, FrameShape(64, "shortest", interpolation), Fraction(1)).astype(int)
    assert abs(image.mean() - 127.5) < 3
    assert image.std() < 6


def test_drawn_frames_are_freed_at_once(tmp_path: Path) -> None:
    """Large pictures that wait for the garbage collector filled hundreds of megabytes."""
    import av

    path, kept = media.write_video(tmp_path / "v.mp4", frames=40), Kept()
    gc.collect()
    gc.disable()
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                render(frame, FrameShape(32), Fraction(1), kept)
            del frame
        assert gc.collect() < 20
    finally:
        gc.enable()


def test_files_that_are_no_videos_say_why(tmp_path: Path) -> None:
    good = media.write_video(tmp_path / "good.mp4", frames=25)
    samples: dict[str, bytes] = {
        "empty.mp4": b"",
        "zeros.mkv": bytes(5000),
        "text.avi": b"dear diary\n" * 900,
        "page.webm": b"<!DOCTYPE html><html></html>",
        "photo.mp4": b"\xff\xd8\xff\xe0" + bytes(200),
        "noise.mp4": np.random.default_rng(0).bytes(6000),
    }
    paths = {name: tmp_path / name for name in samples}
    for name, data in samples.items():
        paths[name].write_bytes(data)
    paths["hls.mp4"] = media.hls_playlist(tmp_path / "hls.mp4", good)
    paths["concat.mp4"] = media.ffconcat(tmp_path / "concat.mp4", good)
    paths["sdp.mp4"] = media.sdp(tmp_path / "sdp.mp4")
    paths["dash.mp4"] = media.dash(tmp_path / "dash.mp4", good)
    paths["audio.mp4"] = media.audio_only(tmp_path / "audio.mp4")
    paths["none.mp4"] = media.without_frames(tmp_path / "none.mp4")
    paths["cut.mp4"] = media.truncated(tmp_path / "cut.mp4", good)
    paths["gone.mp4"] = tmp_path / "gone.mp4"
    paths["folder.mp4"] = tmp_path / "folder.mp4"
    paths["folder.mp4"].mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    paths["pipe.mp4"] = tmp_path / "pipe.mp4"
    reasons = {n: r.reason for n, r in zip(paths, decode_all(list(paths.values())), strict=True)}
    assert reasons == {
        "empty.mp4": "empty file (0 bytes)",
        "zeros.mkv": "not a video: the file begins with nothing but zeros",
        "text.avi": "not a video: a text file",
        "page.webm": "not a video: a web page",
        "photo.mp4": "not a video: a JPEG picture",
        "noise.mp4": "not a video: no known container",
        "hls.mp4": "is a playlist (HLS), not a video; refused",
        "concat.mp4": "is a playlist (ffconcat), not a video; refused",
        "sdp.mp4": "is a session description (SDP), not a video; refused",
        "dash.mp4": "is a playlist (DASH), not a video; refused",
        "audio.mp4": "no video stream (audio only)",
        "none.mp4": "its video stream holds no pictures",
        "cut.mp4": "damaged: no index (moov atom missing); nothing could be decoded",
        "gone.mp4": "cannot be read: No such file or directory",
        "folder.mp4": "not a regular file",
        "pipe.mp4": "not a regular file",
    }


def test_a_picture_over_the_pixel_limit_is_refused(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "wide.mp4", "mpeg4", frames=1, size=(2000, 1000))
    reason = decode_one(path, max_pixels=1_000_000).reason
    assert reason == "picture of 2000x1000 pixels exceeds the limit of 1 megapixels"


CUTTABLE = [
    ("a.mp4", "libx264", {"muxer": {"movflags": "faststart"}}),
    ("a.mkv", "libx264", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("a.avi", "mpeg4", {}),
    ("a.wmv", "wmv2", {}),
    ("a.flv", "libx264", {}),
]


@pytest.mark.parametrize(("name", "codec", "how"), CUTTABLE, ids=[name for name, _, _ in CUTTABLE])
def test_a_truncated_file_gives_what_can_be_had_and_says_how_much(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    whole = media.write_video(tmp_path / name, codec, frames=100, fps=25, **how)
    result = decode_one(media.truncated(tmp_path / f"cut-{name}", whole, 0.6))
    assert result.done
    # the very last picture may be missing pictures that it refers to, or that come before it
    assert result.barcodes[:-1] == [5 * i for i in range(len(result.barcodes) - 1)]
    assert 6 <= len(result.barcodes) <= 16
    assert 1200 <= result.done.covered_ms <= 3200
    assert result.done.partial
    assert "cut short" in result.done.partial or "missing" in result.done.partial
    assert f"{result.done.covered_ms / 1000:.1f} s" in result.done.partial


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_cost_some_pictures_never_the_run(tmp_path: Path, seed: int) -> None:
    names = [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx265"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
    ]
    paths = []
    for name, codec in names:
        whole = media.write_video(tmp_path / name, codec, frames=100, size=(320, 240))
        paths.append(media.bit_flipped(tmp_path / f"flip-{name}", whole, flips=6, seed=seed))
    results = decode_all(paths)
    for path, result in zip(paths, results, strict=True):
        assert (result.done is None) != (result.reason is None), path
        assert result.times_ms == sorted(set(result.times_ms))
    assert sum(len(result.frames) for result in results) > 50


ODD_NAMES = [b"-leading.mp4", b"new\nline.mp4", b"it's \"quoted\".mp4", b"<script>alert(1)<.mp4", b"100%d %s.mp4",
             "\N{GRINNING FACE}.mp4".encode(), b"not-utf8-\xff\xfe.mp4", b"http:x.mp4", b"a?b#c&d.mp4", b" .mp4"]  # fmt: skip


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_odd_file_names_are_just_names(tmp_path: Path, decoder: str) -> None:
    need(decoder)
    good = media.write_video(tmp_path / "good.mp4", frames=10)
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in ODD_NAMES]
    for path in paths:
        shutil.copy(good, path)
    for path, result in zip(paths, decode_all(paths, decoder=decoder), strict=True):
        assert result.barcodes == [0, 5], (path, result.reason)


def test_decord_gives_the_same_frames_where_it_can(tmp_path: Path) -> None:
    need("decord")
    path = media.write_video(tmp_path / "a.mp4", frames=50, size=(320, 180))
    ours, theirs = (decode_one(path, decoder=decoder) for decoder in ("pyav", "decord"))
    assert ours.times_ms == theirs.times_ms
    assert ours.barcodes == theirs.barcodes
    assert np.abs(np.stack(ours.frames).astype(int) - np.stack(theirs.frames)).mean() < 6
    assert theirs.done
    assert theirs.done.poster_jpeg


def test_decord_is_never_shown_a_playlist_and_its_failures_are_reasons(tmp_path: Path) -> None:
    need("decord")
    good = media.write_video(tmp_path / "good.mp4", frames=10)
    playlist = media.hls_playlist(tmp_path / "evil.mp4", good)
    gif = media.write_video(tmp_path / "a.gif", "gif", frames=10, pixels="rgb8")
    stream = media.write_video(tmp_path / "a.ts", frames=10)
    edited = media.edit(media.write_video(tmp_path / "edited.mp4", frames=100), skip_s=1, length_s=1)
    evil, animation, broadcast, cut, after = decode_all(
        [playlist, gif, stream, edited, good], decoder="decord"
    )
    assert evil.reason == "is a playlist (HLS), not a video; refused"
    assert animation.reason == "decord cannot open it; try --decoder pyav"
    assert broadcast.reason == "decord shows wrong pictures, or hangs, in mpegts; try --decoder pyav"
    assert cut.reason == "decord shows more than the file does, as with edit lists; try --decoder pyav"
    assert after.barcodes == [0, 5]


def need(decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")


# Supervision


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    return media.write_video(tmp_path / "long.mp4", "mpeg4", frames=1500, fps=25)


def children(pid: int | None = None) -> list[int]:
    """Decoder processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == (pid or os.getpid()) and b"decode.worker" in command:
            found.append(int(entry.name))
    return found


def first_chunk_then(pool: DecodePool, jobs: list[Path], do: Any) -> list[Result]:
    """Run; after the first chunk call `do` with the pid of the only child."""

    def events() -> Iterator[Event]:
        acted = False
        for event in pool.run(DecodeJob(i, path) for i, path in enumerate(jobs)):
            if not acted:
                acted = True
                do(children()[0])
            yield event

    return collect(events(), len(jobs))


@needs_proc
def test_a_hung_decoder_is_killed_what_it_gave_is_kept_and_the_run_goes_on(
    long_video: Path, tmp_path: Path
) -> None:
    good = media.write_video(tmp_path / "good.mp4", frames=10)
    with DecodePool(options(fps=25, stall_s=1.0, chunk_frames=8), 1) as pool:
        hung, after = first_chunk_then(pool, [long_video, good], lambda pid: os.kill(pid, signal.SIGSTOP))
    assert hung.done
    assert hung.done.partial
    assert "decoder hung for 1 s at " in hung.done.partial
    assert hung.barcodes == list(range(len(hung.frames)))
    assert len(hung.frames) >= 8
    assert after.barcodes == list(range(10))


@needs_proc
@pytest.mark.parametrize(
    ("blow", "words"),
    [(signal.SIGKILL, "decoder was killed (SIGKILL)"), (signal.SIGSEGV, "decoder crashed (SIGSEGV)")],
)
def test_a_crashed_decoder_leaves_a_partial_result_and_a_new_one_goes_on(
    long_video: Path, tmp_path: Path, blow: signal.Signals, words: str
) -> None:
    good = media.write_video(tmp_path / "good.mp4", frames=10)
    with DecodePool(options(fps=25, chunk_frames=8), 1) as pool:
        crashed, after = first_chunk_then(pool, [long_video, good], lambda pid: os.kill(pid, blow))
    assert crashed.done
    assert crashed.done.partial
    assert words in crashed.done.partial
    assert crashed.done.info.codec == "mpeg4"
    assert crashed.done.poster_jpeg
    assert after.barcodes == list(range(10))


def test_frames_that_come_in_small_pieces_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write_video(tmp_path / "a.mp4", "mpeg4", frames=40)
    whole = decode_one(path, fps=25)
    monkeypatch.setattr(decode_child, "_PIPE_BYTES", 4096)  # a frame has 27,648 bytes
    pieces = decode_one(path, fps=25)
    assert pieces.barcodes == list(range(40))
    assert np.array_equal(pieces.frames, whole.frames)
    assert pieces.done == whole.done


class _Posters:
    """A sink that keeps what it is told, and of pictures only their number."""

    def __init__(self, broken_after: int | None = None) -> None:
        self.told: list[str | bytes] = []
        self._broken_after = broken_after

    def info(self, info: Any) -> None: ...

    def progress(self, time_ms: int) -> None: ...

    def frame(self, time_ms: int, image: Any) -> None:
        self.told.append("frame")
        if len(self.told) == self._broken_after:
            raise MemoryError

    def poster(self, jpeg: bytes) -> None:
        self.told.append(jpeg)


def test_a_poster_is_drawn_when_it_is_chosen_or_early_should_the_decoder_crash(tmp_path: Path) -> None:
    short = media.write_video(tmp_path / "short.mp4", "mpeg4", frames=15)
    long = media.write_video(tmp_path / "long.mp4", "mpeg4", frames=60)
    whole, both, cut = _Posters(), _Posters(), _Posters(broken_after=3)
    decode(short, options(fps=25), whole)
    decode(long, options(fps=25), both)
    with pytest.raises(MemoryError):
        decode(short, options(fps=25), cut)
    assert [i for i, each in enumerate(whole.told) if each != "frame"] == [6]  # the frame at a third
    assert [i for i, each in enumerate(both.told) if each != "frame"] == [7, 22]
    assert cut.told[:3] == ["frame"] * 3
    assert isinstance(cut.told[3], bytes)


@needs_proc
def test_a_video_that_takes_too_long_is_given_up(long_video: Path) -> None:
    limits = options(fps=25, deadline_s=1.0, deadline_per_video_s=0.0, chunk_frames=8)
    with DecodePool(limits, 1) as pool:
        [late] = first_chunk_then(pool, [long_video], lambda pid: os.kill(pid, signal.SIGSTOP))
    assert late.done
    assert late.done.partial
    assert "decoding took longer than the 1 s that it may" in late.done.partial


def test_time_is_allowed_for_what_a_file_turns_out_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[decode_child.Child] = []

    class Noted(decode_child.Child):
        def __init__(self, memory_limit_bytes: int) -> None:
            super().__init__(memory_limit_bytes)
            children.append(self)

    monkeypatch.setattr(decode_pool, "Child", Noted)
    one = media.write_video(tmp_path / "a.ts", frames=50, size=(64, 48))
    path = tmp_path / "joined.ts"  # by its last clock, of 2 s
    path.write_bytes(one.read_bytes() * 5)
    [result] = decode_all([path], deadline_s=100.0, deadline_per_video_s=10.0)
    assert result.times_ms[-1] > 9000
    assert children[0].budget_s == pytest.approx(100 + result.times_ms[-1] / 100, abs=15)


@pytest.mark.parametrize(
    "error", [RuntimeError("Invalid data [swscaler]"), ValueError("pix_fmt"), KeyError(3)]
)
def test_no_word_of_the_decoders_gets_into_a_reason(error: Exception) -> None:
    from vsearch.indexer.decode.worker import _fault

    assert _fault(error, 1 << 30) == {
        "kind": "failed", "reason": "damaged: its decoder failed", "passing": False
    }  # fmt: skip


def test_a_slow_consumer_is_not_held_against_the_decoder(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", "mpeg4", frames=300)
    limits = options(fps=25, stall_s=3.0, deadline_s=3.0, deadline_per_video_s=0, chunk_frames=20)
    with DecodePool(limits, 1) as pool:
        events = pool.run([DecodeJob(0, path)])
        first = next(events)
        time.sleep(3.3)  # longer than both limits, with most of the video still to come
        [result] = collect([first, *events], 1)
    assert result.done
    assert result.done.partial is None
    assert result.barcodes == list(range(300))


def test_chunks_depend_on_the_video_alone_and_jobs_are_taken_as_needed(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", "mpeg4", frames=70)
    taken = 0

    def jobs() -> Iterator[DecodeJob]:
        nonlocal taken
        for i in range(40):
            taken += 1
            yield DecodeJob(i, path)

    sizes: dict[int, list[int]] = {}
    with DecodePool(options(fps=25, chunk_frames=32), 2) as pool:
        for count, event in enumerate(pool.run(jobs())):
            if isinstance(event, FrameChunk):
                sizes.setdefault(event.job_id, []).append(len(event.frames))
                assert event.frames.dtype == np.uint8
                assert event.times_ms.dtype == np.int64
            if count == 0:
                assert taken <= 4
    assert sizes == {i: [32, 32, 6] for i in range(40)}


@needs_proc
def test_a_decoder_process_is_replaced_after_its_share_of_videos(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", "mpeg4", frames=10)
    seen: list[int] = []
    with DecodePool(options(videos_per_process=2), 1) as pool:
        for _ in range(4):  # one run each, so that a look at the child falls between two jobs
            list(pool.run([DecodeJob(0, path)]))
            seen += children()
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert children() == []


@needs_proc
def test_closing_kills_busy_and_hung_children_at_once(long_video: Path) -> None:
    pool = DecodePool(options(fps=25, chunk_frames=8), 2)
    events = pool.run(DecodeJob(i, long_video) for i in range(4))
    next(events)
    pids = children()
    assert pids
    os.kill(pids[0], signal.SIGSTOP)
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@needs_proc
def test_closing_does_not_wait_for_a_child_that_is_still_starting(long_video: Path) -> None:
    pool = DecodePool(options(), 1)
    consumer = threading.Thread(target=lambda: list(pool.run([DecodeJob(0, long_video)])))
    consumer.start()
    while not (pids := children()):
        time.sleep(0.001)
    os.kill(pids[0], signal.SIGSTOP)
    pool.close()
    consumer.join(timeout=20)
    assert not consumer.is_alive()
    assert not Path(f"/proc/{pids[0]}").exists()


@needs_proc
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_decoders_end_with_their_parent(long_video: Path, end: signal.Signals) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from vsearch.indexer.decode import DecodeJob, DecodeOptions, DecodePool\n"
        "with DecodePool(DecodeOptions(fps=25), 1) as pool:\n"
        f"    for event in pool.run(DecodeJob(i, Path({str(long_video)!r})) for i in range(99)):\n"
        "        print('going', flush=True)\n"
        "        time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background test runs
    )
    assert parent.stdout
    assert parent.stdout.readline() == b"going\n"
    pids = children(parent.pid)
    assert pids
    parent.send_signal(end)
    parent.wait(timeout=10)
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_decoder_that_needs_too_much_memory_says_so(tmp_path: Path) -> None:
    big = media.write_video(tmp_path / "big.mp4", "mpeg4", frames=2, size=(8000, 7984))
    good = media.write_video(tmp_path / "good.mp4", frames=10)
    # Measured: the small one needs 350 MB of address space, the big one 600.
    needy, after = decode_all([big, good], memory_limit_bytes=460_000_000)
    assert needy.reason
    assert "needs more" in needy.reason
    assert after.barcodes == [0, 5]


def test_decoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = media.write_video(tmp_path / "a.mp4", frames=100, muxer={"movflags": "faststart"})
    damaged = [media.bit_flipped(tmp_path / f"{i}.mp4", whole, flips=40, seed=i) for i in range(3)]
    capfd.readouterr()
    decode_all([*damaged, media.truncated(tmp_path / "cut.mp4", whole)])
    assert capfd.readouterr() == ("", "")


def test_a_module_in_the_working_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write_video(tmp_path / "a.mp4", frames=10)
    (tmp_path / "av.py").write_text("raise SystemExit('imported')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert decode_one(Path("a.mp4")).barcodes == [0, 5]


def test_decoders_that_cannot_start_end_the_run_with_a_word(tmp_path: Path) -> None:
    with pytest.raises(VsearchError, match="the decoder process does not start"):
        decode_one(tmp_path / "a.mp4", memory_limit_bytes=60_000_000)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="no such decoder"):
        DecodePool(options(decoder="cv2"), 1)
    with pytest.raises(ValueError, match="no such frame shape"):
        FrameShape(224, "stretch")
