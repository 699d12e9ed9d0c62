"""The one source of pictures and times: clocks, seeking, honesty about damage. In process, picture by picture."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import media
from vsearch.errors import MediaError
from vsearch.indexer.decode import DecodeOptions, FrameShape, PyavSource, open_pyav

SMALL = (64, 48)


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


def everything(path: Path, **changes: Any) -> tuple[list[float], list[int], Any]:
    """(times, numbers of the pictures, the source, closed) of all pictures."""
    source = open_pyav(path, options(**changes))
    times, numbers = [], []
    for shown in source.frames(lambda: 0.0):
        times.append(round(shown.start_s, 3))
        numbers.append(media.read_barcode(shown.image))
    source.close()
    return times, numbers, source


# Clocks

WRAP_S = 2**33 / 90_000


@pytest.mark.parametrize("b_pictures", ["0", "2"])
def test_h264_in_avi_begins_at_zero(tmp_path: Path, b_pictures: str) -> None:
    """FFmpeg guesses times from the number of pictures that may be out of order; the file has none but of decoding."""
    path = media.write_video(tmp_path / "a.avi", frames=25, encoder={"bf": b_pictures})
    times, numbers, source = everything(path)
    assert (times, numbers) == ([round(i / 25, 3) for i in range(25)], list(range(25)))
    assert source.duration_ms(times[-1] + 0.04) == 1000


JOINED = [("a.ts", "libx264"), ("a.flv", "libx264"), ("a.mpg", "mpeg2video"), ("a.ogv", "libvpx")]


@pytest.mark.parametrize("seconds", [0.4, 3.0])
@pytest.mark.parametrize(("name", "codec"), JOINED, ids=[name for name, _ in JOINED])
def test_a_clock_that_starts_again_keeps_everything_after_it(
    tmp_path: Path, name: str, codec: str, seconds: float
) -> None:
    count = round(25 * seconds)
    one = media.write_video(tmp_path / name, codec, frames=count)
    whole = everything(one)[1]
    joined = tmp_path / f"joined-{name}"
    data = one.read_bytes()
    joined.write_bytes(data + 2 * data[13 if name == "a.flv" else 0 :])  # FLV: without its header
    times, numbers, source = everything(joined)
    assert numbers == whole * 3
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert all(0.02 < step < 0.17 for step in steps)
    covered_s = times[-1] + 0.04
    assert source.damage(covered_s) is None
    assert abs(covered_s - 3 * len(whole) / 25) < 0.3
    assert source.duration_ms(covered_s) == round(covered_s * 1000)


@pytest.mark.parametrize("before_s", [1.0, 100.0])
def test_a_counter_that_wraps_goes_on(tmp_path: Path, before_s: float) -> None:
    """The 33 bits of MPEG clocks; FFmpeg tells wraps within a minute from the beginning by negative times."""
    shown_s = [0.0, 0.04, *(round(before_s - 1 + i / 25, 3) for i in range(10, 50))]
    path = media.write_video(tmp_path / "a.ts", times=shown_s, start_s=WRAP_S - before_s)
    times, numbers, source = everything(path)
    assert numbers == list(range(len(shown_s)))
    assert times == pytest.approx(shown_s, abs=0.002)
    assert source.damage(times[-1] + 0.04) is None
    late = open_pyav(path, options())
    *_, last = upto(late, times[-5])
    assert (round(last.start_s, 3), media.read_barcode(last.image)) == (times[-5], numbers[-5])
    late.close()


BLU_RAY = {"format": "mpegts", "muxer": {"mpegts_m2ts_mode": "1"}}
LARGE = {"size": (640, 480), "encoder": {"b": "8M"}}  # pictures that fill packets of their own
BROADCAST: list[tuple[str, str, dict[str, Any]]] = [
    ("a.ts", "libx264", {}),
    ("sound.ts", "libx264", {"audio_s": 112.0}),
    ("a.m2ts", "libx264", BLU_RAY),
    ("a.mpg", "mpeg2video", LARGE),
    ("one.mpg", "mpeg1video", LARGE),
]


@pytest.mark.parametrize(("name", "codec", "how"), BROADCAST, ids=[name for name, _, _ in BROADCAST])
@pytest.mark.parametrize("gop", [1, 12])
def test_a_picture_that_is_held_for_long_is_no_clock_that_starts_again(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any], gop: int
) -> None:
    shown_s = [0, 0.04, 0.08, 50, 50.04, 110, 110.04, 110.08]
    path = media.write_video(tmp_path / name, codec, times=shown_s, gop=gop, **how)
    times, numbers, source = everything(path)
    assert numbers == list(range(8))
    assert times == pytest.approx(shown_s, abs=0.03)
    assert source.damage(times[-1] + 0.04) is None


@pytest.mark.parametrize(("name", "codec", "how"), BROADCAST, ids=[name for name, _, _ in BROADCAST])
def test_a_clock_that_leaps_forward_where_files_are_joined_goes_on(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    how = {**how, "audio_s": 0.0}
    one = media.write_video(tmp_path / name, codec, frames=25, **how).read_bytes()
    later = media.write_video(tmp_path / f"later-{name}", codec, frames=25, start_s=100, **how).read_bytes()
    path = tmp_path / f"joined-{name}"
    path.write_bytes(one + later)
    times, numbers, _ = everything(path)
    assert numbers == [*range(25), *range(25)]
    assert all(0.02 < b - a < 0.17 for a, b in itertools.pairwise(times))


WITH_HEADERS: list[tuple[str, str, dict[str, Any]]] = [
    ("a.flv", "libx264", {}),
    ("a.mkv", "libx264", {}),
    ("a.webm", "libvpx", {}),
    ("a.mp4", "libx264", {}),
    ("faststart.mp4", "libx264", {"muxer": {"movflags": "faststart"}}),
    ("fragmented.mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("live.mkv", "libx264", {"muxer": {"live": "1"}}),
    ("a.wmv", "wmv2", {}),
    ("a.avi", "mpeg4", {}),
    ("a.gif", "gif", {"pixels": "rgb8"}),
]


@pytest.mark.parametrize(("name", "codec", "how"), WITH_HEADERS, ids=[name for name, _, _ in WITH_HEADERS])
def test_files_joined_with_their_headers_are_read_to_the_end_of_the_last(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    one = media.write_video(tmp_path / name, codec, frames=60, size=SMALL, **how)
    whole = everything(one)[1]
    joined = tmp_path / f"joined-{name}"
    joined.write_bytes(one.read_bytes() * 3)
    times, numbers, source = everything(joined)
    assert numbers == whole * 3
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert all(0.02 < step < 0.17 for step in steps)
    covered_s = times[-1] + 0.04
    assert source.damage(covered_s) is None
    assert source.duration_ms(covered_s) == round(1000 * covered_s)
    late = open_pyav(joined, options())
    *_, last = upto(late, times[-20])
    assert (round(last.start_s, 3), media.read_barcode(last.image)) == (times[-20], numbers[-20])
    late.close()
    looking = open_pyav(joined, options(keyframes_every_s=0.4))
    looks = [(round(each.start_s, 3), media.read_barcode(each.image)) for each in looking.keyframes(0.4)]
    looking.close()
    assert set(looks) <= set(zip(times, numbers, strict=True))
    if name != "a.gif":  # whose reader finds no keyframe but the first
        assert looks[-1][0] > times[-1] - 1.2


@pytest.mark.parametrize("name", ["a.flv", "a.mkv", "a.mp4", "a.wmv"])
def test_damage_in_one_of_the_files_joined_is_told_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    codec = "wmv2" if name == "a.wmv" else "libx264"
    one = media.write_video(tmp_path / name, codec, frames=50, size=SMALL).read_bytes()
    other = media.write_video(tmp_path / f"other-{name}", codec, frames=100, size=media.SIZE).read_bytes()
    path = tmp_path / f"joined-{name}"
    path.write_bytes(one + other)
    times, numbers, source = everything(path)
    assert numbers == [*range(50), *range(100)]
    assert source.damage(times[-1] + 0.04) is None
    for cut in (other + one[: len(one) * 7 // 10], one[: len(one) * 7 // 10] + other):
        path.write_bytes(one + cut)
        times, _, source = everything(path)
        assert times[-1] > 5.4
        assert "recording " in (source.damage(times[-1] + 0.04) or "")
    path.write_bytes(one[: len(one) * 7 // 10] + other)
    times, _, source = everything(path)
    assert times[-1] > 3.9
    assert source.damage(times[-1] + 0.04)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_what_lies_before_the_first_picture_is_taken_off_the_duration(tmp_path: Path, name: str) -> None:
    codec = "libvpx" if name == "a.webm" else "libx264"
    _, _, source = everything(media.write_video(tmp_path / name, codec, frames=100, start_s=5))
    assert abs(source.duration_ms(4.0) - 4000) <= 2


def test_keyframes_go_on_after_a_clock_starts_again(tmp_path: Path) -> None:
    one = media.write_video(tmp_path / "a.ts", frames=75, gop=25, encoder={"sc_threshold": "0"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 3)
    source = PyavSource(joined, options(keyframes_every_s=0.5))
    shown = [(round(each.start_s, 1), media.read_barcode(each.image)) for each in source.keyframes(0.5)]
    assert shown == [(float(second), 25 * (second % 3)) for second in range(9)]


# Seeking


CONTAINERS: list[tuple[str, str, dict[str, Any]]] = [
    ("a.mp4", "libx264", {}),
    ("fragmented.mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    ("a.mov", "libx265", {}),
    ("a.mkv", "libx264", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("a.avi", "mpeg4", {}),
    ("h264.avi", "libx264", {"encoder": {"bf": "2"}}),
    ("b.avi", "mpeg4", {"encoder": {"bf": "2", "b": "800k"}}),
    ("open.avi", "libx264", {"encoder": {"bf": "2", "x264-params": "open-gop=1"}}),
    ("a.flv", "libx264", {}),
    ("a.wmv", "wmv2", {}),
    ("a.ts", "libx264", {}),
    ("open.ts", "libx264", {"encoder": {"bf": "2", "x264-params": "open-gop=1"}}),
    ("a.mpg", "mpeg2video", {"encoder": {"bf": "2", "b": "1500k"}}),
    ("a.ogv", "libvpx", {}),
]


@pytest.mark.parametrize(("name", "codec", "how"), CONTAINERS, ids=[name for name, _, _ in CONTAINERS])
def test_a_late_moment_costs_few_pictures_and_has_the_times_of_reading_from_the_start(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.write_video(tmp_path / name, codec, frames=600, gop=20, **how)
    times, numbers, _ = everything(path)
    decoded = 0
    decode = PyavSource._decoded

    def counted(self: PyavSource) -> Any:
        nonlocal decoded
        for frame in decode(self):
            decoded += 1
            yield frame

    monkeypatch.setattr(PyavSource, "_decoded", counted)
    for target in (20.0, 20.03, 20.33, 20.79, 22.39, 22.4):
        decoded = 0
        source = PyavSource(path, options())
        shown = [(each.start_s, media.read_barcode(each.image)) for each in upto(source, target)]
        source.close()
        number = max(i for i, t in enumerate(times) if t <= target + 1e-6)
        assert [round(start_s, 3) for start_s, _ in shown[-12:]] == times[number - 11 : number + 1][
            -len(shown[-12:]) :
        ] or len(shown) < 12
        assert (round(shown[-1][0], 3), shown[-1][1]) == (times[number], numbers[number])
        assert decoded < 70


def upto(source: PyavSource, target_s: float) -> Any:
    for shown in source.frames(lambda: target_s):
        if shown.start_s > target_s + 1e-6:
            return
        yield shown


# Damage


HOLED = [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.flv", "libx264"), ("a.mpg", "mpeg2video"),
         ("a.ogv", "libvpx"), ("a.ts", "libx264"), ("a.wmv", "wmv2"), ("a.avi", "mpeg4")]  # fmt: skip


@pytest.mark.parametrize("filling", ["zeros", "noise", "nothing"])
@pytest.mark.parametrize(("name", "codec"), HOLED, ids=[name for name, _ in HOLED])
def test_a_hole_is_noticed_and_what_lies_behind_it_read(
    tmp_path: Path, name: str, codec: str, filling: str
) -> None:
    if name == "a.avi" and filling == "nothing":
        pytest.skip("its index names places that are no more")
    sound_s = 16 if name == "a.mkv" else 0
    path = media.write_video(tmp_path / name, codec, frames=400, size=SMALL, audio_s=sound_s)
    times, numbers, whole = everything(path)
    last = times[-1], numbers[-1]
    assert whole.damage(times[-1] + 0.04) is None
    data = bytearray(path.read_bytes())
    since, until = len(data) * 4 // 10, len(data) * 7 // 10
    size = until - since
    fillings = {"zeros": bytes(size), "noise": random.Random(1).randbytes(size), "nothing": b""}
    data[since:until] = fillings[filling]
    path.write_bytes(data)
    times, numbers, source = everything(path)
    reason = source.damage(times[-1] + 0.04)
    assert reason
    if (name, filling) == ("a.wmv", "noise"):  # which may make FFmpeg's reader stop there
        return
    assert (times[-1], numbers[-1]) == last
    assert reason.startswith("damaged: nothing from ")


@pytest.mark.parametrize(
    ("name", "codec", "sound_s"), [("a.webm", "libvpx", 0.0), ("a.mkv", "libx264", 16.0)]
)
def test_a_hole_is_noticed_wherever_it_begins_and_times_behind_it_are_right(
    tmp_path: Path, name: str, codec: str, sound_s: float
) -> None:
    """Within the head of a packet, whose time stamp is then garbage; among packets of sound."""
    import av

    path = media.write_video(tmp_path / name, codec, frames=400, size=SMALL, audio_s=sound_s)
    data = path.read_bytes()
    times, numbers, _ = everything(path)
    last = times[-1], numbers[-1]
    with av.open(str(path)) as container:
        places = sorted(
            p.pos for p in container.demux() if p.pos and len(data) * 3 // 10 < p.pos < len(data) * 4 // 10
        )
    until = len(data) * 6 // 10
    for since in [place + more for place in places[:: len(places) // 4] for more in (1, 3)]:
        path.write_bytes(data[:since] + bytes(until - since) + data[until:])
        times, numbers, source = everything(path)
        assert (times[-1], numbers[-1]) == last
        assert (source.damage(times[-1] + 0.04) or "").startswith("damaged: nothing from ")


def test_bytes_removed_between_two_pages_of_an_ogg_file_are_missed(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ogv", "libvpx", frames=400, size=SMALL)
    data = path.read_bytes()
    pages = [i for i in range(len(data)) if data.startswith(b"OggS", i)]
    page = min(pages, key=lambda at: abs(at - len(data) * 2 // 5))
    behind = min(pages, key=lambda at: abs(at - len(data) * 3 // 5))
    for since, until in [(page, behind), (page + 60, behind), (page - 60, behind), (page + 60, behind + 60)]:
        path.write_bytes(data[:since] + data[until:])
        times, _, source = everything(path)
        assert (source.damage(times[-1] + 0.04) or "").startswith("damaged: nothing from "), (
            since - page,
            until - behind,
        )


def test_what_lies_behind_a_damaged_piece_of_a_fragmented_film_is_not_passed_over_in_silence(
    tmp_path: Path,
) -> None:
    muxer = {"movflags": "frag_keyframe+empty_moov"}
    path = media.write_video(tmp_path / "a.mp4", frames=100, size=SMALL, muxer=muxer)
    data = path.read_bytes()
    piece = data.index(b"moof", len(data) // 2)
    path.write_bytes(data[: piece - 4] + bytes(900) + data[piece + 896 :])
    times, _, source = everything(path)
    reason = source.damage(times[-1] + 0.04)
    assert reason is not None
    assert reason.startswith(f"the file is damaged or cut short after {times[-1] + 0.04:.1f} s")


WHOLE: list[tuple[str, str, dict[str, Any]]] = [
    *[(name, codec, {"audio_s": 3.0}) for name, codec in [("a.wmv", "wmv2"), ("a.mkv", "libx264"), ("a.flv", "libx264")]],
    *[
        (name, codec, {"times": [0, 0.04, 0.08, 50, 50.04, 110, 110.04, 110.08]})
        for name, codec in [("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.flv", "libx264"), ("a.wmv", "wmv2"),
                            ("a.ogv", "libvpx"), ("a.mp4", "libx264")]
    ],
    *[
        (name, "libx264", {"encoder": {"bf": "6", "b_strategy": "0", "x264-params": "b-pyramid=normal"}})
        for name in ("a.mp4", "a.mkv", "a.flv", "a.ts")
    ],
    ("a.m2ts", "libx264", {"times": [0, 0.04, 0.08, 5, 5.04, 10], **BLU_RAY}),
    *[(name, codec, {"frames": 1}) for name, codec in [*HOLED, ("a.mp4", "libx264")]],
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "how"), WHOLE)
def test_what_is_whole_is_not_called_damaged(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    """Sound that goes on, slides, pictures that are shown in another order, one picture."""
    path = media.write_video(tmp_path / name, codec, **{"frames": 50, "size": SMALL, **how})
    times, _, source = everything(path)
    assert source.damage(times[-1] + 0.04) is None
    assert len(times) == len(how.get("times", range(how.get("frames", 50))))


@pytest.mark.parametrize("between", [1, 2])
def test_b_pictures_packed_with_others_have_times_of_their_own(tmp_path: Path, between: int) -> None:
    path = media.pack_b_pictures(
        media.write_video(
            tmp_path / "a.avi", "mpeg4", frames=200, size=SMALL, gop=20,
            encoder={"bf": str(between), "b": "800k", "b_strategy": "0"},
        )
    )  # fmt: skip
    times, numbers, source = everything(path)
    assert numbers == list(range(200))
    assert times == [round(number / 25, 3) for number in numbers]
    assert source.damage(8.0) is None
    for target in (160, 163, 170, 179, 180, 181):
        late = PyavSource(path, options())
        *_, last = upto(late, target / 25)
        late.close()
        assert (round(last.start_s, 3), media.read_barcode(last.image)) == (target / 25, target)


def test_a_stream_that_begins_between_keyframes_is_whole(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", frames=200, gop=50)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 6 // 188 * 188 :])
    times, _, source = everything(path)
    assert source.damage(times[-1] + 0.04) is None
    assert abs(source.duration_ms(times[-1] + 0.04) - 1000 * (times[-1] + 0.04)) < 150


@pytest.fixture
def theora(tmp_path: Path) -> Path:
    """Two seconds that move, three that stand still. PyAV has no encoder for it."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg to write Theora with")
    moving = media.write_video(tmp_path / "a.mkv", frames=50)
    path = tmp_path / "a.ogv"
    held = ["-vf", "tpad=stop_mode=clone:stop_duration=3", "-c:v", "libtheora"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", moving, *held, path], check=True)
    return path


def test_the_same_picture_again_is_no_damage(theora: Path) -> None:
    times, _, source = everything(theora)
    assert source.damage(times[-1] + 0.04) is None


def test_chained_theora_is_whole_and_not_damaged(theora: Path) -> None:
    count = len(everything(theora)[0])
    data = theora.read_bytes()
    theora.write_bytes(data * 3)
    times, _, source = everything(theora)
    assert len(times) == 3 * count
    assert source.damage(times[-1] + 0.04) is None


def test_encrypted_files_are_called_so(tmp_path: Path) -> None:
    film = media.write_video(tmp_path / "a.mp4", frames=10)
    data = film.read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd"))
    film.write_bytes(
        data[:entry] + b"encv" + data[entry + 4 :].replace(b"pasp", b"sinf", 1).replace(b"btrt", b"sinf", 1)
    )
    stream = media.write_video(tmp_path / "a.ts", frames=50)
    packets = bytearray(stream.read_bytes())
    for at in range(0, len(packets), 188):
        if packets[at + 1] & 0x1F:  # its tables are in the clear
            packets[at + 3] |= 0xC0
            packets[at + 8 : at + 188] = random.Random(at).randbytes(180)
    stream.write_bytes(packets)
    for path in (film, stream):
        with pytest.raises(MediaError, match=r"^encrypted: its pictures cannot be read"):
            PyavSource(path, options())


def common_encryption(folder: Path) -> Path:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    return media.write_video(folder / "a.mp4", frames=10, size=SMALL, muxer=keys)


def encrypted_matroska(folder: Path, *, with_id: bool) -> Path:
    """In the place of the name of the track, as long as that."""
    path = media.write_video(folder / "a.mkv", frames=10, size=SMALL, title="x" * 60)
    algorithm = b"\x47\xe1\x81\x05" + (b"\x47\xe2\x88" + b"identity" if with_id else b"")
    encoding = b"\x50\x33\x81\x01" + b"\x50\x35" + bytes([0x80 | len(algorithm)]) + algorithm
    inner = b"\x62\x40" + bytes([0x80 | len(encoding)]) + encoding
    element = b"\x6d\x80" + bytes([0x80 | len(inner)]) + inner
    name = b"\x53\x6e\xbc" + b"x" * 60
    void = b"\xec" + bytes([0x80 | len(name) - len(element) - 2])
    data = path.read_bytes()
    assert name in data
    path.write_bytes(data.replace(name, (element + void).ljust(len(name), b"\0")))
    return path


def protected_asf(folder: Path) -> Path:
    path = media.write_video(folder / "a.wmv", "wmv2", frames=10, size=SMALL)
    codecs = bytes.fromhex("4052d1861d31d011a3a400a0c90348f6")
    data = path.read_bytes()
    assert codecs in data
    path.write_bytes(data.replace(codecs, bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")))
    return path


@pytest.mark.parametrize(
    "made",
    [common_encryption, partial(encrypted_matroska, with_id=True), partial(encrypted_matroska, with_id=False), protected_asf],
)  # fmt: skip
def test_every_kind_of_encryption_is_called_so(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    with pytest.raises(MediaError, match=r"^encrypted: its pictures cannot be read"):
        open_pyav(made(tmp_path), options())


@pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.avi", "a.ts", "a.mpg", "a.mp4"])
def test_no_reason_quotes_the_decoder(tmp_path: Path, name: str) -> None:
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    path = media.write_video(tmp_path / name, codec, frames=30, gop=100)
    data = path.read_bytes()
    for keep in (200, 700, 1500):
        path.write_bytes(data[:keep] + random.Random(keep).randbytes(len(data) - keep))
        try:
            times, _, source = everything(path)
            reason = source.damage(times[-1])
        except MediaError as error:
            reason = str(error)
        words = ("Invalid data", "Errno", "error occurred", "temporarily", "avcodec", "swscaler")
        assert not any(word in (reason or "") for word in words), reason


def test_zeros_behind_a_matroska_file_are_not_read(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mkv", frames=50)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (1 << 40))
    times, _, source = everything(path)
    assert len(times) == 50
    assert source.damage(2.0) is None


def test_a_transport_stream_goes_on_behind_a_long_stretch_of_zeros(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", frames=100)
    _, whole, _ = everything(path)
    data = path.read_bytes()
    half = len(data) // 2 // 188 * 188
    path.write_bytes(data[:half] + bytes(300_000) + data[half:])
    _, numbers, _ = everything(path)
    assert numbers[-40:] == whole[-40:]
    assert len(numbers) > 90


def test_pictures_that_cannot_be_scaled_are_a_sentence(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mkv", "ffv1", frames=2, size=(16000, 2))
    with pytest.raises(MediaError, match=r"^pictures of 16000x2 pixels cannot be scaled$"):
        everything(path, shape=FrameShape(224))
