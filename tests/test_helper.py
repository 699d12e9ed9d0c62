"""The query helper as a real process on a real socket."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vsearch.library import EncoderInfo
from vsearch.models import Encoder, ZeroShotHead, load_backbone
from vsearch.retriever import helper
from vsearch.retriever.helper import HelpedEncoder, address_of, ask, start

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX") or os.name != "posix", reason="no Unix sockets here"
)

linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc")
SENTENCES = ["a dog running on grass", "zwei Köche"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Helpers on, with a run-time folder of the test's own (short: a socket's path must be)."""
    short = tmp_path_factory.mktemp("h")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    monkeypatch.setenv(helper.SWITCH, "1")
    return short / "vsearch-helper"


@pytest.fixture
def whole(tiny_model: Path) -> Encoder:
    return Encoder(load_backbone(str(tiny_model), "cpu"), ZeroShotHead())


@pytest.fixture
def live(whole: Encoder) -> EncoderInfo:
    return EncoderInfo(1, whole.identity, whole.backbone.identity, whole.head.identity, whole.spec())


@pytest.fixture
def started(folder: Path, live: EncoderInfo) -> Iterator[Start]:
    """Start helpers that do not outlive the test; waits until the first answers, unless told otherwise."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(idle_s: float = 60, wait: bool = True) -> subprocess.Popen[bytes]:
        process = start(live, idle_s=idle_s)
        assert process is not None
        processes.append(process)
        if wait:
            until(lambda: ask(live, ["x"]) is not None)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_it_answers_what_the_whole_model_answers(started: Start, live: EncoderInfo, whole: Encoder) -> None:
    assert ask(live, SENTENCES) is None  # nobody there yet
    started()
    found = ask(live, SENTENCES)
    assert found is not None
    np.testing.assert_allclose(found, whole.embed_texts(SENTENCES), rtol=0, atol=2e-6)
    helped = HelpedEncoder(live)
    np.testing.assert_array_equal(helped.embed_texts(SENTENCES), found)
    assert not helped.worked_alone


def test_folder_and_socket_are_the_users_own(started: Start, live: EncoderInfo, folder: Path) -> None:
    started()
    address = address_of(live.identity, "auto")
    assert address is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    folder.chmod(0o755)  # whoever opens it to others has no helper
    assert address_of(live.identity, "auto") is None
    assert ask(live, SENTENCES) is None


def test_it_ends_when_idle_and_leaves_no_socket(started: Start, live: EncoderInfo) -> None:
    process = started(idle_s=0.5)
    assert process.wait(timeout=60) == 0
    address = address_of(live.identity, "auto")
    assert address is not None
    assert not address.exists()


def test_after_a_kill_queries_work_alone_and_the_next_helper_takes_over(
    started: Start, live: EncoderInfo, whole: Encoder
) -> None:
    process = started()
    process.kill()
    process.wait()
    address = address_of(live.identity, "auto")
    assert address is not None
    assert address.exists()  # stale
    alone = HelpedEncoder(live)
    np.testing.assert_allclose(alone.embed_texts(SENTENCES), whole.embed_texts(SENTENCES), rtol=0, atol=2e-6)
    assert alone.worked_alone
    started()


def test_of_several_started_at_once_one_stays(started: Start, live: EncoderInfo) -> None:
    processes = [started(wait=False) for _ in range(3)]
    until(lambda: ask(live, ["x"]) is not None)
    until(lambda: sum(process.poll() is None for process in processes) == 1)
    assert ask(live, ["x"]) is not None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 3) + b"[1]",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 5) + b"\xff\xfe\x00\x01\x02",
        struct.pack(">I", 60000) + b"[" * 60000,
    ],
)
def test_nonsense_is_hung_up_on_and_harms_nobody(started: Start, live: EncoderInfo, message: bytes) -> None:
    started()
    address = address_of(live.identity, "auto")
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(address))
        line.sendall(message)
        line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert line.recv(1) == b""
    assert ask(live, ["x"]) is not None


def test_another_model_device_or_version_has_another_address(
    folder: Path, live: EncoderInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = address_of(live.identity, "auto")
    others = {address_of("other", "auto"), address_of(live.identity, "cuda")}
    monkeypatch.setattr("vsearch.__version__", "99")
    others.add(address_of(live.identity, "auto"))
    assert len({first, *others} - {None}) == 4


@pytest.mark.slow
def test_a_helper_of_other_weights_never_listens(folder: Path, live: EncoderInfo) -> None:
    wrong = EncoderInfo(1, live.identity + "x", live.backbone, live.head, live.spec)
    process = start(wrong)
    assert process is not None
    assert process.wait(timeout=60) == 0
    assert not list(folder.glob("*.sock"))


def test_it_can_be_switched_off(folder: Path, live: EncoderInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(helper.SWITCH, "0")
    assert start(live) is None
    assert ask(live, ["x"]) is None
    assert not folder.exists()


@linux
def test_ctrl_c_in_the_terminal_does_not_reach_it(started: Start, live: EncoderInfo) -> None:
    process = started()
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    for stream in (0, 1, 2):  # it holds no terminal
        assert not os.readlink(f"/proc/{process.pid}/fd/{stream}").startswith(("/dev/pts", "/dev/tty"))


@pytest.fixture
def vsearch(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command itself, helpers on, with a library of one video."""
    from tests import media

    (tmp_path / "videos").mkdir()
    media.write_video(tmp_path / "videos" / "a.mp4")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VSEARCH_LIBRARY": str(tmp_path / "library")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vsearch", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120
        )

    indexed = run("index", "videos", "--model", str(tiny_model))
    assert indexed.returncode == 0, indexed.stderr
    return run


@pytest.mark.slow
@linux
def test_a_query_leaves_one_behind_that_answers_the_next(
    folder: Path, vsearch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    vsearch("query", "without", "--no-helper")
    assert not folder.exists()
    done = vsearch("query", "one", "--jsonl")
    assert done.returncode in (0, 1), done.stderr
    until(lambda: bool(list(folder.glob("*.sock"))))
    (lock,) = folder.glob("*.lock")
    pid = holder(lock)
    try:
        again = vsearch("query", "another", "--jsonl")
        assert again.stdout.count("\n") == done.stdout.count("\n") == 1
        assert holder(lock) == pid
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_bench_times_every_way_and_leaves_no_helper(
    folder: Path, vsearch: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = vsearch("bench", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["ways"]) == {"usual", "cold", "warm", "cached"}
    for lock in folder.glob("*.lock"):
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when somebody holds it


def holder(lock: Path) -> int:
    """The process that holds a lock (flock) on this file."""
    inode = str(lock.stat().st_ino)
    for row in Path("/proc/locks").read_text().splitlines():
        fields = row.split()
        if fields[1] == "FLOCK" and fields[5].split(":")[2] == inode:
            return int(fields[4])
    raise AssertionError("nobody holds the lock")
