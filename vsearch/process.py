"""Starting processes of our own. Nothing else in this package starts one.

Every child runs a function of this installation. It starts in `/` with a search path that holds no folder of the
user's, so that a `json.py` among downloads is never imported; with limits; in a session of its own, so that Ctrl-C in
the terminal is for the parent; and, unless it is told to stay, it ends when its parent does, however that ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import vsearch

TERM_PATIENCE_S = 10.0  # what a child asked to end may take for it
_NO_MEMORY = (
    b"MemoryError", b"failed to map segment", b"annot allocate memory", b"emory allocation", b"bad_alloc",
    b"pthread_create failed", b"SystemError: error return without exception set",
)  # fmt: skip
_START = "import sys; sys.path[:] = [p for p in sys.path if p]; from vsearch.process import _child; _child()"


class Overdue(Exception):
    """A child took longer than its deadline, and was killed."""


class Finished(NamedTuple):
    """How a child ended (negative: the signal), and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def last_line(self) -> str:
        """The last line on its stderr: its reason, by our children's custom. Empty when there is none."""
        lines = self.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def lacked_memory(self) -> bool:
        """Whether it failed for want of memory, as Python, the loader and the libraries that we use say it."""
        return self.returncode != 0 and any(word in self.stderr for word in _NO_MEMORY)


class Process(subprocess.Popen[bytes]):
    """A running child. It ends with this object, unless it was started to stay."""

    _lifeline: int | None = None  # our end of a pipe; the child ends when it closes

    def wait(self, timeout: float | None = None) -> int:
        """Its return code. Raises Overdue after `timeout` seconds; it then lives on."""
        try:
            return super().wait(timeout)
        except subprocess.TimeoutExpired:
            raise Overdue from None

    def end(self, patience_s: float = TERM_PATIENCE_S) -> int:
        """Ask it to end (SIGTERM, which is an interruption to our commands), kill it after `patience_s`."""
        self.terminate()
        try:
            return self.wait(patience_s)
        except Overdue:
            self.kill()
            return self.wait()

    def __del__(self) -> None:
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None
        super().__del__()


def run(
    target: str,
    order: object = None,
    *,
    arguments: Sequence[str] = (),
    deadline_s: float,
    memory_bytes: int = 0,
) -> Finished:
    """Run `target` ("package.module:function") in a child to its end: `order` as JSON on its standard input,
    `arguments` as its `sys.argv[1:]`.

    `memory_bytes`: address space that it may use; 0: any. Raises Overdue (the child is killed), OSError when no
    process can be started.
    """
    process = start(
        target, arguments, stdin=True, stdout=True, stderr=True, memory_bytes=memory_bytes, with_thread=True
    )
    try:
        stdout, stderr = process.communicate(json.dumps(order).encode(), timeout=deadline_s)
    except subprocess.TimeoutExpired:
        raise Overdue from None
    finally:  # also when interrupted
        if process.poll() is None:
            process.kill()
            with process:  # close the pipes, reap
                pass
    return Finished(process.returncode, stdout, stderr)


def start(
    target: str,
    arguments: Sequence[str] = (),
    *,
    stdin: bool = False,
    stdout: bool = False,
    stderr: bool = False,
    memory_bytes: int = 0,
    environment: Mapping[str, str] | None = None,
    with_thread: bool = False,
    stays: bool = False,
) -> Process:
    """Start `target` ("package.module:function") in a child; `arguments` are its `sys.argv[1:]`.

    `stdin`, `stdout`, `stderr`: whether each is a pipe to us, else it is nothing. `with_thread`: on Linux it is killed
    with the thread that starts it, at once and whatever it does. `stays`: it outlives us. Give it absolute paths: it
    runs in `/`. Raises OSError.
    """
    far, near = (None, None) if stays else os.pipe()
    setting = {
        "target": target, "memory_bytes": memory_bytes, "lifeline": far, "parent": os.getpid() if with_thread else None,
    }  # fmt: skip
    try:
        process = Process(
            [sys.executable, "-c", _START, json.dumps(setting), *arguments],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={**_environment(), **(environment or {})},
            pass_fds=() if far is None else (far,),
        )
    except BaseException:
        if near is not None:
            os.close(near)
        raise
    finally:
        if far is not None:
            os.close(far)
    process._lifeline = near
    return process


def _environment() -> dict[str, str]:
    """Ours, with a search path that does not depend on the working directory."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    given = environment.pop("PYTHONPATH", "").split(os.pathsep)
    entries = [_absolute(entry) for entry in given if entry.strip("./")]
    home = os.path.dirname(os.path.dirname(os.path.abspath(vsearch.__file__)))
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if home in map(_absolute, sys.path) and home not in installed:  # found by folder
        entries.insert(0, home)
    if entries:
        environment["PYTHONPATH"] = os.pathsep.join(entries)
    return environment


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except FileNotFoundError:  # relative to a working directory that was deleted
        return "/"


def _child() -> None:
    """What every child does first."""
    setting: dict[str, Any] = json.loads(sys.argv[1])
    if setting["parent"] is not None:
        _die_with(setting["parent"])
    if setting["lifeline"] is not None:
        threading.Thread(
            target=_watch, args=(setting["lifeline"],), daemon=True, name="vsearch-lifeline"
        ).start()
    _limit(setting["memory_bytes"])
    module, _, function = setting["target"].partition(":")
    sys.argv = ["vsearch", *sys.argv[2:]]
    getattr(importlib.import_module(module), function)()


def _watch(lifeline: int) -> None:
    """End when the other end of the pipe is gone: as if asked to, then at once."""
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(TERM_PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_with(parent: int) -> None:
    """On Linux the kernel kills this process with the thread that started it, even while a decoder holds the interpreter."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _limit(memory_bytes: int) -> None:
    import resource

    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory_bytes)][: 2 if memory_bytes else 1]
    for kind, value in limits:
        with contextlib.suppress(ValueError, OSError):  # macOS does not limit address space
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
