"""Numbers that are none, and devices that are none, are refused in one sentence whatever would have answered."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.retriever.test_search import add_video
from vsearch.cli import main
from vsearch.library import Library

REFUSED = [
    *(f"similar one.mp4@{time}" for time in ("nan", "inf", "-inf", "1e400", "1:nan", "-1", "")),
    *(f"clip one.mp4 --{edge} {time}" for edge in ("start", "end") for time in ("inf", "nan", "1e400", "x")),
    *(f"clip one.mp4 --pad {length}" for length in ("nan", "inf", "-1", "1e400")),
    *(f"query 'the thing' --threshold {score}" for score in ("nan", "inf", "-inf", "1e400")),
    *(f"query 'the thing' -n {number}" for number in ("0", "-1", "1.5", "nan")),
    *(f"similar one.mp4@1 -n {number}" for number in ("0", "-1")),
    *(f"localize one.mp4 --actions a --threshold {score}" for score in ("nan", "inf", "-0.1", "1.1")),
    *(f"index . --fps {rate}" for rate in ("nan", "inf", "0", "-1", "1e400")),
    *(f"{verb} --device tpu" for verb in ("query 'the thing'", "index .", "localize one.mp4 --actions a",
                                          "classify one.mp4 --actions a", "adopt x", "adopt --rollback",
                                          "reindex --model x", "reindex --rollback")),
    *(f"query 'the thing' --device {device}" for device in ("tpu", "''", "cuda:", "cuda:x", "'cpu '", "CPU")),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a library of `one.mp4`, in which "the thing" is a remembered sentence."""
    with Library.open(tmp_path / "library", create=True) as library:
        add_video(library, tmp_path / "one.mp4", [0] * 6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VSEARCH_LIBRARY", str(tmp_path / "library"))
    return tmp_path


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["vsearch", *shlex.split(line)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_no_number_and_no_device_is_refused(
    place: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line, monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "unexpected fault" not in said.err
    assert "Traceback" not in said.err
    (sentence,) = [text for text in said.err.splitlines() if "vsearch: " in text or "Invalid value" in text]
    assert sentence


def test_more_than_there_are_is_all_there_are(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (10**6, 2**31, 2**63, 10**30):
        assert run(f"query 'the thing' -l -n {number}", monkeypatch) in (0, 1)
        assert capsys.readouterr().out == f"{place / 'one.mp4'}\n"
        assert run(f"similar one.mp4@1 --jsonl -n {number}", monkeypatch) in (0, 1)
        assert "unexpected" not in capsys.readouterr().err


def test_an_answer_is_out_while_a_writer_holds_the_library(place: Path) -> None:
    """The lock is held until the answer has been read; the note of it waits no longer than it may."""
    with contextlib.closing(
        sqlite3.connect(place / "library" / "catalogue.sqlite", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        with subprocess.Popen(
            [sys.executable, "-m", "vsearch", "query", "the", "thing", "-l"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as query:  # fmt: skip
            assert query.stdout is not None
            try:
                assert select.select([query.stdout], [], [], 60)[0]
                assert query.stdout.readline() == os.fsencode(place / "one.mp4") + b"\n"
                assert other.in_transaction
                code = query.wait(60)  # and it ends, still beside the lock
            finally:
                query.kill()
        assert code == 0
        other.execute("ROLLBACK")
