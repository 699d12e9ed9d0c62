"""Frames through the image encoder while decoding goes on and videos are recorded.

On the CPU, batches are encoded side by side by threads that each use their share of the cores: on two cores two
batches at once take less time than one after the other with both cores on each, because layers of a small network
end before both have started, and a core that a decoder holds delays one batch instead of every layer.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.indexer.decode_pool import Event, FrameChunk, JobDone, JobFailed

if TYPE_CHECKING:
    from vsearch.models import Backbone

Vectors = npt.NDArray[np.float16]

_MAX_LANES = 4  # more would only hold more batches in memory
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES = 1 << 30


class Lanes:
    """Threads that encode batches. Use as a context manager; leaving it waits for the batches in work.

    Not more than two batches a lane wait or are in work: `submit` blocks, and so do the decoders in the end.
    """

    def __init__(self, backbone: Backbone) -> None:
        import torch

        self._backbone = backbone
        backbone.arrange()
        self._threads = torch.get_num_threads()
        count = min(_MAX_LANES, self._threads) if backbone.device == "cpu" else 1
        self._room = threading.Semaphore(2 * count)
        self._fault: BaseException | None = None
        self._pool = ThreadPoolExecutor(
            count, "vsearch-encoder", initializer=torch.set_num_threads, initargs=(self._threads // count,)
        )

    def submit(self, frames: npt.NDArray[np.uint8]) -> Future[Vectors]:
        """(n, S, S, 3) -> (n, D) float16, as they are stored. Raises what encoding an earlier batch raised."""
        self._room.acquire()
        if self._fault:
            raise self._fault
        future = self._pool.submit(self._encode, frames)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _encode(self, frames: npt.NDArray[np.uint8]) -> Vectors:
        try:
            with np.errstate(over="ignore"):  # what is not finite is refused when it is stored
                return self._backbone.encode_frames(frames).astype(np.float16)
        except BaseException as fault:
            self._fault = fault
            raise

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # what a lane has set counts for threads to come, too


class VideoFrames:
    """One video's frames on their way through the encoder, in batches that begin with the video: its vectors do not
    depend on what is indexed with it."""

    def __init__(self, lanes: Lanes, batch_size: int) -> None:
        self._lanes = lanes
        self._batch_size = batch_size
        self._waiting = np.empty((0, 0, 0, 3), np.uint8)
        self._vectors: list[Future[Vectors]] = []
        self._times: list[npt.NDArray[np.int64]] = []

    def add(self, frames: npt.NDArray[np.uint8], times_ms: npt.NDArray[np.int64]) -> int:
        """Take frames (n, S, S, 3), hand on all full batches; the number handed on."""
        self._times.append(times_ms)
        self._waiting = np.concatenate([self._waiting, frames]) if len(self._waiting) else frames
        return self._submit(len(self._waiting) - len(self._waiting) % self._batch_size)

    def flush(self) -> int:
        return self._submit(len(self._waiting))

    def ready(self) -> bool:
        return all(future.done() for future in self._vectors)

    def result(self) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """vectors (T, D), times_ms (T,); waits for them. Raises what encoding raised."""
        return np.concatenate([future.result() for future in self._vectors]), np.concatenate(self._times)

    def _submit(self, count: int) -> int:
        for first in range(0, count, self._batch_size):
            self._vectors.append(
                self._lanes.submit(self._waiting[first : min(first + self._batch_size, count)])
            )
        self._waiting = self._waiting[count:]
        return count


def encoded(
    events: Iterable[Event], lanes: Lanes, batch_size: int, on_frames: Callable[[int], None]
) -> Iterator[tuple[JobDone | JobFailed, VideoFrames | None]]:
    """Every job's end, in the order in which jobs end, once its frames are encoded; None where it has none.

    `on_frames` hears of frames handed to the encoder. Encoding goes on while the caller deals with a video.
    """
    buffers: dict[int, VideoFrames] = {}
    ended: deque[tuple[JobDone | JobFailed, VideoFrames | None]] = deque()
    for event in events:
        if isinstance(event, FrameChunk):
            buffer = buffers.setdefault(event.job_id, VideoFrames(lanes, batch_size))
            on_frames(buffer.add(event.frames, event.times_ms))
        else:
            frames = buffers.pop(event.job_id, None)
            if frames:
                on_frames(frames.flush())
            ended.append((event, frames))
        while ended and (ended[0][1] is None or ended[0][1].ready()):
            yield ended.popleft()
    yield from ended


def keep_freed_memory() -> None:
    """Let glibc keep what a batch's layers free for those of the next. It would give large blocks back to the system
    each time, and half of a small network's time would go into having the pages cleared again. For the whole process;
    before libraries start their threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            libc.mallopt(_M_ARENA_MAX, 1)  # those of further threads keep no large blocks
