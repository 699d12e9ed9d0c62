"""A library that cannot be written answers all the same."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests import verbs
from tests.library.test_damage import NAMES, index, look
from vsearch.cli import VERBS
from vsearch.errors import LibraryError
from vsearch.library import Library
from vsearch.library.catalogue import open_reader
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
    for verb in (["status"], ["ls"], ["info", "one.mp4"], ["query", "look 1"]):
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


# Every verb, on a real disk that is read-only and in a folder that this user may not write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verbs.make_library(tmp_path_factory.mktemp("made") / "work").parent


def not_above_permissions() -> None:
    """Of a child: root, too, may not write what is marked read-only (nor what it starts)."""
    if os.getuid() == 0:
        drop_from_bounding_set, dac_override = 24, 1
        ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


Sealed = tuple[Path, Callable[[], None] | None]  # the folder of the library, and what a child does first


@pytest.fixture(params=["mounted", "permissions"])
def shut(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sealed]:
    if request.param == "mounted":
        place = request.getfixturevalue("disk") / "work"
        shutil.copytree(made, place)
        seal(place.parent)
        yield place, None
        return
    if os.getuid() == 0 and sys.platform != "linux":
        pytest.skip("root may write everywhere")
    place = tmp_path / "work"
    shutil.copytree(made, place)
    parts = [place / "library", *(place / "library").rglob("*")]
    modes = [path.stat().st_mode for path in parts]
    for path in parts:
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield place, not_above_permissions
    for path, mode in zip(parts, modes, strict=True):
        path.chmod(mode)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_every_verb_answers_or_says_that_it_must_write(shut: Sealed, tmp_path: Path) -> None:
    folder, preexec = shut
    before = content(folder)
    out = tmp_path / "out"
    out.mkdir()
    asked = verbs.commands(folder, out)
    assert {name.partition(" ")[0] for name in asked} | set(verbs.SERVERS) == set(VERBS)
    orders = [order for some in asked.values() for order in some]
    done = dict(zip(map(tuple, orders), verbs.run(orders, folder / "library", preexec=preexec), strict=True))
    for name, some in asked.items():
        for order in some:
            ran = done[tuple(order)]
            assert ran.fault is None, (order, ran)
            if name in verbs.WRITERS:
                assert ran.code == 2, (order, ran)
                assert "cannot be written" in ran.err, (order, ran)
            elif name != "clip":  # its first takes a hit of a query that could not be noted
                assert ran.code == 0 or (name == "query" and ran.code == 1 and ran.out), (order, ran)
    assert done[tuple(asked["clip"][1])].code == 0
    assert (out / "named.mp4").stat().st_size > 0
    assert content(folder) == before


@pytest.mark.slow
def test_a_helper_answers_of_it(shut: Sealed) -> None:
    folder, preexec = shut
    with tempfile.TemporaryDirectory(prefix="vs-") as sockets:  # a socket's path must be short
        before = f"""
import os
os.environ |= dict(VSEARCH_HELPER="1", XDG_RUNTIME_DIR={sockets!r})
from pathlib import Path
from benchmarks import queries
from vsearch.retriever import helper
place = Path({str(folder / "library")!r})
assert queries.answers(place, helper.start(place, "cpu", idle_s=20))
real = helper.ask
def ask(*arguments):
    asked = real(*arguments)
    print("by the helper" if asked.answer else "alone")
    return asked
helper.ask = ask
"""
        orders = [["query", text, "--device", "cpu"] for text in (verbs.CACHED, "one that is new")]
        for ran in verbs.run(orders, folder / "library", before=before, preexec=preexec):
            assert (ran.fault, ran.code in (0, 1)) == (None, True), ran
            assert ran.out.splitlines()[0] == "by the helper"
            assert len(ran.out.splitlines()) > 1


@pytest.mark.slow
def test_the_page_answers_of_it_and_so_does_a_python_program(shut: Sealed) -> None:
    folder, preexec = shut
    program = (
        "from vsearch import Library\n"
        f"with Library.open({str(folder / 'library')!r}, device='cpu') as library:\n"
        f"    print(len(library.videos()), len(library.search({verbs.CACHED!r}).hits), len(library.search('new').hits),"
        " len(library.similar('one.mp4', 1).hits) > 0, type(library.localize('one.mp4', ['archery'])).__name__)"
    )
    environment = verbs.environment(folder / "library")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True,
        timeout=300, preexec_fn=preexec,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["4", "4", "4", "True", "list"], "")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "vsearch", "serve", "--port", str(port)], env=environment, cwd="/",
        stderr=subprocess.PIPE, preexec_fn=preexec,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as site:
            until = time.monotonic() + 120
            while time.monotonic() < until and server.poll() is None:
                try:
                    site.get("/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            for text in (verbs.CACHED, "a new one"):
                assert len(site.get("/api/search", params={"q": text}).json()["hits"]) == 4
            id = site.get("/api/search", params={"q": verbs.CACHED}).json()["hits"][0]["video"]
            for address in (f"/media/{id}", f"/still/{id}?t=1", f"/thumb/{id}", "/api/library", "/api/videos",
                            f"/api/timeline/{id}?q=new", f"/api/localize?video={id}&actions=archery",
                            f"/clip/{id}?start=0&end=1"):  # fmt: skip
                answer = site.get(address)
                assert (answer.status_code, bool(answer.content)) == (200, True), (address, answer.text[:500])
    finally:
        server.terminate()
        assert "raceback" not in server.communicate()[1].decode()
