"""Frames through the image encoder while decoding goes on and videos are recorded.

Every batch has the same size: frames of successive videos fill it together, and the last one is filled up with black.
Convolution libraries choose their way by the shape, and with it the last bits of the vectors; in batches of one size a
frame's vector does not depend on its place or company.
Where the encoder looks across frames, batches are of one video, and the last of each is shorter.

On the CPU, batches are encoded side by side by threads that each use their share of the cores: on two cores two
batches at once take less time than one after the other with both cores on each, because layers of a small network
end before both have started, and a core that a decoder holds delays one batch instead of every layer.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from vsearch.indexer.decode import Event, FrameChunk, JobDone, JobFailed
from vsearch.machine import available_cores, give_back_memory

if TYPE_CHECKING:
    from vsearch.models import Backbone

Given = TypeVar("Given")
Made = TypeVar("Made")

_LOOK_S = 0.2  # how often a waiting thread looks around


@dataclass(frozen=True)
class _End:
    fault: BaseException | None


class _Closed(Exception):
    """The caller wants no more."""


def ahead(
    make: Callable[[Iterable[Given]], Iterable[Made]],
    given: Iterable[Given],
    room: int,
    idle: Callable[[], None],
    stop: Callable[[], None] = lambda: None,
) -> Generator[Made, None, None]:
    """What `make(given)` yields, in its order, then what it raises; at most `room` items wait for the caller.

    `idle` is called in the caller's thread now and then while nothing comes. Closing the generator before its end calls
    `stop`, which should end `given`, stops the other thread at the next of that, and waits for it.
    """
    made: queue.Queue[Made | _End] = queue.Queue(room)
    closed = threading.Event()

    def until_closed() -> Iterator[Given]:
        for item in given:
            if closed.is_set():
                raise _Closed
            yield item

    def put(item: Made | _End) -> None:
        while not closed.is_set():
            try:
                return made.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
        raise _Closed

    def run() -> None:
        try:
            for item in make(until_closed()):
                put(item)
            put(_End(None))
        except _Closed:
            return
        except BaseException as fault:
            if not closed.is_set():
                made.put(_End(fault))  # waits for room, which closing makes

    thread = threading.Thread(target=run, name="vsearch-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = made.get(timeout=_LOOK_S)
            except queue.Empty:
                idle()
                continue
            if not isinstance(item, _End):
                yield item
            elif item.fault:
                raise item.fault
            else:
                return
    except BaseException:  # of the caller, too: an interrupt, or no more wanted
        closed.set()
        stop()
        raise
    finally:
        closed.set()
        while thread.is_alive():
            while not made.empty():
                made.get()
            thread.join(_LOOK_S)


Vectors = npt.NDArray[np.float16]

_GATHERED = 256  # batches of a video whose vectors are joined at once
_GIVE_BACK_EVERY = 256  # batches: some ten seconds and more


class Lanes:
    """Threads that encode batches. Use as a context manager; leaving it waits for the batches in work.

    Several backbones, replicas of one on several devices, share the batches: each takes the next as it comes free.
    Not more than two batches a lane wait or are in work: `submit` blocks, and so do the decoders in the end.
    """

    def __init__(self, *backbones: Backbone) -> None:
        from vsearch.models.runtime import LANES, Lane, lanes

        self.frames_together = backbones[0].frames_together
        for backbone in backbones:
            backbone.arrange()
        device = backbones[0].device
        count = lanes() if device == "cpu" else len(backbones) * (LANES if device.startswith("cuda") else 1)
        self._free: SimpleQueue[Lane] = SimpleQueue()  # a lane for each thread
        for i in range(count):
            self._free.put(Lane(backbones[i % len(backbones)]))
        self._room = threading.Semaphore(2 * count)
        self._fault: BaseException | None = None
        self._pool = ThreadPoolExecutor(count, "vsearch-encoder", initializer=_share_cores, initargs=(count,))

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
        self._pool.shutdown(cancel_futures=True)
        _share_cores(1)  # what a lane has set counts for threads to come, too


def _share_cores(lanes: int) -> None:
    """Where towers run by torch, in the calling thread each of so many lanes takes its share of the cores."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(max(1, available_cores() // lanes))


class VideoFrames:
    """One video's frames on their way through the encoder."""

    def __init__(self) -> None:
        self.waiting = False  # whether frames of it are in no batch yet
        self.parts: list[tuple[Future[Vectors], list[int] | slice]] = []  # and their rows in it
        self.times: list[npt.NDArray[np.int64]] = []
        self._latest: npt.NDArray[np.uint8] | None = None

    def shows(self, frame: npt.NDArray[np.uint8]) -> bool:
        """Whether `frame` is its latest frame once more, as in slides and screen recordings. Remembers it."""
        before, self._latest = self._latest, frame
        middle = len(frame) // 2
        return (
            before is not None
            and np.array_equal(before[middle], frame[middle])
            and np.array_equal(before, frame)
        )

    def gather(self) -> None:
        """Join what is encoded: many small results, kept between the large blocks that batches take and free, would
        leave holes of no use, and a long video's memory would grow by several times its vectors."""
        if len(self.parts) < 2 * _GATHERED or not all(future.done() for future, _ in self.parts[:_GATHERED]):
            return
        joined: Future[Vectors] = Future()
        joined.set_result(np.concatenate([future.result()[rows] for future, rows in self.parts[:_GATHERED]]))
        self.parts[:_GATHERED] = [(joined, slice(None))]
        self.times = [np.concatenate(self.times)]

    def end(self) -> None:
        """No more frames will come."""
        self._latest = None

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
        self._owners: dict[VideoFrames, list[int]] = {}  # rows that show each video's frames, in order
        self._count = 0
        self._handed_on = 0

    def add(self, video: VideoFrames, chunk: FrameChunk) -> None:
        video.times.append(chunk.times_ms)
        alone = self._lanes.frames_together == 1
        for frame in chunk.frames:
            if alone and video.shows(frame):  # the same picture has the same vector
                rows = self._owners.get(video) or video.parts[-1][1]
                assert isinstance(rows, list)  # the last is never joined
                rows.append(rows[-1])
                continue
            if self._frames is None:
                self._frames = np.zeros((self._size, *frame.shape), np.uint8)
            self._frames[self._count] = frame
            self._owners.setdefault(video, []).append(self._count)
            video.waiting = True
            self._count += 1
            if self._count == self._size:
                self.flush(self._size)

    def flush(self, size: int | None = None) -> None:
        """Hand on what there is: `size` frames, or just those."""
        if self._frames is None:
            return
        future = self._lanes.submit(self._frames[: size or self._count])
        for video, rows in self._owners.items():
            video.parts.append((future, rows))
            video.waiting = False
        self._frames, self._owners, self._count = None, {}, 0
        self._handed_on += 1
        if self._handed_on % _GIVE_BACK_EVERY == 0:
            give_back_memory()


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
            if done:
                done.end()
            if own and not shared:
                own.flush()
            ended.append((event, done))
        while ended and (ended[0][1] is None or ended[0][1].ready()):
            yield ended.popleft()
    if shared:
        shared.flush(batch_size)
    yield from ended
