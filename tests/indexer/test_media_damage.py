"""Damage in the middle of a file: times are right, or a sentence says that part of the file could not be read."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import media
from vsearch.errors import MediaError
from vsearch.indexer.decode import DecodeOptions, FrameShape, open_pyav

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


class Seen(NamedTuple):
    off_s: list[float]  # what was shown too late or too early by more than half a second
    pictures: int
    word: str | None


def seen(path: Path, fps: int = 10) -> Seen:
    source = open_pyav(path, DecodeOptions(fps=25.0, shape=FrameShape(96)))
    off_s, pictures, end_s = [], 0, 0.0
    for shown in source.frames(lambda: 0.0):
        number, end_s, pictures = media.read_barcode(shown.image), shown.end_s, pictures + 1
        if number != media.BROKEN_BARCODE and abs(shown.start_s - number / fps) > 0.5:
            off_s.append(shown.start_s - number / fps)
    source.close()
    return Seen(off_s, pictures, source.damage(end_s))


def removed(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * 2 // 5] + data[len(data) * 2 // 5 + int(len(data) * share) :]


def zeroed(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * 2 // 5] + bytes(count) + data[len(data) * 2 // 5 + count :]


def half_of_its_sectors(data: bytes) -> bytes:
    first, last = len(data) * 2 // 5, len(data) * 3 // 5
    middle = b"".join(data[at : at + 2048] for at in range(first, last, 4096))
    return data[:first] + middle + data[last:]


def noise_at_the_end(data: bytes) -> bytes:
    keep = len(data) * 4 // 5
    return data[:keep] + random.Random(1).randbytes(len(data) - keep)


DAMAGED = {
    "avi, bytes removed": ("a.avi", "mpeg4", {}, removed(0.2)),
    "avi of H.264, bytes removed": ("a.avi", "libx264", {}, removed(0.1)),
    "avi with sound, bytes removed": ("a.avi", "mpeg4", {"audio_s": 15.0}, removed(0.02)),
    "wmv, a hole over some packets": ("a.wmv", "wmv2", {}, zeroed(4096)),
    "wmv, a hole inside a packet": ("a.wmv", "wmv2", {}, zeroed(1500)),
    "mpg, half of the sectors removed": ("a.mpg", "mpeg2video", {"fps": 25}, half_of_its_sectors),
    "gif, bytes removed": ("a.gif", "gif", {"pixels": "rgb8"}, removed(0.2)),
    "gif, a hole": ("a.gif", "gif", {"pixels": "rgb8"}, zeroed(4096)),
    "mp4 with its index behind, bytes removed": ("a.mp4", "libx264", {}, removed(0.1)),
    "fragmented mp4, bytes removed": ("a.mp4", "libx264", {"muxer": FRAGMENTED}, removed(0.1)),
    "fragmented mp4 with sound, few bytes removed": (
        "a.mp4", "libx264", {"muxer": FRAGMENTED, "audio_s": 15.0}, removed(0.0004)
    ),
    "ts, noise to the end": ("a.ts", "mpeg2video", {}, noise_at_the_end),
}  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "more", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_read_is_told(
    name: str, codec: str, more: dict[str, object], damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    made = {"fps": 10, **more}
    fps = int(str(made["fps"]))
    path = media.write_video(tmp_path / name, codec, frames=15 * fps, gop=10, **made)  # type: ignore[arg-type]
    whole = seen(path, fps)
    assert (whole.off_s, whole.pictures, whole.word) == ([], 15 * fps, None)
    path.write_bytes(damage(path.read_bytes()))
    if name == "a.mp4" and not more:
        with pytest.raises(MediaError, match="damaged: no index"):
            seen(path, fps)
    else:
        assert seen(path, fps).word


def test_times_after_a_gap_in_an_avi_are_not_promised(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.avi", "mpeg4", frames=150, fps=10, gop=10)
    path.write_bytes(removed(0.2)(path.read_bytes()))
    left = seen(path)
    assert left.off_s
    assert left.word
    assert left.word.startswith("damaged: part of it could not be read at ")
    assert left.word.endswith(" s, and times after that may be too early")


def tags(flv: bytes) -> list[int]:
    """Where the tags of an FLV file begin."""
    found, at = [], 13
    while at < len(flv):
        found.append(at)
        at += 15 + int.from_bytes(flv[at + 1 : at + 4], "big")
    return found


def with_sound(flv: bytes, at: int) -> bytes:
    """A tag of MP3 sound put in before the one that begins at `at`."""
    sound = b"\x22" + bytes(416)
    tag = b"\x08" + len(sound).to_bytes(3, "big") + flv[at + 4 : at + 8] + bytes(3) + sound
    return flv[:at] + tag + len(tag).to_bytes(4, "big") + flv[at:]


def test_an_flv_tag_that_swallows_the_rest_is_told(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.flv", "flv", frames=150, fps=10, gop=10)
    data = path.read_bytes()
    data = with_sound(data, tags(data)[3])
    size = tags(data)[75] + 1
    path.write_bytes(data[:size] + b"\xff" + data[size + 1 :])
    left = seen(path)
    assert left.pictures < 140
    assert left.word == "damaged: nothing after 7.4 s could be read"


def test_sound_that_begins_late_in_an_flv_is_no_fault(tmp_path: Path) -> None:
    """Its header does not name it, so FFmpeg finds a stream that was not there."""
    path = media.write_video(tmp_path / "a.flv", "flv", frames=600, fps=10, gop=10, size=(320, 240))
    data = path.read_bytes()
    path.write_bytes(with_sound(data, tags(data)[400]))
    assert seen(path) == Seen([], 600, None)


def test_gifs_joined_end_to_end_and_padded_are_whole(tmp_path: Path) -> None:
    one = media.write_video(tmp_path / "a.gif", "gif", frames=20, fps=10, pixels="rgb8").read_bytes()
    joined = tmp_path / "b.gif"
    joined.write_bytes(one + one + bytes(100))
    assert seen(joined).word is None


def test_interlaced_mpeg_2_is_whole(tmp_path: Path) -> None:
    for height in (120, 144):
        path = media.write_video(
            tmp_path / f"{height}.mpg", "mpeg2video", frames=50, fps=25, size=(160, height),
            encoder={"flags": "+ilme+ildct"},
        )  # fmt: skip
        assert seen(path, 25).word is None
