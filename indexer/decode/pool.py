"""Decoder processes, supervised: jobs in, frames out, whatever a file does to its decoder.

Each worker is a child process in a session of its own, fed and read over pipes by one thread here. The thread
starts it before there is a job, watches it, and kills and replaces it when it hangs, crashes or takes too long;
frames that had arrived by then are kept. A full event queue blocks the thread, the pipe fills, and the child waits: memory is
bounded, and a clock runs only while the thread waits for the child.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError
from vsearch.indexer.decode.child import (
    FRAME,
    POSTER,
    PROGRESS,
    Child,
    ChildDied,
    ChildSilent,
    DecoderUnstarted,
    unusable,
)
from vsearch.indexer.decode.source import DECODERS, DecodeOptions, clock
from vsearch.indexer.fingerprint import Content, FileChanged, Watched
from vsearch.records import MediaInfo

_RESTART_AFTER_S = (0.1, 0.5, 2.0)
_CLOSING_S = 1.0  # a process that waits for a dead disk cannot even be killed
_LOOK_AHEAD = 2  # events for each worker that may wait for the consumer, beside the chunk in work


@dataclass(frozen=True)
class DecodeJob:
    """A file to decode; `id` comes back with its events. `identify`: say at its end what content was decoded; `known`:
    what it was when last looked at, which spares hashing it if it has not changed."""

    id: int
    path: Path
    identify: bool = False
    known: Content | None = None


@dataclass(frozen=True)
class FrameChunk:
    """Successive frames (n, size, size, 3) uint8 RGB of one job, and their times (n,) in milliseconds."""

    job_id: int
    frames: npt.NDArray[np.uint8]
    times_ms: npt.NDArray[np.int64]


@dataclass(frozen=True)
class JobDone:
    """A job's end, after its chunks. `partial`: a sentence if some of it is missing; `covered_ms`: its end. `passing`:
    that may have been no fault of the file. `content`: where the job asked for it."""

    job_id: int
    info: MediaInfo
    frames: int
    partial: str | None
    covered_ms: int
    poster_jpeg: bytes | None
    passing: bool = False
    content: Content | None = None


@dataclass(frozen=True)
class JobFailed:
    """A job that gave nothing of use, with the reason as a sentence. `passing`: it may have been no fault of the file:
    its decoder died, hung, had no memory or did not start. `left`: nothing
    was learnt of the file (it changed, or no decoder could be started), so it is for next time."""

    job_id: int
    reason: str
    passing: bool = False
    content: Content | None = None
    left: bool = False


Event = FrameChunk | JobDone | JobFailed
_Order = tuple[DecodeJob, DecodeOptions]


class DecodePool:
    """`workers` decoder processes, starting at once. Use as a context manager; leaving it kills them at once.

    Chunks of one job come in order of time and are cut after every `chunk_frames` frames, whatever the
    timing; events of different jobs mix.
    """

    def __init__(self, options: DecodeOptions, workers: int) -> None:
        if options.decoder not in DECODERS:
            raise ValueError(f"no such decoder: {options.decoder}; use {', '.join(DECODERS)}")
        self._jobs: queue.Queue[_Order | None] = queue.Queue()
        self._options = options
        self._events: queue.Queue[Event | BaseException] = queue.Queue(_LOOK_AHEAD * workers)
        self._closed = threading.Event()
        self._starting = workers  # those that have not failed to start their first process
        self._mutex = threading.Lock()
        self._workers = [
            _Worker(i, options, self._jobs, self._put, self._closed, self._dispensable)
            for i in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def run(self, jobs: Iterable[DecodeJob], options: DecodeOptions | None = None) -> Iterator[Event]:
        """Decode all jobs; they are taken from the iterable only as workers come free. `options`: others than the
        pool's for these jobs; what they say of processes (memory, videos of each) is without effect.

        Raises VsearchError when decoder processes cannot be started at all, or lack a part of this installation. Ends
        when the pool is closed."""
        waiting = iter(jobs)
        in_work = 0
        exhausted = False
        while True:
            while not exhausted and in_work < 2 * len(self._workers):
                job = next(waiting, None)
                if job is None:
                    exhausted = True
                else:
                    self._jobs.put((job, options or self._options))
                    in_work += 1
            if not in_work:
                return
            try:
                event = self._events.get(timeout=0.5)
            except queue.Empty:
                if self._closed.is_set():
                    return
                continue
            if isinstance(event, BaseException):
                raise event
            if not isinstance(event, FrameChunk):
                in_work -= 1
            yield event

    def close(self) -> None:
        """Kill all children, drop what is in work. Safe to call twice."""
        self._closed.set()
        for worker in self._workers:
            worker.kill()
            self._jobs.put(None)
        end = time.monotonic() + _CLOSING_S
        for worker in self._workers:
            worker.join(timeout=max(0.0, end - time.monotonic()))

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _dispensable(self) -> bool:
        """Whether a worker that cannot start may go, as others do the work."""
        with self._mutex:
            self._starting -= 1
            return self._starting > 0

    def _put(self, event: Event | BaseException) -> None:
        """Blocks while the consumer is behind. After closing, events fall to the floor."""
        while not self._closed.is_set():
            try:
                return self._events.put(event, timeout=0.1)
            except queue.Full:
                continue


class _Worker(threading.Thread):
    """One child process after another, and the job it works on."""

    def __init__(
        self,
        number: int,
        options: DecodeOptions,
        jobs: queue.Queue[_Order | None],
        put: Callable[[Event | BaseException], None],
        closed: threading.Event,
        dispensable: Callable[[], bool],
    ) -> None:
        super().__init__(daemon=True, name="vsearch-decoder")
        self._number = number
        self._options = options
        self._jobs = jobs
        self._put = put
        self._closed = closed
        self._dispensable = dispensable
        self._lock = threading.Lock()  # no child may be started after close()
        self._child: Child | None = None
        self._videos = 0

    def run(self) -> None:
        # The child is tied to this thread's life: PR_SET_PDEATHSIG watches the thread that started it.
        try:
            try:
                self._ready_child()
            except DecoderUnstarted:
                self._drop_child()
                if self._dispensable():
                    return
                raise
            while (order := self._jobs.get()) is not None and not self._closed.is_set():
                self._decode(*order)
        except BaseException as error:
            self._put(error)
        finally:
            self._drop_child()

    def kill(self) -> None:
        """From another thread: the child dies at once, and this thread notices."""
        with self._lock:
            if self._child:
                self._child.kill()

    def _decode(self, job: DecodeJob, options: DecodeOptions) -> None:
        own_gpu = options.gpus[self._number % len(options.gpus)]
        options = replace(options, gpus=(own_gpu,))
        record = _Record(job, options, self._put)
        try:
            child = self._another_child()
        except DecoderUnstarted as fault:
            reason = f"no decoder process could be started ({fault.reason})"
            return self._put(JobFailed(job.id, reason, passing=True, left=True))
        if child is None:
            return
        self._videos += 1
        try:
            child.start(os.path.abspath(job.path), options, options.stall_for(job.path))
            while not record.take(child):
                pass
        except ChildSilent as silent:
            self._drop_child()
            record.broken(
                f"decoder hung for {silent.seconds:.0f} s"
                if silent.stalled
                else f"decoding took longer than the {silent.seconds:.0f} s that it may"
            )
        except ChildDied as died:
            self._drop_child()
            record.broken(died.cause)

    def _another_child(self) -> Child | None:
        """Where processes or memory are short just now, they may be had a little later."""
        for wait_s in _RESTART_AFTER_S:
            try:
                return self._ready_child()
            except DecoderUnstarted:
                self._drop_child()
                if self._closed.wait(wait_s):
                    return None
        try:
            return self._ready_child()
        except DecoderUnstarted:
            self._drop_child()
            raise

    def _ready_child(self) -> Child | None:
        if self._child and self._videos >= self._options.videos_per_process:
            self._drop_child()  # decoders leak
        if self._child is None:
            with self._lock:
                if self._closed.is_set():
                    return None
                self._child = Child(self._options.memory_limit_bytes)
            self._child.wait_ready()  # without the lock: close() may come meanwhile
            self._videos = 0
        return self._child

    def _drop_child(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child:
            child.close()


class _Record:
    """What has come of one job. Gathers frames into chunks; every end of a job passes through here."""

    def __init__(
        self, job: DecodeJob, options: DecodeOptions, put: Callable[[Event | BaseException], None]
    ) -> None:
        self._job = job
        self._job_id = job.id
        self._file = Watched(job.path) if job.identify else None
        self._options = options
        self._put = put
        self._info: MediaInfo | None = None
        self._poster: bytes | None = None
        self._reached_ms = self._allowed_ms = 0
        self._count = 0
        self._frames = self._new_chunk()
        self._times: list[int] = []

    def take(self, child: Child) -> bool:
        """One message; True when it was the job's last. Raises ChildDied, ChildSilent."""
        head = child.read()
        if head.kind == FRAME:
            child.fill(memoryview(self._frames[len(self._times)]).cast("B"))
            self._times.append(head.ms)
            self._reach(child, head.ms)
            if len(self._times) == self._options.chunk_frames:
                self._flush()
            return False
        if head.kind == PROGRESS:
            self._reach(child, head.ms)
            return False
        if head.kind == POSTER:
            jpeg = bytearray(head.length)
            child.fill(memoryview(jpeg))
            self._poster = bytes(jpeg)
            return False
        report = child.report(head)
        if report["kind"] == "info":
            self._info = MediaInfo(**report["info"])
            self._allow(child, self._info.duration_ms)
            return False
        if report["kind"] == "done":
            self._flush()
            info = MediaInfo(**report["info"])
            self._close(
                JobDone(
                    self._job_id, info, self._count, report["partial"], report["covered_ms"], self._poster
                )
            )
        elif report["kind"] == "broken":
            raise VsearchError(unusable(report["reason"]))
        else:
            self._end(report["reason"], report["passing"])
        return True

    def _reach(self, child: Child, ms: int) -> None:
        self._reached_ms = ms
        self._allow(child, ms)

    def _allow(self, child: Child, ms: int) -> None:
        """Time for so much of the video: of what it says, and of what it turns out to hold."""
        if ms > self._allowed_ms:
            child.budget_s += self._options.deadline_per_video_s * (ms - self._allowed_ms) / 1000
            self._allowed_ms = ms

    def broken(self, cause: str) -> None:
        """The decoder had to be given up; `cause` says why."""
        self._end(f"{cause} at {clock(self._reached_ms / 1000)}" if self._info else cause, passing=True)

    def _end(self, reason: str, passing: bool) -> None:
        """Frames that are there count: the job is partial. Without any it has failed."""
        self._flush()
        if self._count and self._info:
            of = f" of {clock(self._info.duration_ms / 1000)}" if self._info.duration_ms else ""
            sentence = f"only {clock(self._reached_ms / 1000)}{of} could be decoded: {reason}"
            self._close(
                JobDone(
                    self._job_id, self._info, self._count, sentence, self._reached_ms, self._poster, passing
                )
            )
        else:
            self._close(JobFailed(self._job_id, reason, passing))

    def _close(self, end: JobDone | JobFailed) -> None:
        """The end, with the content that it is the end of: hashed here, while the system still has it in memory."""
        if self._file:
            try:
                end = replace(end, content=self._file.content(self._job.known))
            except FileChanged as change:
                reason = f"{change} while it was read; left for next time"
                end = JobFailed(self._job_id, reason, left=True)
            except OSError as error:
                if isinstance(end, JobDone):
                    end = JobFailed(self._job_id, f"cannot be read: {error.strerror or error}", passing=True)
        self._put(end)

    def _flush(self) -> None:
        if self._times:
            count = len(self._times)
            self._put(FrameChunk(self._job_id, self._frames[:count], np.array(self._times, np.int64)))
            self._count += count
            self._frames = self._new_chunk()
            self._times = []

    def _new_chunk(self) -> npt.NDArray[np.uint8]:
        size = self._options.shape.size
        return np.empty((self._options.chunk_frames, size, size, 3), np.uint8)
