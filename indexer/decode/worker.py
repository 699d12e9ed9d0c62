"""Main of a decoder process (see `child`); its argument is its memory limit in bytes.

Reads jobs from its standard input, writes messages to what was its standard output. Nothing that FFmpeg or
decord print gets through.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vsearch.errors import MediaError
from vsearch.indexer.decode.child import FRAME, POSTER, PROGRESS, REPORT, packed
from vsearch.indexer.decode.picture import FrameShape, Image
from vsearch.indexer.decode.sampling import decode
from vsearch.indexer.decode.source import DecodeOptions
from vsearch.machine import give_back_memory
from vsearch.records import MediaInfo

_PROGRESS_S = 0.5
_GIVE_BACK_EVERY = 64  # frames; each may leave a quarter of a MB that nothing uses


def main() -> None:
    memory_bytes = int(sys.argv[1])
    out = _claim_stdout()
    try:
        _import_decoder()
    except Exception as error:
        return _report(out, {"kind": "broken", "reason": f"{type(error).__name__}: {error}"})
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    _report(out, {"kind": "ready"})
    while True:
        sink = _PipeSink(out)
        job = jobs.get()
        options = DecodeOptions(**{**job["options"], "shape": FrameShape(**job["options"]["shape"])})
        try:
            outcome = decode(Path(job["path"]), options, sink)
        except Exception as error:
            _report(out, _fault(error, memory_bytes))
        else:
            _report(out, {"kind": "done", **asdict(outcome)})


def _fault(error: Exception, memory_bytes: int) -> dict[str, Any]:
    """What a fault is reported as: the file's own (`failed`), one that may pass, or this installation's (`broken`)."""
    if isinstance(error, ImportError | SyntaxError | NameError):
        return {"kind": "broken", "reason": f"{type(error).__name__}: {error}"}
    passing = _memory_ran_out(error)
    if isinstance(error, MediaError):
        reason = str(error)
    elif passing:
        reason = f"needs more than {memory_bytes / (1 << 30):.1f} GB of memory to decode"
    elif isinstance(error, OSError):
        reason = f"cannot be read: {error.strerror or error}"
        passing = error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
    else:  # whatever else a damaged file makes a decoder raise is that file's fault, not the run's
        reason = "damaged: its decoder failed"
    return {"kind": "failed", "reason": reason, "passing": passing}


def _memory_ran_out(error: BaseException | None) -> bool:
    """Also where a decoder has put it into a sentence of its own."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


class _PipeSink:
    """`decode.Sink` that writes messages."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._last_progress = 0.0
        self._frames = 0

    def info(self, info: MediaInfo) -> None:
        _report(self._out, {"kind": "info", "info": asdict(info)})

    def frame(self, time_ms: int, image: Image) -> None:
        _send(self._out, FRAME, image.data.cast("B"), time_ms)
        self._frames += 1
        if self._frames % _GIVE_BACK_EVERY == 0:
            give_back_memory()

    def progress(self, time_ms: int) -> None:
        now = time.monotonic()
        if now - self._last_progress > _PROGRESS_S:
            self._last_progress = now
            _send(self._out, PROGRESS, b"", time_ms)

    def poster(self, jpeg: bytes) -> None:
        _send(self._out, POSTER, jpeg)


def _report(out: int, report: dict[str, Any]) -> None:
    # A reason may quote a file name that is not UTF-8; JSON's escapes carry that through.
    _send(out, REPORT, json.dumps(report).encode())


def _send(out: int, kind: int, payload: bytes | memoryview, ms: int = 0) -> None:
    left = [memoryview(packed(kind, len(payload), ms)), memoryview(payload)]
    try:
        while left:
            written = os.writev(out, left)
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
    except BrokenPipeError:
        os._exit(0)


def _read_jobs(jobs: queue.Queue[dict[str, Any]]) -> None:
    stdin = sys.stdin.buffer
    while len(length := stdin.read(4)) == 4:
        jobs.put(json.loads(stdin.read(int.from_bytes(length, "big"))))
    os._exit(0)  # the parent is gone or done with us, whatever the decoder is doing


def _claim_stdout() -> int:
    """The pipe to the parent, under a number that no library prints to."""
    out = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return out


def _import_decoder() -> None:
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)
