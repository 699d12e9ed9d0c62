"""Frames through the image encoder while decoding goes on and videos are recorded.

Every batch has the same size: frames of successive videos fill it together, and the last one is filled up with black.
Convolution libraries choose their way by the shape, so batches of other sizes are up to 1.6 times slower a frame, and
their vectors differ in the last bits; in batches of one size a frame's vector does not depend on its place or company.
Where the encoder looks across frames, batches are of one video, and the last of each is shorter.

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
from queue import SimpleQueue
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
_GATHERED = 256  # batches of a video whose vectors are joined at once


class Lanes:
    """Threads that encode batches. Use as a context manager; leaving it waits for the batches in work.

    Several backbones, replicas of one on several devices, share the batches: each takes the next as it comes free.
    Not more than two batches a lane wait or are in work: `submit` blocks, and so do the decoders in the end.
    `graphs`: see `models.gpu.Lane`; so far benchmarks/gpu.py alone asks for it.
    """

    def __init__(self, *backbones: Backbone, graphs: bool = False) -> None:
        import torch

        from vsearch.models.gpu import LANES, Lane

        self._threads = torch.get_num_threads()
        self.frames_together = backbones[0].frames_together
        for backbone in backbones:
            backbone.arrange()
        count = LANES * len(backbones)
        if backbones[0].device == "cpu":
            count = max(len(backbones), min(_MAX_LANES, self._threads))
        self._free: SimpleQueue[Lane] = SimpleQueue()  # a lane for each thread
        for i in range(count):
            self._free.put(Lane(backbones[i % len(backbones)], graphs))
        self._room = threading.Semaphore(2 * count)
        self._fault: BaseException | None = None
        self._pool = ThreadPoolExecutor(
            count,
            "vsearch-encoder",
            initializer=torch.set_num_threads,
            initargs=(max(1, self._threads // count),),
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
        lane = self._free.get()
        try:
            with np.errstate(over="ignore"):  # what is not finite is refused when it is stored
                return lane.encode(frames).astype(np.float16)
        except BaseException as fault:
            self._fault = fault
            raise
        finally:
            self._free.put(lane)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # what a lane has set counts for threads to come, too


class VideoFrames:
    """One video's frames on their way through the encoder."""

    def __init__(self) -> None:
        self.waiting = 0  # frames in no batch yet
        self.parts: list[tuple[Future[Vectors], slice]] = []
        self.times: list[npt.NDArray[np.int64]] = []

    def gather(self) -> None:
        """Join what is encoded: many small results, kept between the large blocks that batches take and free, would
        leave holes of no use, and a long video's memory would grow by several times its vectors."""
        if len(self.parts) < 2 * _GATHERED or not all(future.done() for future, _ in self.parts[:_GATHERED]):
            return
        joined: Future[Vectors] = Future()
        joined.set_result(np.concatenate([future.result()[rows] for future, rows in self.parts[:_GATHERED]]))
        self.parts[:_GATHERED] = [(joined, slice(None))]
        self.times = [np.concatenate(self.times)]

    def ready(self) -> bool:
        return not self.waiting and all(future.done() for future, _ in self.parts)

    def result(self) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """vectors (T, D), times_ms (T,); waits for them. Raises what encoding raised."""
        return np.concatenate([future.result()[rows] for future, rows in self.parts]), np.concatenate(
            self.times
        )


class _Batches:
    """Gathers frames into batches and hands them to the lanes."""

    def __init__(self, lanes: Lanes, size: int) -> None:
        self._lanes = lanes
        self._size = size
        self._frames: npt.NDArray[np.uint8] | None = None  # (size, S, S, 3)
        self._owners: list[tuple[VideoFrames, slice]] = []
        self._count = 0

    def add(self, video: VideoFrames, chunk: FrameChunk) -> None:
        video.times.append(chunk.times_ms)
        left = chunk.frames
        while len(left):
            if self._frames is None:
                self._frames = np.zeros((self._size, *left.shape[1:]), np.uint8)
            count = min(len(left), self._size - self._count)
            rows = slice(self._count, self._count + count)
            self._frames[rows] = left[:count]
            self._owners.append((video, rows))
            video.waiting += count
            self._count += count
            left = left[count:]
            if self._count == self._size:
                self.flush(self._size)

    def flush(self, size: int | None = None) -> None:
        """Hand on what there is: `size` frames, or just those."""
        if self._frames is None:
            return
        future = self._lanes.submit(self._frames[: size or self._count])
        for video, rows in self._owners:
            video.parts.append((future, rows))
            video.waiting -= rows.stop - rows.start
        self._frames, self._owners, self._count = None, [], 0


def encoded(
    events: Iterable[Event], lanes: Lanes, batch_size: int, on_frames: Callable[[int], None]
) -> Iterator[tuple[JobDone | JobFailed, VideoFrames | None]]:
    """Every job's end, in the order in which jobs end, once its frames are encoded; None where it has none.

    `on_frames` hears of frames on their way to the encoder. Encoding goes on while the caller deals with a video.
    """
    shared = _Batches(lanes, batch_size) if lanes.frames_together == 1 else None
    work: dict[int, tuple[VideoFrames, _Batches]] = {}
    ended: deque[tuple[JobDone | JobFailed, VideoFrames | None]] = deque()
    for event in events:
        if isinstance(event, FrameChunk):
            if event.job_id not in work:
                work[event.job_id] = VideoFrames(), shared or _Batches(lanes, batch_size)
            video, batches = work[event.job_id]
            batches.add(video, event)
            video.gather()
            on_frames(len(event.frames))
        else:
            done, own = work.pop(event.job_id, (None, None))
            if own and not shared:
                own.flush()
            ended.append((event, done))
        while ended and (ended[0][1] is None or ended[0][1].ready()):
            yield ended.popleft()
    if shared:
        shared.flush(batch_size)
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
