"""Clips: what is on screen at a time in the file is in the clip at that time, and nothing is overwritten."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests import media
from tests.conftest import Vsearch
from vsearch.errors import MediaError, VsearchError
from vsearch.indexer import clip as clip_module
from vsearch.indexer import export_clip
from vsearch.indexer.clip import Cut, cut


class Made(NamedTuple):
    """A clip as read back: (seconds, number) of each picture, the first one's frame, and streams."""

    pictures: list[tuple[float, int]]
    frame: Any
    duration_s: float
    sound: tuple[int, int, float] | None  # rate, channels, seconds
    cut: Cut

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.pictures]


def make(source: Path, start_ms: int, end_ms: int, turns: int = 0) -> Made:
    target = source.with_name("made.mp4")
    done = cut(source, os.fspath(target), start_ms, end_ms)
    return read(target, done, turns)


def read(path: Path, done: Cut, turns: int = 0) -> Made:
    import av

    with av.open(str(path)) as file:
        frames = list(file.decode(file.streams.video[0]))
        pictures = [(float(f.pts * f.time_base), number_of(f, turns)) for f in frames]
        duration_s = (file.duration or 0) / 1e6
        sound = next(iter(file.streams.audio), None)
        heard = None
    if sound is not None:
        with av.open(str(path)) as file:
            blocks = list(file.decode(file.streams.audio[0]))
            samples = sum(b.samples for b in blocks)
            heard = (
                blocks[0].sample_rate,
                len(blocks[0].layout.channels),
                samples / blocks[0].sample_rate,
            )
    return Made(pictures, frames[0], duration_s, heard, done)


def number_of(frame: Any, turns: int = 0) -> int:
    image = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return media.read_barcode(image[top : top + side, left : left + side])


# Pictures and times


def test_with_sound_a_clip_has_the_size_of_its_source(tmp_path: Path) -> None:
    made = make(media.write_video(tmp_path / "a.mp4", size=(640, 360), audio_s=2.4), 1000, 2000)
    assert (made.frame.width, made.frame.height) == (640, 360)
    assert made.numbers == list(range(25, 50))
    assert made.sound is not None
    assert made.duration_s == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_irregular_times_are_kept_to_the_millisecond(tmp_path: Path, name: str) -> None:
    times = [0, 0.03, 0.08, 0.5, 0.51, 1.2, 2.0, 2.1, 2.7, 4.0]
    made = make(media.write_video(tmp_path / name, times=times, audio_s=5), 1000, 3000)
    assert made.numbers == [4, 5, 6, 7, 8]
    assert [t for t, _ in made.pictures] == pytest.approx([0, 0.2, 1.0, 1.1, 1.7], abs=0.0011)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_inside_a_held_picture_a_clip_shows_it_all_the_time(tmp_path: Path, name: str) -> None:
    times = [0, 10, 20, 20.04, 20.08, 20.12, 20.16, 20.2, 30, 40]
    source = media.write_video(tmp_path / name, times=times)
    held = make(source, 12_000, 18_000)
    assert held.numbers == [1]
    assert held.duration_s == pytest.approx(6, abs=0.01)
    across = make(source, 15_000, 25_000)
    assert across.numbers == [1, 2, 3, 4, 5, 6, 7]
    assert across.pictures[0][0] == 0
    assert across.pictures[1][0] == pytest.approx(5, abs=0.002)
    assert across.duration_s == pytest.approx(10, abs=0.01)
    assert make(source, 41_000, 42_000).numbers == [9]


def test_avi_with_b_pictures_is_in_order_and_complete(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "a.avi", "mpeg4", frames=50, encoder={"bf": "2"})
    assert make(source, 400, 1000).numbers == list(range(10, 25))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_an_offset_clock_begins_at_zero(tmp_path: Path, name: str) -> None:
    assert make(media.write_video(tmp_path / name, start_s=5), 1000, 1200).numbers == [25, 26, 27, 28, 29]


def test_joined_files_are_cut_behind_the_joint(tmp_path: Path) -> None:
    part = media.write_video(tmp_path / "part.ts", frames=50, start_s=30, audio_s=0)
    other = media.write_video(tmp_path / "other.ts", frames=25, gop=25)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() + other.read_bytes())
    assert make(joined, 2200, 2400).numbers == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_clip_late_in_a_file_reads_as_few_pictures_as_one_at_its_start(tmp_path: Path, name: str) -> None:
    source = media.write_video(tmp_path / name, frames=1500)
    early, late = make(source, 1000, 1400), make(source, 55_000, 55_400)
    assert late.numbers == list(range(1375, 1385))
    assert late.cut.read <= early.cut.read + 2 * 12


# Shape and colour


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_pictures_are_upright(tmp_path: Path, degrees: int) -> None:
    source = media.rotate(media.write_video(tmp_path / "a.mp4"), degrees)
    made = make(source, 400, 800, degrees // 90)
    assert made.numbers == list(range(10, 20))
    assert (made.frame.width, made.frame.height) == ((160, 120) if degrees == 180 else (120, 160))


def test_mirrored_pictures_are_mirrored(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "a.mp4")
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", -(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    frame = make(source, 400, 800).frame
    image = frame.to_ndarray(format="rgb24")[:, ::-1]
    assert media.read_barcode(image[:, 20:140]) == 10


def test_pixels_become_square(tmp_path: Path) -> None:
    import av

    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for number in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(media.picture(number), format="rgb24")))
        out.mux(stream.encode(None))
    frame = make(source, 0, 400).frame
    assert (frame.width, frame.height) == (240, 120)


@pytest.mark.parametrize("size", [(2, 2), (17, 33), (161, 121), (4096, 2), (2, 600)])
def test_every_size_works(tmp_path: Path, size: tuple[int, int]) -> None:
    source = media.write_video(tmp_path / "a.mkv", "ffv1", size=size, frames=10, pixels="yuv444p")
    made = make(source, 0, 400)
    assert (made.frame.width, made.frame.height) == (size[0] // 2 * 2, size[1] // 2 * 2)
    assert len(made.pictures) == 10


@pytest.mark.parametrize("pixels", ["yuv444p", "yuva420p", "yuv420p10le", "bgra", "gray", "yuv422p"])
def test_every_kind_of_pixels_works(tmp_path: Path, pixels: str) -> None:
    source = media.write_video(tmp_path / "a.mkv", "ffv1", frames=10, pixels=pixels)
    assert make(source, 80, 320).numbers == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("matrix", "primaries", "transfer", "levels"), [(9, 9, 16, 1), (9, 9, 18, 1), (1, 1, 1, 2), (5, 5, 6, 1)]
)
def test_colour_tags_and_range_are_carried(
    tmp_path: Path, matrix: int, primaries: int, transfer: int, levels: int
) -> None:
    import av

    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        codec = stream.codec_context
        codec.colorspace, codec.color_primaries, codec.color_trc = matrix, primaries, transfer
        codec.color_range = levels
        for _ in range(10):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for plane, value in zip(frame.planes, (60, 100, 180), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    frame = make(source, 0, 400).frame
    with av.open(str(tmp_path / "made.mp4")) as made:
        codec = made.streams.video[0].codec_context
        tags = codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range
    assert tags == (matrix, primaries, transfer, levels)
    values = [np.frombuffer(plane, np.uint8)[0] for plane in frame.planes]
    assert values == pytest.approx([60, 100, 180], abs=2)


# Sound


@pytest.mark.parametrize(
    ("rate", "layout"),
    [
        (192_000, "stereo"),
        (22_254, "mono"),
        (4000, "mono"),
        (8000, "stereo"),
        (44_100, "5.1"),
        (48_000, "2.1"),
    ],
)
def test_sound_of_any_rate_and_layout_is_in_time_with_the_pictures(
    tmp_path: Path, rate: int, layout: str
) -> None:
    source = _with_click(tmp_path / "a.mkv", [(rate, layout, 2.4)], click_s=1.5)
    made = make(source, 1000, 2000)
    assert made.numbers == list(range(25, 50))
    assert made.sound is not None
    assert made.sound[2] == pytest.approx(1, abs=0.03)
    assert _click(tmp_path / "made.mp4") == pytest.approx(0.5, abs=0.01)
    assert made.cut.word is None


def test_sound_behind_a_hole_is_in_time(tmp_path: Path) -> None:
    source = _with_click(tmp_path / "a.mkv", [(48_000, "mono", 0.5)], click_s=1.5, resume_s=1.3)
    assert make(source, 0, 2000).numbers == list(range(50))
    assert _click(tmp_path / "made.mp4") == pytest.approx(1.5, abs=0.01)


def test_sound_that_changes_its_rate_and_layout_where_a_clock_starts_again_is_in_time(tmp_path: Path) -> None:
    """Pictures and sound are both behind the joint, by the same clock."""
    parts = [
        _with_click(tmp_path / "1.ts", [(48_000, "mono", 2.4)], click_s=9, codec="mp2"),
        _with_click(tmp_path / "2.ts", [(44_100, "stereo", 2.4)], click_s=1.0, codec="mp2"),
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    made = make(joined, 2600, 4600)
    joint_s = made.pictures[1][0] - made.numbers[1] / 25  # where picture 0 of the second part lies
    assert made.numbers == list(range(made.numbers[0], made.numbers[0] + len(made.numbers)))
    assert len(made.numbers) in (50, 51)  # the first one may have been on screen before
    assert made.cut.word is None
    assert _click(tmp_path / "made.mp4") == pytest.approx(joint_s + 1.0, abs=0.06)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.flv"])
def test_behind_a_joint_with_a_header_sound_is_in_time(tmp_path: Path, name: str) -> None:
    codec = "aac" if name != "a.mkv" else None
    parts = [
        _with_click(tmp_path / f"{i}{name}", [(44_100, "mono", 2.4)], click_s=at_s, codec=codec)
        for i, at_s in enumerate([0.3, 1.5, 0.3])
    ]
    joined = tmp_path / name
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    made = make(joined, 3440, 4640)
    begin_s = made.pictures[1][0] - made.numbers[1] / 25  # of the second part
    assert made.numbers == list(range(made.numbers[0], made.numbers[0] + len(made.numbers)))
    assert made.cut.word is None
    assert _click(tmp_path / "made.mp4") == pytest.approx(begin_s + 1.5, abs=0.06)
    made = make(joined, 1960, 2840)
    assert 59 in made.numbers
    assert made.numbers[-1] < 12
    assert made.cut.word is not None
    assert made.cut.word.startswith("part of its sound is left out")


@pytest.mark.parametrize("start_ms", [200, 1200])
@pytest.mark.parametrize("late_s", [0.0, 0.4])
def test_sound_is_in_time_where_a_counter_wraps(tmp_path: Path, start_ms: int, late_s: float) -> None:
    """`late_s`: how much later pictures begin than sound, which is 0:00."""
    import av

    path, wrapping = tmp_path / "a.ts", tmp_path / "wrapping.ts"
    click_s = start_ms / 1000 + 0.5
    _with_click(path, [(48_000, "stereo", 3.0)], click_s=click_s, codec="mp2")
    with av.open(str(path)) as file, av.open(str(wrapping), "w") as out:
        streams = {each.index: out.add_stream_from_template(each) for each in file.streams}
        offset = 2**33 - 90_000 - file.start_time * 9 // 100  # the wrap is at 1 s
        for packet in file.demux():
            if packet.dts is not None:
                later = offset + (round(late_s * 90_000) if packet.stream.type == "video" else 0)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    made = make(wrapping, start_ms, start_ms + 1000)
    first = round((start_ms / 1000 - late_s) * 25)
    assert abs(made.numbers[0] - max(0, first)) <= 1
    assert made.numbers == list(range(made.numbers[0], made.numbers[-1] + 1))
    assert _click(tmp_path / "made.mp4") == pytest.approx(0.5, abs=0.06)


def test_sound_that_cannot_be_decoded_costs_no_picture_and_is_told(tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "a.mkv", audio_s=2.4)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    made = make(source, 1000, 2000)
    assert made.numbers == list(range(25, 50))
    assert made.sound is None
    assert made.cut.word is not None
    assert made.cut.word.startswith("without sound")


def test_sound_of_avi_in_mp3_whose_stamps_repeat_is_kept(tmp_path: Path) -> None:
    source = _with_click(
        tmp_path / "a.avi", [(44_100, "stereo", 2.4)], click_s=1.5, codec="libmp3lame", video="mpeg4"
    )
    made = make(source, 1000, 2000)
    first = made.numbers[0]  # the muxer may begin pictures a little later, for the sound's padding
    assert first in (24, 25)
    assert made.numbers == list(range(first, first + 25))
    assert _click(tmp_path / "made.mp4") == pytest.approx(0.5, abs=0.06)


def _with_click(
    path: Path,
    parts: list[tuple[int, str, float]],
    *,
    click_s: float,
    resume_s: float | None = None,
    codec: str | None = None,
    video: str = "libx264",
) -> Path:
    """A video of 60 pictures at 25 a second whose sound is silent but for 20 ms at `click_s`."""
    import av

    rate, layout, seconds = parts[0]
    codec = codec or ("pcm_s16le")
    media.need_encoder(codec)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(video, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        sound: Any = out.add_stream(codec, rate=rate)
        sound.codec_context.layout = layout
        # raw and MP2 take it interleaved
        format = {"libmp3lame": "s16p", "aac": "fltp"}.get(codec, "s16")
        sound.codec_context.format = format
        channels = len(av.AudioLayout(layout).channels)
        for number in range(60):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(media.picture(number), format="rgb24")))
        out.mux(stream.encode(None))
        step = max(1, rate // 50)
        starts = list(range(0, round(seconds * rate) - step, step))
        if resume_s is not None:
            starts += [round(resume_s * rate) + i * step for i in range(50)]
        for first in starts:
            times = (first + np.arange(step)) / rate
            on = (times >= click_s) & (times < click_s + 0.02)
            wave = np.where(on, 20_000 * np.sign(np.sin(times * 2 * np.pi * 900) + 1e-9), 0).astype(np.int16)
            both = np.repeat(wave[None], channels, 0)
            block = both if format != "s16" else np.ascontiguousarray(both.T).reshape(1, -1)
            if format == "fltp":
                block = (block / 32_768).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block, format=format, layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def _click(path: Path) -> float:
    """When it gets loud, in seconds."""
    import av

    with av.open(str(path)) as file:
        for frame in file.decode(file.streams.audio[0]):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
            if len(loud):
                return float(frame.pts * frame.time_base) + loud[0] / frame.sample_rate
    raise AssertionError("no click")


# The file to write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return media.write_video(tmp_path / "video.mp4", frames=25)


def test_no_video_of_the_library_is_ever_overwritten(tmp_path: Path, source: Path, monkeypatch: Any) -> None:
    other = media.write_video(tmp_path / "other.mp4", frames=10)
    content = source.read_bytes(), other.read_bytes()
    (tmp_path / "soft.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(other)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("video.mp4", "other.mp4", "soft.mp4", "hard.mp4", "sub/../other.mp4", "./video.mp4"):
        for target in (Path(name), tmp_path / name):
            with pytest.raises(VsearchError, match="a video of the library"):
                export_clip(source, target, 0, 400, overwrite=True, held=[other])
    assert (source.read_bytes(), other.read_bytes()) == content
    assert (tmp_path / "soft.mp4").is_symlink()


def test_the_verb_guards_every_video_of_the_catalogue(
    tmp_path: Path, source: Path, vsearch: Vsearch, tiny_model: Path
) -> None:
    other = media.write_video(tmp_path / "other.mp4", frames=10)
    content = other.read_bytes()
    assert vsearch("index", source, other, "--model", tiny_model).returncode == 0
    done = vsearch("clip", source, "--start", "0", "--end", "0.4", "-o", "other.mp4", "-f")
    assert done.returncode == 2
    assert "a video of the library" in done.stderr
    assert other.read_bytes() == content
    before = set(os.listdir(tmp_path))
    assert vsearch("clip", source, "--start", "0", "--end", "0.4", "-o", "new.mp4").returncode == 0
    assert set(os.listdir(tmp_path)) - before == {"new.mp4"}
    long = tmp_path / ("x" * 250 + ".mp4")
    source.rename(long)
    assert vsearch("index", long, "--model", tiny_model).returncode == 0
    done = vsearch("clip", long, "--start", "0", "--end", "0.4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip()).is_file()


def test_a_target_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, source: Path, monkeypatch: Any
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VsearchError, match="is a folder"):
        export_clip(source, tmp_path / "folder.mp4", 0, 400, overwrite=True)
    with pytest.raises(VsearchError, match="the name is too long"):
        export_clip(source, tmp_path / ("y" * 300 + ".mp4"), 0, 400)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(VsearchError, match="the disk is read-only"):
        export_clip(source, tmp_path / "c.mp4", 0, 400)
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    source = media.write_video(tmp_path / "a.mp4", frames=50, size=(640, 480), audio_s=2)
    with pytest.raises(VsearchError, match="the disk is full"):
        cut(source, "/dev/full", 0, 2000)


def test_what_cannot_be_cut_is_told_without_internal_words(tmp_path: Path) -> None:
    junk = tmp_path / "a.mp4"
    junk.write_bytes(b"\0\0\0\x18ftypisom" + os.urandom(5000))
    with pytest.raises(MediaError) as told:
        export_clip(junk, tmp_path / "c.mp4", 0, 1000)
    for word in (".part", "returned", "avcodec", "Error", "Invalid", "["):
        assert word not in str(told.value)
    assert not list(tmp_path.glob("*c.mp4"))
    assert not list(tmp_path.glob(".*"))


def test_the_deadline_does_not_depend_on_where_the_clip_lies(source: Path, monkeypatch: Any) -> None:
    deadlines: list[float] = []

    def note(*_: object, deadline_s: float, **__: object) -> None:
        deadlines.append(deadline_s)
        raise clip_module.process.Overdue

    monkeypatch.setattr(clip_module.process, "run", note)
    for start_ms, end_ms in [(0, 1000), (3_600_000, 3_601_000), (0, 60_000)]:
        with pytest.raises(MediaError, match="gave up"):
            export_clip(source, source.with_name("c.mp4"), start_ms, end_ms)
    assert deadlines[0] == deadlines[1] < deadlines[2]


@pytest.mark.slow
def test_a_clip_that_is_ended_from_outside_leaves_nothing(
    tmp_path: Path, vsearch: Vsearch, tiny_model: Path
) -> None:
    source = media.write_video(tmp_path / "video.mp4", frames=750)
    assert vsearch("index", source, "--model", tiny_model).returncode == 0
    before = set(os.listdir(tmp_path))
    environment = {**os.environ, "VSEARCH_LIBRARY": str(tmp_path / "library")}
    command = [
        sys.executable,
        "-m",
        "vsearch",
        "clip",
        os.fspath(source),
        "-o",
        os.fspath(tmp_path / "c.mp4"),
    ]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".*.part.mp4")):
        assert running.poll() is None, "it ended before it was asked to"
        time.sleep(0.01)
    running.terminate()
    assert running.wait(60) == 130
    assert set(os.listdir(tmp_path)) == before
