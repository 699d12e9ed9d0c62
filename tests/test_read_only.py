"""A library that cannot be written answers all the same."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_damage import NAMES, index, look
from vsearch.errors import LibraryError
from vsearch.library import Library, open_reader
from vsearch.retriever.searching import search, search_similar


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own that can be made read-only, which holds for root, too."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user cannot mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def seal(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.fixture(params=["closed", "killed"])
def sealed(disk: Path, request: pytest.FixtureRequest) -> Path:
    """A library on a read-only disk, closed in order or with its last changes in the log of a killed run."""
    place = disk / "library"
    with Library.open(place, create=True) as library:
        index(library)
    if request.param == "killed":
        writer = sqlite3.connect(place / "catalogue.sqlite")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE videos SET reason = 'seen'")
        writer.commit()
        for path in (place / "catalogue.sqlite", place / "catalogue.sqlite-wal"):
            shutil.copy(path, disk / path.name)
        writer.close()
        for path in place.glob("catalogue.sqlite*"):
            path.unlink()
        for path in disk.glob("catalogue.sqlite*"):
            path.rename(place / path.name)
    seal(disk)
    return place


def test_it_answers_questions(sealed: Path, request: pytest.FixtureRequest) -> None:
    killed = request.node.callspec.params["sealed"] == "killed"
    reader = open_reader(sealed)
    assert reader is not None
    with reader, Library.open(sealed) as library:
        for opened in (reader, library):
            assert search(opened, "look 1", number=3).hits[0].path.endswith("two.mp4")
            assert len(search_similar(opened, opened.find_video("one.mp4"), 1_000).hits) >= 2
            assert {video.reason for video in opened.videos()} == {"seen" if killed else None}
            opened.cache_text(1, "new", look(3))  # passes without a word
            assert opened.cached_text(1, "new") is None
            assert not opened.remember("key", "value")
        assert library.summary().videos == {"indexed": len(NAMES)}
        assert library.summary().up_to_date
        assert library.verify().clean


def test_what_must_write_says_why_it_cannot(sealed: Path) -> None:
    with Library.open(sealed) as library:
        for act in (
            lambda: library.forget(library.videos()),
            lambda: library.verify(repair=True),
            lambda: index(library),
        ):
            with pytest.raises(LibraryError, match=r"cannot be written .*Read-only file system"):
                act()


def test_the_command_line_reads_it(sealed: Path, vsearch: object) -> None:
    for verb in (["status"], ["ls"], ["info", "one.mp4"], ["query", "look 1"], ["verify"]):
        done = vsearch(*verb, "--library", sealed)
        assert (done.returncode, "fault" in done.stderr) == (0, False), (verb, done)
    done = vsearch("forget", "--yes", "one.mp4", "--library", sealed)
    assert done.returncode == 2
    assert "read-only" in done.stderr


def test_nothing_stays_behind_elsewhere(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Library.open(sealed) as library:
        assert np.isfinite(library.summary().duration_ms)
    assert list(scratch.iterdir()) == []
