"""Children: where they run, what they may import, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import vsearch
from vsearch import process

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
HOSTILE = (
    "json",
    "numpy",
    "torch",
    "sitecustomize",
    "usercustomize",
    "typing",
    "pathlib",
    "av",
    "faiss",
    "vsearch",
)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder whose modules leave a mark when they are run."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in HOSTILE:
        marker = tmp_path / f"ran-{name}"
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("search_path", [None, "", os.pathsep, f".{os.pathsep}"])
def test_a_child_imports_nothing_from_the_working_directory(
    downloads: Path, search_path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if search_path is not None:
        monkeypatch.setenv("PYTHONPATH", search_path)
    done = process.run("json:load", None, deadline_s=60)
    assert done.returncode == 1  # json.load lacks its argument: Python's own json was called
    assert b"load() missing" in done.stderr
    assert not list(downloads.parent.glob("ran-*"))


@pytest.mark.parametrize(
    "verb", [["status"], ["ls"], ["query", "x", "--no-helper"], ["doctor"], ["models", "list"]]
)
def test_a_verb_imports_nothing_from_the_working_directory(downloads: Path, verb: list[str]) -> None:
    environment = {**os.environ, "VSEARCH_LIBRARY": str(downloads.parent / "library")}
    environment.pop("PYTHONPATH", None)
    (downloads / "vsearch.py").unlink()  # `-m vsearch` asks Python itself for a file of that name
    command = [sys.executable, "-m", "vsearch", *verb]
    done = subprocess.run(command, cwd=downloads, env=environment, capture_output=True, timeout=120)
    assert b"Traceback" not in done.stderr
    assert not list(downloads.parent.glob("ran-*"))


def test_a_child_starts_also_where_the_working_directory_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    assert process.run("os:getcwd", None, deadline_s=60).returncode == 0


def test_where_we_are_installed_comes_behind_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backports lie in site-packages under names of the standard library's; first on the path they would be taken."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr(vsearch, "__file__", str(site / "vsearch" / "__init__.py"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(site))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    done = process.run("json:load", None, deadline_s=60)
    assert b"load() missing" in done.stderr
    assert not (tmp_path / "ran").exists()


@linux
def test_a_child_that_stays_is_no_zombie_for_long() -> None:
    """Nobody waits for it: it is reaped when the next one starts."""
    ended = process.start("os:getpid", stays=True)
    pid = ended.pid
    del ended
    until(lambda: not alive(pid))
    process.run("os:getpid", None, deadline_s=60)
    assert not Path(f"/proc/{pid}").exists()


def test_an_overdue_child_is_killed_and_leaves_no_file_open() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    process.run("os:getpid", None, deadline_s=60)
    before = open_files()
    with pytest.raises(process.Overdue):
        process.run("signal:pause", None, deadline_s=0.5)
    assert open_files() == before


def sleeper(pids: str, *, with_thread: bool) -> subprocess.Popen[bytes]:
    """A parent that starts a child, writes its pid and waits."""
    code = (
        "import time; from vsearch import process\n"
        f"child = process.start('signal:pause', with_thread={with_thread})\n"
        f"open({pids!r}, 'w').write(f'{{child.pid}}\\n')\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


@linux
@pytest.mark.parametrize("with_thread", [False, True])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, with_thread: bool) -> None:
    pids = tmp_path / "pid"
    parent = sleeper(str(pids), with_thread=with_thread)
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    child = int(pids.read_text())
    time.sleep(1)  # past its start
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(child))


@linux
def test_memory_is_limited_and_a_smaller_limit_of_the_systems_holds() -> None:
    code = (
        "import resource, sys; from vsearch import process\n"
        "resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)\n"
        "done = process.run('tests.limits:show', None, deadline_s=60, memory_bytes=3 << 30)\n"
        "print(done.stdout.decode() or done.stderr.decode())\n"
    )
    root = Path(__file__).resolve().parent.parent
    for hard, expected in ((4 << 30, 3 << 30), (2 << 30, 2 << 30)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(hard)],
            cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.stdout.strip() == str(expected), done.stderr


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(done, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)
