"""A decoder process as its parent sees it: started, spoken to over pipes, killed.

To the child go paths with options, in JSON after a length (4 bytes, big-endian). From it come messages as
`messages` has them: frames, progress, posters, and reports of the kinds ready, broken, info, done and failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import time
from dataclasses import asdict
from typing import Any, NamedTuple

from vsearch import process
from vsearch.errors import VsearchError
from vsearch.indexer.decode.source import DecodeOptions

FRAME, PROGRESS, POSTER, REPORT = range(4)  # raw RGB; nothing; JPEG; JSON, an object with a `kind`
_LAYOUT = struct.Struct("=Iiq")
HEAD_BYTES = _LAYOUT.size


class MessageHead(NamedTuple):
    """`kind`: one of the above; `length`: bytes that follow; `ms`: a frame's time, or how far decoding has come."""

    kind: int
    length: int
    ms: int


def packed(kind: int, length: int, ms: int) -> bytes:
    return _LAYOUT.pack(length, kind, ms)


def unpacked(data: bytearray) -> MessageHead:
    length, kind, ms = _LAYOUT.unpack(data)
    return MessageHead(kind, length, ms)


_START_S = 120.0  # imports from a cold network disk
_PIPE_BYTES = 1 << 20


class ChildDied(Exception):
    """The process is gone; `returncode` as Popen has it (negative: the signal)."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode

    @property
    def cause(self) -> str:
        """For a sentence."""
        if self.returncode == -signal.SIGKILL:
            return "decoder was killed (SIGKILL), perhaps because memory ran out"
        if self.returncode < 0:
            return f"decoder crashed ({signal.Signals(-self.returncode).name})"
        return f"decoder ended by itself (exit code {self.returncode})"


class ChildSilent(Exception):
    """Nothing came for too long (`stalled`), or the job took too long altogether."""

    def __init__(self, seconds: float, stalled: bool) -> None:
        super().__init__(seconds, stalled)
        self.seconds = seconds
        self.stalled = stalled


class DecoderUnstarted(VsearchError):
    """No decoder process could be started: `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(unusable(reason))
        self.reason = reason


def unusable(reason: str) -> str:
    """The sentence for decoder processes that do not work here, whatever the file."""
    return f"the decoder process does not start ({reason}); see whether this works: python -c 'import av'"


class Child:
    """One running decoder process. `stall_s` and `budget_s` limit waiting for it, nothing else.

    Raises DecoderUnstarted when there is no process or memory to be had.
    """

    def __init__(self, memory_limit_bytes: int) -> None:
        self.stall_s = _START_S
        self.budget_s = float("inf")
        self.waited_s = 0.0
        try:
            self._process = process.start(
                "vsearch.indexer.decode.worker:main",
                [str(memory_limit_bytes)],
                stdin=True,
                stdout=True,
                memory_bytes=memory_limit_bytes,
                environment={"OPENBLAS_NUM_THREADS": "1"},
                with_thread=True,
            )
        except OSError as error:
            raise DecoderUnstarted(error.strerror or str(error)) from error
        assert self._process.stdin
        assert self._process.stdout
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # the user's pipe quota may be used up
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._out, False)  # what is there is read without asking first
        self._head = bytearray(HEAD_BYTES)
        self._head_has = 0  # bytes of the next message's head that came with the last one
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    def wait_ready(self) -> None:
        """Until it has imported what it needs. Raises DecoderUnstarted when it does not come that far."""
        try:
            head = self.read()
            report = self.report(head) if head.kind == REPORT else {"reason": "it spoke out of turn"}
        except ChildDied as died:
            report = {"reason": f"it ended with {died.returncode}"}
        except ChildSilent as silent:
            report = {"reason": f"nothing came for {silent.seconds:.0f} s"}
        if report.get("kind") != "ready":
            raise DecoderUnstarted(report["reason"])

    def start(self, path: str, options: DecodeOptions, stall_s: float) -> None:
        """Hand it a file. Raises ChildDied."""
        self.stall_s, self.budget_s, self.waited_s = stall_s, options.deadline_s, 0.0
        # Escapes what is not ASCII, also broken UTF-8.
        header = json.dumps({"path": path, "options": asdict(options)}).encode()
        try:
            os.write(self._in, len(header).to_bytes(4, "big") + header)
        except BrokenPipeError:
            raise self._died() from None

    def read(self) -> MessageHead:
        """The next message's head; what it announces has to be read before the next. Raises ChildDied, ChildSilent."""
        since = self.waited_s
        view = memoryview(self._head)[self._head_has :]
        while view:
            view = view[self._some([view], since) :]
        self._head_has = 0
        return unpacked(self._head)

    def fill(self, target: memoryview) -> None:
        """The bytes that follow a head, as many as `target` (not none) has room for. Raises ChildDied, ChildSilent."""
        since = self.waited_s
        head = memoryview(self._head)
        while True:
            count = self._some([target, head], since)
            if count >= len(target):
                self._head_has = count - len(target)
                return
            target = target[count:]

    def report(self, head: MessageHead) -> dict[str, Any]:
        """The JSON that follows a head. Raises ChildDied, ChildSilent."""
        data = bytearray(head.length)
        self.fill(memoryview(data))
        report: dict[str, Any] = json.loads(data)
        return report

    def kill(self) -> None:
        """At once, from any thread; whoever reads then gets ChildDied."""
        self._process.kill()

    def close(self) -> None:
        """Kill, reap, close the pipes. Only where no other thread reads."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError), self._process:
            pass

    def _some(self, targets: list[memoryview], since: float) -> int:
        """What is there, once there is something: its bytes."""
        while True:
            try:
                count = os.readv(self._out, targets)
            except BlockingIOError:
                self._wait(since)
                continue
            if not count:
                raise self._died()
            return count

    def _wait(self, since: float) -> None:
        """Until there is something to read; `since`: value of `waited_s` when the message was asked for."""
        while True:
            left = min(self.stall_s - (self.waited_s - since), self.budget_s - self.waited_s)
            begin = time.monotonic()
            ready = self._poll.poll(1000 * max(0.0, min(left, 3600.0)))
            self.waited_s += time.monotonic() - begin
            if ready:
                return
            if self.waited_s >= self.budget_s:
                raise ChildSilent(self.budget_s, stalled=False)
            if self.waited_s - since >= self.stall_s:
                raise ChildSilent(self.stall_s, stalled=True)

    def _died(self) -> ChildDied:
        try:
            return ChildDied(self._process.wait(timeout=5.0))
        except process.Overdue:  # it closed its pipe but lives on
            self._process.kill()
            return ChildDied(self._process.wait())
