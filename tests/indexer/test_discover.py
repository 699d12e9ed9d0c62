"""Finding files: by content, once each, in a stable order; and their fingerprints."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsearch.indexer import fingerprint as fingerprints
from vsearch.indexer.discover import find_videos
from vsearch.indexer.fingerprint import MIB, fingerprint
from vsearch.indexer.sniff import container_of, read_head, why_not_video

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(100)
HEADS = {
    "mp4": MP4,
    "matroska": b"\x1a\x45\xdf\xa3" + bytes(60),
    "avi": b"RIFF\x00\x10\x00\x00AVI LIST" + bytes(60),
    "flv": b"FLV\x01\x05" + bytes(60),
    "mpegts": (b"\x47" + bytes(187)) * 8,
    "mpeg": b"\x00\x00\x01\xba" + bytes(60),
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(60),
    "gif": b"GIF89a" + bytes(60),
    "ogg": b"OggS\x00\x02" + bytes(22) + b"\x01\x1e\x80theora" + bytes(60),
}


def put(path: Path, data: bytes = MP4, age_s: float = 60.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def found(*paths: Path) -> list[Path]:
    """Paths found, where no warning is expected."""
    return [file.path for file in find_videos(paths, lambda path, why: pytest.fail(f"{path}: {why}"))]


def found_with_warnings(*paths: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    warnings: list[tuple[str, str]] = []
    files = find_videos(paths, lambda path, why: warnings.append((path.name, why)))
    return [file.path for file in files], warnings


def test_containers_are_known_by_content_whatever_the_name(tmp_path: Path) -> None:
    for container, head in HEADS.items():
        assert container_of(read_head(put(tmp_path / f"{container}.jpg", head))) == container
    put(tmp_path / "camera.bin", (bytes(4) + b"\x47" + bytes(187)) * 8)  # .m2ts packets
    assert container_of(read_head(tmp_path / "camera.bin")) == "mpegts"
    assert len(found(tmp_path)) == len(HEADS) + 1


def test_what_is_no_video_and_does_not_claim_to_be_one_is_passed_over(tmp_path: Path) -> None:
    for name, data in {
        "a.jpg": b"\xff\xd8\xff\xe0", "a.txt": b"G" * 4096, "a.srt": b"1\n00:00", "empty.txt": b"",
        "song.m4a": b"\x00\x00\x00\x18ftypM4A " + bytes(9), "song.ogg": b"OggS" + bytes(24) + b"\x01vorbis",
        "song.mka": HEADS["matroska"], "photo.heic": b"\x00\x00\x00\x18ftypheic" + bytes(9),
        "code.ts": b"export const a = 1\n", "a.wav": b"RIFF\x00\x00\x00\x00WAVEfmt ", "list.m3u8": b"#EXTM3U\n",
    }.items():  # fmt: skip
        put(tmp_path / name, data)
    assert found(tmp_path) == []


def test_a_video_name_with_other_content_is_returned_to_be_reported(tmp_path: Path) -> None:
    names = ["empty.mp4", "playlist.mp4", "text.mkv", "broken.TS"]
    for name, data in zip(names, [b"", b"#EXTM3U\n", b"hello\n", b"\xfe\xfe\xfe"], strict=True):
        put(tmp_path / name, data)
    assert sorted(path.name for path in found(tmp_path)) == sorted(names)


def test_a_file_named_by_the_user_is_taken_whatever_it_is(tmp_path: Path) -> None:
    notes = put(tmp_path / "sub" / ".notes.txt", b"hello")
    [file] = find_videos([notes], lambda path, why: pytest.fail(why))
    assert (file.path, file.size) == (notes, 5)


def test_the_order_is_that_of_the_bytes_and_does_not_depend_on_arguments(tmp_path: Path) -> None:
    names = [
        b"Z.mp4",
        b"a.mp4",
        b"b/1.mp4",
        b"b.mp4",
        b"\xff.mp4",
        "\N{LATIN SMALL LETTER E WITH ACUTE}.mp4".encode(),
    ]
    paths = [put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))) for name in names]
    expected = sorted(paths, key=os.fsencode)
    assert found(tmp_path) == expected
    assert found(tmp_path / "b", tmp_path, *reversed(paths)) == expected


def test_hidden_and_system_folders_are_skipped_also_in_upper_case(tmp_path: Path) -> None:
    seen = put(tmp_path / "films" / "a.mp4")
    hidden = [
        ".cache",
        ".vsearch",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        "@eaDir",
        "__MACOSX",
    ]
    for folder in hidden:
        put(tmp_path / folder / "sub" / "a.mp4")
    put(tmp_path / "films" / "._a.mp4")
    assert found(tmp_path) == [seen]
    assert found(tmp_path / ".cache") == [tmp_path / ".cache" / "sub" / "a.mp4"]  # asked for by name


def test_loops_of_links_end_and_a_file_reached_twice_is_listed_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    real = put(tree / "b" / "real.mp4")
    elsewhere = put(tmp_path / "elsewhere" / "far.mp4")
    (tree / "b" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "a-link").symlink_to(tree / "b", target_is_directory=True)
    (tree / "a.mp4").symlink_to(real)
    (tree / "self.mp4").symlink_to(tree / "self.mp4")
    (tree / "gone.mp4").symlink_to(tree / "nowhere")
    (tree / "far").symlink_to(elsewhere.parent, target_is_directory=True)
    assert found(tree) == [real, tree / "far" / "far.mp4"]
    assert found(tree, real, tmp_path / "elsewhere") == [elsewhere, real]
    (tmp_path / "tree-link").symlink_to(tree, target_is_directory=True)
    assert found(tmp_path / "tree-link") == found(tree)  # roots are real paths


def test_ignore_files_follow_gitignore_and_the_innermost_decides(tmp_path: Path) -> None:
    for name in ("a.mp4", "draft/a.mp4", "x/raw-1.mp4", "x/keep/raw-2.mp4", "x/deep/er/skip.mp4"):
        put(tmp_path / name)
    (tmp_path / ".vsearchignore").write_text("# comment\ndraft/\nraw-*\n")
    (tmp_path / "x" / "keep").mkdir(exist_ok=True)
    (tmp_path / "x" / "keep" / ".vsearchignore").write_text("!raw-2.mp4\n")
    (tmp_path / "x" / "deep" / ".vsearchignore").write_text("/er/skip.mp4\n")
    assert found(tmp_path) == [tmp_path / "a.mp4", tmp_path / "x" / "keep" / "raw-2.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_unreadable_folders_are_warnings(tmp_path: Path) -> None:
    good = put(tmp_path / "a.mp4")
    put(tmp_path / "locked" / "b.mp4")
    (tmp_path / "locked").chmod(0)
    try:
        assert found_with_warnings(tmp_path) == (
            [good], [("locked", "folder cannot be read: Permission denied")]
        )  # fmt: skip
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_an_unreadable_folder_does_not_stop_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = put(tmp_path / "a.mp4")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert found_with_warnings(tmp_path) == ([good], [("locked", "folder cannot be read: Permission denied")])


def test_unfinished_downloads_are_left_for_next_time(tmp_path: Path) -> None:
    good = put(tmp_path / "a.mp4")
    put(tmp_path / "b.mp4.part")
    put(tmp_path / "c.crdownload")
    put(tmp_path / "d.tmp", b"nothing of ours")
    why = "download not finished; left for next time"
    assert found_with_warnings(tmp_path) == ([good], [("b.mp4.part", why), ("c.crdownload", why)])


def test_a_growing_file_is_left_for_next_time_and_a_fresh_finished_one_is_taken(tmp_path: Path) -> None:
    fresh = put(tmp_path / "fresh.mp4", age_s=0)
    growing = put(tmp_path / "growing.mp4", age_s=0)
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.05):
            with growing.open("ab") as file:
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        assert found_with_warnings(tmp_path) == (
            [fresh],
            [("growing.mp4", "still growing; left for next time")],
        )
    finally:
        stop.set()
        writer.join()


def test_pipes_and_devices_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert found(tmp_path) == []
    assert found_with_warnings(tmp_path / "pipe.mp4") == ([], [("pipe.mp4", "neither a file nor a folder")])


def test_what_is_found_carries_size_time_and_root(tmp_path: Path) -> None:
    path = put(tmp_path / "x" / "a.mp4")
    [file] = find_videos([tmp_path], lambda path, why: pytest.fail(why))
    status = path.stat()
    assert (file.size, file.mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_fingerprint_follows_content_not_name_or_time(tmp_path: Path) -> None:
    first = fingerprint(put(tmp_path / "a.mp4"))
    assert fingerprint(put(tmp_path / "other name.mkv", age_s=999)) == first
    assert fingerprint(put(tmp_path / "b.mp4", MP4[:-1] + b"\x01")) != first
    assert fingerprint(put(tmp_path / "c.mp4", MP4 + b"\x00")) != first
    assert len(first) == 40


def test_a_large_file_is_sampled_including_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "FULL_BYTES", 2 * MIB)
    monkeypatch.setattr(fingerprints, "SAMPLES", 4)
    path = tmp_path / "large.mp4"
    size = 10 * MIB
    path.write_bytes(bytes(size))
    seen = {fingerprint(path)}
    for position in (0, size - 1, (size - MIB) // 3 + 5):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"\x01")
        seen.add(fingerprint(path))
    assert len(seen) == 4
    with path.open("r+b") as file:
        file.truncate(size + 1)
    assert fingerprint(path) not in seen


def test_kinds_of_video_that_are_not_taken_are_named_with_a_reason(tmp_path: Path) -> None:
    kinds = {
        "tape.dv": b"\x1f\x07\x00\xbf", "a.h264": b"\x00\x00\x00\x01\x67", "a.264": b"\x00\x00\x01\x67",
        "a.hevc": b"\x00\x00\x00\x01\x40", "a.m2v": b"\x00\x00\x01\xb3", "a.nut": b"nut/multimedia container\x00",
        "a.webp": b"RIFF\x40\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00", "a.mxf": b"\x06\x0e\x2b\x34",
        "a.rm": b".RMF", "a.y4m": b"YUV4MPEG2 W16", "a.ivf": b"DKIF", "a.obu": b"\x12\x00\x0a\x0b", "a.vc1": b"\x00\x00\x01\x0f",
    }  # fmt: skip
    paths = [put(tmp_path / name, head + bytes(99)) for name, head in kinds.items()]
    still = b"RIFF\x40\x00\x00\x00WEBPVP8 " + bytes(99)
    put(tmp_path / "still.webp", still)
    assert sorted(found(tmp_path)) == sorted(paths)
    for path in paths:
        assert "not supported" in why_not_video(path.read_bytes()), path
