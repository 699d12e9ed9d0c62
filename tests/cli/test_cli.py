"""The command line as a user runs it: real videos, real processes, a small random model."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import av
import numpy as np
import pytest

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 180, 30)


def make_video(path: Path, scenes: list[tuple[tuple[int, int, int], float]], fps: int = 10) -> Path:
    """A video of coloured scenes, each (RGB, seconds), with a moving bar so that it is not a still."""
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        shown = 0
        for colour, seconds in scenes:
            for _ in range(round(seconds * fps)):
                picture = np.full((64, 96, 3), colour, np.uint8)
                picture[:, shown % 96] = 255
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                shown += 1
        out.mux(stream.encode())
    old = time.time() - 60  # a file changed just now would be left for the next run
    os.utime(path, (old, old))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    make_video(folder / "red then blue.mp4", [(RED, 12), (BLUE, 8)])
    make_video(folder / "sub" / "blue.mp4", [(BLUE, 6)])
    make_video(folder / "green.mp4", [(GREEN, 0.3)])
    return folder


def test_index_query_status_clip_similar_forget(
    folder: Path, tiny_model: Path, vsearch, tmp_path: Path
) -> None:
    done = vsearch("index", folder, "--model", tiny_model, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["found"], summary["indexed"], summary["failures"]) == (3, 3, [])

    done = vsearch("query", "something blue", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema_version"] == 1
    assert [h["rank"] for h in answer["hits"]] == [1, 2, 3]
    assert {"path", "start", "end", "score"} <= answer["hits"][0].keys()
    assert vsearch("query", "something blue", "--json").stdout == done.stdout  # the cached way gives the same

    done = vsearch(
        "similar", "blue.mp4@2", "--jsonl"
    )  # "red then blue.mp4" is another name, not an end of this
    first = json.loads(done.stdout.splitlines()[0])
    assert Path(first["path"]).name == "red then blue.mp4"
    assert first["start"] == pytest.approx(12, abs=1)
    assert first["end"] == pytest.approx(20, abs=1)

    done = vsearch("clip", "1", "--out", tmp_path / "cut.mp4")
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "cut.mp4")) as cut:
        pictures = [frame.to_ndarray(format="rgb24") for frame in cut.decode(video=0)]
        assert len(pictures) / 10 == pytest.approx(first["end"] - first["start"], abs=0.3)
        assert np.median(pictures[len(pictures) // 2], axis=(0, 1)) == pytest.approx(BLUE, abs=20)
    assert vsearch("clip", "1", "--out", tmp_path / "cut.mp4").returncode == 2  # never overwrites unasked
    assert vsearch("clip", "9").returncode == 2

    status = json.loads(vsearch("status", "--json").stdout)
    assert status["videos"] == {"indexed": 3}
    assert vsearch("forget", "green.mp4", "--yes").returncode == 0
    assert len(vsearch("ls").stdout.splitlines()) == 2
    assert (folder / "green.mp4").exists()
    assert len(json.loads(vsearch("query", "something blue", "--json").stdout)["hits"]) == 2


def test_a_second_run_decodes_nothing_and_a_move_neither(folder: Path, tiny_model: Path, vsearch) -> None:
    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    before = json.loads(vsearch("query", "x", "--json").stdout)["hits"]
    second = vsearch("index", folder, "--json")
    assert (json.loads(second.stdout)["unchanged"], json.loads(second.stdout)["frames"]) == (3, 0)
    assert "loading the model" not in second.stderr
    (folder / "sub" / "blue.mp4").rename(folder / "azure.mp4")
    moved = vsearch("index", folder, "--json")
    assert (json.loads(moved.stdout)["moved"], json.loads(moved.stdout)["frames"]) == (1, 0)
    after = json.loads(vsearch("query", "x", "--json").stdout)["hits"]
    assert [h["score"] for h in after] == [h["score"] for h in before]
    assert any(h["path"].endswith("azure.mp4") for h in after)
    (folder / "green.mp4").unlink()
    gone = vsearch("index", folder, "--json")
    assert json.loads(gone.stdout)["missing"] == 1
    assert vsearch("ls", "--state", "missing").stdout.count("\n") == 1
    assert len(json.loads(vsearch("query", "x", "--json").stdout)["hits"]) == 2
    assert vsearch("forget", "--missing", "--yes").returncode == 0


def test_a_changed_file_is_done_again(folder: Path, tiny_model: Path, vsearch) -> None:
    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    make_video(folder / "green.mp4", [(RED, 3)])
    changed = json.loads(vsearch("index", folder, "--json").stdout)
    assert (changed["indexed"], changed["unchanged"]) == (1, 2)
    found = json.loads(vsearch("similar", "green.mp4@1", "--json").stdout)["hits"][0]
    assert Path(found["path"]).name == "red then blue.mp4"
    assert found["start"] < found["end"] <= 13.5


def test_bad_files_fail_alone_with_their_reason(folder: Path, tiny_model: Path, vsearch) -> None:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (folder / "notes.txt").write_text("no video")
    cut = (folder / "red then blue.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    done = vsearch("index", folder, "--model", tiny_model, "--json")
    assert done.returncode == 3
    reasons = {Path(path).name: reason for path, reason in json.loads(done.stdout)["failures"]}
    assert set(reasons) == {"empty.mp4", "list.mp4", "cut.mp4"}
    assert "empty" in reasons["empty.mp4"]
    assert "playlist" in reasons["list.mp4"]
    assert json.loads(done.stdout)["indexed"] == 3
    listed = vsearch("status").stdout
    assert all(name in listed for name in reasons)
    again = json.loads(vsearch("index", folder, "--json").stdout)
    assert (len(again["failures"]), again["unchanged"]) == (3, 3)  # known, not tried again
    assert "Traceback" not in done.stderr + listed


def test_odd_names_survive_the_whole_way(tmp_path: Path, tiny_model: Path, vsearch) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    made = make_video(tmp_path / "made.mp4", [(RED, 2)])
    names = [
        b"-dash.mp4",
        b"new\nline.mp4",
        b"<script>.mp4",
        b"quote'\".mp4",
        "snow ☃.mp4".encode(),
        b"not-utf8-\xff.mp4",
    ]
    for i, name in enumerate(names):
        target = os.path.join(os.fsencode(folder), name)
        shutil.copyfile(made, target)
        with open(target, "ab") as file:  # distinct content, or they were copies of one video
            file.write(bytes([0, 0, 0, 9]) + b"free" + bytes([i]))
        os.utime(target, (1, 1))
    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    paths = [os.fsencode(p) for p in vsearch("query", "red", "-0").stdout.split("\0") if p]
    assert sorted(os.path.basename(p) for p in paths) == sorted(names)
    for form in ((), ("--json",), ("--csv",), ("--jsonl",)):
        out = vsearch("query", "red", *form).stdout
        assert "\nline.mp4" not in out
    hits = json.loads(vsearch("query", "red", "--json").stdout)["hits"]
    assert {os.path.basename(os.fsencode(h["path"])) for h in hits} == set(names)
    assert vsearch("info", "new\nline.mp4").returncode == 0


def test_wrong_use_is_one_line_and_exit_2(tmp_path: Path, folder: Path, tiny_model: Path, vsearch) -> None:
    assert vsearch("index", folder / "green.mp4", "--model", tiny_model).returncode == 0
    cases = [
        ("index", tmp_path / "nowhere"),
        ("index", folder, "--model", "ViT-B-32:none"),
        ("index", folder, "--decoder", "mplayer"),
        ("query", " "),
        ("query", "x", "--json", "--csv"),
        ("status", "--library", tmp_path / "nowhere"),
        ("status", "--library", folder),
        ("info", "nothing.mp4"),
        ("ls", "--state", "odd"),
        ("similar", "green.mp4"),
        ("similar", "green.mp4@soon"),
        ("clip", "green.mp4", "--start", "5", "--end", "2"),
        ("forget",),
    ]
    for case in cases:
        done = vsearch(*case)
        assert done.returncode == 2, case
        assert done.stdout == "", case
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("vsearch: "), (case, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_empty_folder_and_a_dry_run_change_nothing(
    tmp_path: Path, folder: Path, tiny_model: Path, vsearch
) -> None:
    (tmp_path / "empty").mkdir()
    done = vsearch("index", tmp_path / "empty")
    assert (done.returncode, "no videos" in done.stderr) == (1, True)
    assert not (tmp_path / "library").exists()
    assert vsearch("index", folder / "sub", "--model", tiny_model).returncode == 0
    done = vsearch("index", folder, "--dry-run", "--json")
    assert json.loads(done.stdout)["to_do"] == 2
    assert json.loads(vsearch("status", "--json").stdout)["videos"] == {"indexed": 1}


def test_two_runs_at_once_are_told_and_a_query_works_meanwhile(
    folder: Path, tiny_model: Path, vsearch, tmp_path: Path
) -> None:
    from vsearch.library import Library

    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    with Library.open(tmp_path / "library") as held, held.writing():
        second = vsearch("index", folder)
        assert second.returncode == 2
        assert str(os.getpid()) in second.stderr
        assert vsearch("query", "anything").returncode == 0
