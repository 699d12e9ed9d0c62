"""How an indexing run ends that is asked to end, and what others are told of it meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_cli import make_video
from vsearch import machine
from vsearch.indexer import Progress, running
from vsearch.indexer.decode import default_workers
from vsearch.indexer.encoding import ahead
from vsearch.indexer.shared_progress import shared


def many(folder: Path, count: int = 40) -> Path:
    """Videos of 20 s that differ by a few bytes that no player reads."""
    folder.mkdir()
    content = make_video(folder / "00.mp4", [((90, 90, 200), 20)]).read_bytes()
    for i in range(1, count):
        (folder / f"{i:02}.mp4").write_bytes(content + bytes([0, 0, 0, 8 + i]) + b"free" + bytes(i))
        os.utime(folder / f"{i:02}.mp4", (1, 1))
    return folder


def started(tmp_path: Path, folder: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    """A run of the command, past its second video."""
    environment = {**os.environ, "VSEARCH_LIBRARY": str(tmp_path / "library"), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-m", "vsearch", "index", str(folder), "--model", str(model), "--progress", "json", *more],
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        preexec_fn=heed,
    )  # fmt: skip
    assert run.stderr is not None
    for line in run.stderr:
        if json.loads(line)["videos_done"] >= 2:
            break
    return run


def heed() -> None:
    """A test run in the background, or under nohup, hands on that these are ignored."""
    for kind in (signal.SIGINT, signal.SIGHUP):
        signal.signal(kind, signal.SIG_DFL)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def gone(pids: list[int]) -> bool:
    """Whether they all end, within a while."""
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_publishes_what_is_finished_and_the_next_goes_on(
    tmp_path: Path, tiny_model: Path, vsearch, kind: signal.Signals
) -> None:
    run = started(tmp_path, many(tmp_path / "many"), tiny_model)
    decoders = children(run.pid)
    assert decoders
    if kind == signal.SIGINT:
        os.killpg(run.pid, kind)  # a terminal asks the decoders, too
    else:
        os.kill(run.pid, kind)
        os.kill(run.pid, signal.SIGHUP)  # a shell adds its own
    begin = time.monotonic()
    assert run.stderr is not None
    assert "Traceback" not in run.stderr.read()
    assert run.wait(timeout=60) == 130
    assert time.monotonic() - begin < 20  # the promise is 2 s; a loaded test machine gets more
    assert gone(decoders)
    assert not list((tmp_path / "library").glob("index.progress*"))
    status = json.loads(vsearch("status", "--json").stdout)
    assert 2 <= status["videos"]["indexed"] < 40
    assert status["up_to_date"]
    assert vsearch("query", "anything").returncode == 0
    if kind == signal.SIGINT:
        done, after = (
            status["videos"]["indexed"],
            json.loads(vsearch("index", tmp_path / "many", "--json").stdout),
        )
        assert (after["unchanged"], after["indexed"]) == (done, 40 - done)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_decoder_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, tiny_model: Path, vsearch, kind: signal.Signals
) -> None:
    run = started(tmp_path, many(tmp_path / "many", 10), tiny_model, "--workers", "1")
    decoders = children(run.pid)
    for pid in decoders:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.0)  # until the run waits for them
    begin = time.monotonic()
    os.kill(run.pid, kind)
    assert run.wait(timeout=60) == 130
    assert time.monotonic() - begin < 15  # it waited until the decoder counted as hung: 30 s
    assert gone(decoders)
    assert vsearch("query", "anything").returncode == 0


def test_a_hang_up_that_the_user_ignores_is_ignored() -> None:
    """`nohup vsearch …` goes on: only what would kill is made an interruption, whatever the verb."""
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); import vsearch.cli as cli\n"
        "kinds = signal.SIGHUP, signal.SIGTERM\n"
        "cli.main = lambda: print([signal.getsignal(k) in (signal.SIG_IGN, signal.SIG_DFL) for k in kinds])\n"
        "cli.program()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[True, False]"


def test_requests_to_end_that_follow_do_not_disturb_the_end() -> None:
    code = (
        "import signal, vsearch.cli as cli\n"
        "kinds = signal.SIGHUP, signal.SIGTERM\n"
        "for kind in kinds: signal.signal(kind, signal.SIG_DFL)\n"
        "def main():\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    except KeyboardInterrupt: print('asked', flush=True)\n"
        "    for kind in kinds: signal.raise_signal(kind)\n"
        "    print('finished')\n"
        "cli.main = main\ncli.program()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["asked", "finished"], done.stderr


def test_leaving_early_stops_the_source_before_waiting_for_it() -> None:
    """What blocks in its source, as a decoder that hangs, is ended first."""
    import threading

    stopped = threading.Event()

    def given() -> Iterator[int]:
        yield 1
        assert stopped.wait(60)

    ready = ahead(lambda items: (2 * item for item in items), given(), 4, lambda: None, stopped.set)
    assert next(ready) == 2
    ready.close()
    assert stopped.is_set()
    kept = threading.Event()
    assert list(ahead(lambda items: items, [1, 2], 4, lambda: None, kept.set)) == [1, 2]
    assert not kept.is_set()  # at its own end there is nothing to stop


def test_a_run_is_told_of_however_long_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared(tmp_path, lambda progress: None) as report:
        report(Progress("comparing with the library"))
        os.utime(tmp_path / "index.progress", (1, 1))  # hours ago
        record = running(tmp_path)
        assert record is not None
        assert record["stage"] == "comparing with the library"
    assert running(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_does_not_count_whatever_the_clock_says(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from vsearch.indexer import Progress\n"
        "from vsearch.indexer.shared_progress import shared\n"
        "with shared(pathlib.Path(sys.argv[1]), lambda p: None) as report:\n"
        "    report(Progress('indexing', 5, 1)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    left = tmp_path / "index.progress"
    assert left.exists()
    os.utime(left, (time.time() + 1e6, time.time() + 1e6))  # the clock jumped back
    assert running(tmp_path) is None
    with shared(tmp_path, lambda progress: None):
        assert not left.exists()  # what the next run has not said yet, the last one did not say for it


def test_cores_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    monkeypatch.setattr(machine, "_CGROUPS", groups)
    monkeypatch.setattr(machine, "_OWN_CGROUP", own)
    assert machine.available_cores() == 16
    (groups / "system.slice" / "box").mkdir(parents=True)
    own.write_text("0::/system.slice/box\n")
    (groups / "system.slice" / "cpu.max").write_text("max 100000\n")
    assert machine.available_cores() == 16
    (groups / "system.slice" / "cpu.max").write_text("350000 100000\n")
    (groups / "system.slice" / "box" / "cpu.max").write_text("600000 100000\n")
    assert machine.available_cores() == 4
    assert default_workers() == 4
    own.write_text("4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n")  # version 1
    (groups / "cpu" / "docker" / "1").mkdir(parents=True)
    (groups / "cpu" / "docker" / "1" / "cpu.cfs_quota_us").write_text("200000\n")
    (groups / "cpu" / "docker" / "1" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.available_cores() == 2
