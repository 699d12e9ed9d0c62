"""What may go wrong around an indexing run: folders, names, disks, memory, the terminal, and being asked to end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import media
from vsearch.errors import LibraryError
from vsearch.indexer import IndexOptions, Progress, fingerprint, index_videos
from vsearch.indexer import run as indexing
from vsearch.indexer.decode import pool as decode_pool
from vsearch.indexer.shared_progress import RunSummary
from vsearch.library import Library
from vsearch.library.frames import FrameStore

Index = Callable[..., RunSummary]


def video(path: Path, frames: int = 25) -> Path:
    media.write_video(path, frames=frames)
    os.utime(path, (frames, frames))  # not just now, when it might still grow
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "media"
    (made / "sub").mkdir(parents=True)
    for i, name in enumerate(["a.mp4", "b.mp4", "sub/c.mp4"], 1):
        video(made / name, 25 * i)
    return made


@pytest.fixture
def said() -> list[Progress]:
    return []


@pytest.fixture
def index(tmp_path: Path, tiny_model: Path, said: list[Progress]) -> Index:
    def run(*paths: Path, **options: Any) -> RunSummary:
        told = {"model": str(tiny_model), "device": "cpu", "workers": 1, **options}
        return index_videos(tmp_path / "library", paths, IndexOptions(**told), said.append)

    return run


def states(tmp_path: Path) -> dict[str, str]:
    with Library.open(tmp_path / "library") as library:
        return {str(video.path.relative_to(tmp_path)): video.state for video in library.videos()}


def warnings(said: list[Progress]) -> str:
    return "\n".join(progress.warning or "" for progress in said)


# Folders and names


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_looked_into_costs_nothing_else(
    tmp_path: Path,
    folder: Path,
    index: Index,
    said: list[Progress],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    index(folder)
    (folder / "a.mp4").unlink()
    video(folder / "new.mp4", 100)
    scandir = os.scandir

    def refusing(path: Any = ".") -> Any:
        if os.fspath(path) == os.fspath(folder / "sub"):
            raise OSError(code, os.strerror(code))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing)
        summary = index(folder)
    assert (summary.indexed, summary.missing, summary.failures) == (1, 1, [])
    assert f"{folder / 'sub'}: folder cannot be read: {os.strerror(code)}" in warnings(said)
    assert states(tmp_path)["media/sub/c.mp4"] == "indexed"  # nobody knows that it is gone
    assert index(folder).unchanged == 3


def test_any_name_that_the_file_system_takes_is_taken(tmp_path: Path, tiny_model: Path, vsearch) -> None:
    names = [
        b"-rf.mp4",
        b"--help.mp4",
        b"two\nlines.mp4",
        b"\xff\xfe.mp4",
        b"x" * 251 + b".mp4",
        b"%s\t\x1b[31m.mp4",
    ]
    (tmp_path / "-odd\n\xff").mkdir()
    for i, name in enumerate(names):
        made = video(tmp_path / "made.mp4", 20 + i)
        os.rename(made, os.path.join(os.fsencode(tmp_path / "-odd\n\xff"), name))
    done = vsearch("index", "--model", tiny_model, "--json", "--", "-odd\n\xff")
    assert (done.returncode, json.loads(done.stdout)["indexed"]) == (0, len(names)), done.stderr
    hits = json.loads(vsearch("query", "anything", "--json").stdout)["hits"]
    assert {os.path.basename(os.fsencode(hit["path"])) for hit in hits} == set(names)
    assert all(os.path.exists(hit["path"]) for hit in hits)
    again = vsearch("index", "--json", "--", "-odd\n\xff")
    assert (again.returncode, json.loads(again.stdout)["unchanged"]) == (0, len(names))


def test_what_could_never_be_read_moves_with_its_renamed_folder(
    tmp_path: Path, folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fingerprint.fingerprint

    def failing(path: Path) -> str:
        if path.name != "a.mp4":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "fingerprint", failing)
        patch.setattr(indexing, "fingerprint", failing)
        assert len(index(folder).failures) == 2
        folder.rename(tmp_path / "renamed")
        summary = index(tmp_path / "renamed")
        assert (summary.moved, len(summary.failures)) == (3, 2)
        here = {"renamed/a.mp4": "indexed", "renamed/b.mp4": "failed", "renamed/sub/c.mp4": "failed"}
        assert states(tmp_path) == here
        (tmp_path / "renamed" / "a.mp4").unlink()
        index(tmp_path / "renamed")
        (tmp_path / "renamed").rename(tmp_path / "third")  # of what is left, nothing was ever read
        index(tmp_path / "third")
        assert {name for name in states(tmp_path) if "a.mp4" not in name} == {
            "third/b.mp4",
            "third/sub/c.mp4",
        }
    assert index(tmp_path / "third").indexed == 2


def test_what_was_deleted_while_its_folder_was_renamed_can_be_forgotten(
    tmp_path: Path, folder: Path, index: Index, vsearch
) -> None:
    index(folder)
    (folder / "b.mp4").unlink()
    folder.rename(tmp_path / "renamed")
    assert index(tmp_path / "renamed").moved == 2
    assert states(tmp_path)["media/b.mp4"] == "indexed"
    assert vsearch("forget", "--yes", folder).returncode == 0
    assert set(states(tmp_path)) == {"renamed/a.mp4", "renamed/sub/c.mp4"}


# Disks and memory


def test_a_disk_that_is_full_in_mid_run_keeps_what_is_finished(
    tmp_path: Path, folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch, vsearch
) -> None:
    put, puts = FrameStore.put, 0

    def full(store: FrameStore, *arguments: Any) -> Any:
        nonlocal puts
        puts += 1
        if puts < 3:
            return put(store, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _no_room)
            return put(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FrameStore, "put", full)
        with pytest.raises(LibraryError, match=r"No room is left .* what was finished is kept"):
            index(folder)
    assert states(tmp_path) == {"media/a.mp4": "indexed", "media/b.mp4": "indexed"}
    assert not list((tmp_path / "library").rglob(".part-*"))
    hits = json.loads(vsearch("query", "anything", "--json").stdout)["hits"]
    assert {Path(hit["path"]).name for hit in hits} == {"a.mp4", "b.mp4"}
    assert (index(folder).indexed, index(folder).unchanged) == (1, 3)


def _no_room(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
def test_a_decoder_without_memory_is_tried_once_more_and_then_booked(
    tmp_path: Path, folder: Path, index: Index, said: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write_video(folder / "large.avi", "mjpeg", frames=3, size=(7680, 7680), pixels="yuvj420p")
    os.utime(folder / "large.avi", (1, 1))
    tried: list[str] = []
    start = decode_pool.Child.start
    monkeypatch.setattr(
        decode_pool.Child,
        "start",
        lambda child, path, *rest: (tried.append(path), start(child, path, *rest))[1],
    )
    options = decode_pool.DecodeOptions
    monkeypatch.setattr(
        indexing, "DecodeOptions", lambda *a, **k: replace(options(*a, **k), memory_limit_bytes=LITTLE)
    )
    summary = index(folder)
    assert [Path(path).name for path in tried] == ["a.mp4", "b.mp4", "large.avi", "c.mp4", "large.avi"]
    ((path, reason),) = summary.failures
    assert (Path(path).name, summary.indexed) == ("large.avi", 3)
    assert reason == "needs more than 0.5 GB of memory to decode"
    assert warnings(said).count("large.avi") == 1
    assert index(folder).failures == summary.failures
    assert len(tried) == 5  # booked: not again before it is asked for


LITTLE = 512 << 20


# The terminal


def command(tmp_path: Path, *arguments: object, before: str = "") -> list[str]:
    """`vsearch …` with this test's library, in a process where `before` was done."""
    code = f"{before}\nimport sys, vsearch.cli as cli\nsys.argv[0] = 'vsearch'\ncli.program()"
    return [
        sys.executable,
        "-c",
        code,
        *map(os.fspath, map(str, arguments)),
        "--library",
        str(tmp_path / "library"),
    ]


@pytest.mark.parametrize("progress", ["bar", "plain", "json"])
def test_a_terminal_that_goes_away_does_not_end_the_run(
    tmp_path: Path, folder: Path, tiny_model: Path, progress: str
) -> None:
    """As under nohup: what is written to it fails with EIO from then on."""
    import pty

    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        command(tmp_path, "index", folder, "--model", tiny_model, "--progress", progress, "--json"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert run.stdout is not None
    summary = json.loads(run.stdout.read())
    assert (run.wait(timeout=120), summary["indexed"]) == (0, 3)
    assert states(tmp_path) == dict.fromkeys(["media/a.mp4", "media/b.mp4", "media/sub/c.mp4"], "indexed")


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-", "2>/dev/full"])
def test_nobody_who_listens_is_no_fault(tmp_path: Path, folder: Path, tiny_model: Path, closed: str) -> None:
    arguments = command(tmp_path, "index", folder, "--model", tiny_model, "--json")
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *arguments], capture_output=True, timeout=120
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["indexed"] == 3  # alone: notes do not go there
    with Library.open(tmp_path / "library") as library:
        assert library.verify().clean


# Being asked to end, before there is anything to decode and elsewhere


def interrupted(run: subprocess.Popen[str], kind: signal.Signals) -> str:
    """What it says from then on. It ends soon, with 130 and without a trace of Python."""
    assert run.stderr is not None
    os.kill(run.pid, kind)
    rest = run.stderr.read()
    assert run.wait(timeout=30) == 130
    assert "Traceback" not in rest
    assert "vsearch: interrupted" in rest
    return rest


STAGES = {
    "looking for videos": "from vsearch.indexer import discover\ndiscover.find_videos = lambda *a: halt()",
    "comparing with the library": "from vsearch.indexer import run\nrun.fingerprint = lambda path: halt()",
    "loading the model": "from vsearch import models\nmodels.load_backbone = lambda *a: halt()",
}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_ends_every_stage_at_once(
    tmp_path: Path, folder: Path, tiny_model: Path, stage: str, kind: signal.Signals
) -> None:
    (folder / "a2.mp4").write_bytes((folder / "a.mp4").read_bytes())  # of one size: hashed first
    halt = "import time\nhalt = lambda sleep=time.sleep: (print('halted', file=__import__('sys').stderr, flush=True), sleep(60))\n"
    with started(tmp_path, folder, "--model", tiny_model, before=halt + STAGES[stage]) as run:
        assert run.stderr is not None
        heard = []
        for line in run.stderr:
            heard.append(line)
            if line == "halted\n":
                break
        assert json.loads(heard[-2])["stage"] == stage
        begin = time.monotonic()
        interrupted(run, kind)
        assert time.monotonic() - begin < 30  # not the 60 s that the work would have taken
    assert not list((tmp_path / "library").glob("index.progress*"))


@contextlib.contextmanager
def started(
    tmp_path: Path, folder: Path, *options: object, before: str = ""
) -> Iterator[subprocess.Popen[str]]:
    run = subprocess.Popen(
        command(tmp_path, "index", folder, "--progress", "json", *options, before=before),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )  # fmt: skip
    try:
        with run:
            yield run
    finally:
        run.kill()
