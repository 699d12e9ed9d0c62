"""The exit codes of docs/json.md: 0 done or found, 1 nothing found, 2 wrong use or error, 3 some failed, 130 interrupted."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vsearch.library
import vsearch.library.place
from tests.retriever.test_search import add_video
from vsearch.cli import main
from vsearch.library import Library

Run = Callable[[str], int]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a library of `one.mp4` and `two.mp4`, in which the commands run."""
    with Library.open(tmp_path / "library", create=True) as library:
        add_video(library, tmp_path / "one.mp4", [0] * 6)
        add_video(library, tmp_path / "two.mp4", [1] * 6)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(5000))
    before = time.time() - 60  # a file changed just now would be left for the next run
    os.utime(tmp_path / "broken" / "b.mp4", (before, before))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VSEARCH_LIBRARY", str(tmp_path / "library"))
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(line: str) -> int:
        monkeypatch.setattr("sys.argv", ["vsearch", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return run


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (0, "query the thing"),
        (0, "query the thing -l"),
        (0, "query the thing --in one.mp4"),
        (0, "similar one.mp4@1"),
        (0, "ls"),
        (0, "info one.mp4"),
        (0, "status --json"),
        (0, "models list"),
        (0, "forget one.mp4 --yes"),
        (0, "forget one.mp4 --dry-run"),
        (0, "verify"),
        (0, "--version"),
        (0, "query --help"),
        (1, "query the thing --threshold 2"),
        (1, "query the thing --in one.mp4 --threshold 2"),
        (1, "ls --state failed"),
        (1, "forget --missing --yes"),
        (1, "index empty --library other"),
        (2, "query ''"),
        (2, "query the thing --threshold nan"),
        (2, "query the thing -n 0"),
        (2, "query the thing --json --csv"),
        (2, "query the thing --in three.mp4"),
        (2, "query the thing --library empty"),
        (2, "query"),
        (2, "similar one.mp4"),
        (2, "similar one.mp4@99:00"),
        (2, "info three.mp4"),
        (2, "ls --library empty"),
        (2, "status --library empty"),
        (2, "verify --library empty"),
        (2, "clip 9"),
        (2, "localize one.mp4"),
        (2, "classify one.mp4"),
        (2, "adopt empty"),
        (2, "reindex"),
        (2, "forget-model made-up --yes"),  # which answers
        (1, "forget-model other --yes"),
        (2, "reindex --rollback"),
        (2, "reindex --model empty --library empty"),
        (2, "query the thing --min sure"),
        (0, "query the thing --min likely"),  # what cannot be judged is not left out
        (2, "forget"),
        (2, "forget three.mp4 --yes"),
        (2, "forget one.mp4"),  # nobody to ask
        (2, "index nowhere"),
        (2, "index empty --device tpu"),
        (2, "no-such-verb"),
    ],
)
def test_codes_are_those_that_are_documented(
    code: int, line: str, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    assert run(line) == code


def test_3_for_files_that_failed(place: Path, run: Run, tiny_model: Path) -> None:
    assert run(f"index broken --library other --model {tiny_model}") == 3


def test_3_for_raw_video_named_itself_and_a_word_on_its_kind(
    place: Path, run: Run, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.h264", "raw"):
        (place / name).write_bytes(b"\0\0\0\x01\x67" + bytes(900))
        os.utime(place / name, (1, 1))
    assert run(f"index a.h264 raw --library other --model {tiny_model} --decoder pyav") == 3
    assert capfd.readouterr().err.count("raw H.264 or HEVC video without a container") >= 2


def test_3_for_problems_that_remain(place: Path, run: Run) -> None:
    for frames in (place / "library" / "frames").rglob("*.npy"):
        frames.write_bytes(b"damaged")
    assert run("verify") == 3


@pytest.mark.parametrize(
    "line",
    ["query the thing", "similar one.mp4@1", "ls", "info one.mp4", "status", "forget one.mp4 --yes", "verify",
     "clip 1", "localize one.mp4 --actions a,b", "index empty"],
)  # fmt: skip
def test_130_when_interrupted(line: str, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(vsearch.library, "find_library", interrupted)
    monkeypatch.setattr(vsearch.library.place, "find_library", interrupted)
    assert run(line) == 130
