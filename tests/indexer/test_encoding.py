"""Frames through the encoder: in order, in batches of their own video, and never more than there is room for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from vsearch.indexer.decode import Event, FrameChunk, JobDone, JobFailed
from vsearch.indexer.encoding import Lanes, VideoFrames, encoded
from vsearch.models import load_backbone
from vsearch.records import MediaInfo

INFO = MediaInfo("mp4", "h264", 4, 4, 0, 1000, 25.0)


class Slow:
    """Stands for a backbone: a frame's vector is its first pixel and the size of its batch; later batches are faster."""

    device = "cpu"

    def __init__(self, delay_s: float = 0.0, frames_together: int = 1) -> None:
        self.delay_s, self.frames_together = delay_s, frames_together
        self.batches: list[int] = []
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()

    def arrange(self) -> None: ...

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.batches.append(len(frames))
        time.sleep(self.delay_s / len(self.batches))
        with self._lock:
            self._now -= 1
        return np.stack([frames[:, 0, 0, 0], np.full(len(frames), len(frames))], axis=1).astype(np.float32)


def chunk(job: int, first: int, count: int) -> FrameChunk:
    frames = np.zeros((count, 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(first, first + count)
    return FrameChunk(job, frames, np.arange(first, first + count) * 500)


def done(job: int) -> JobDone:
    return JobDone(job, INFO, 0, None, 1000, None)


def results(events: list[Event], backbone: Any, batch: int = 4) -> dict[int, Any]:
    handed: list[int] = []
    with Lanes(backbone) as lanes:
        out = {
            end.job_id: frames and frames.result()
            for end, frames in encoded(iter(events), lanes, batch, handed.append)
        }
    assert sum(handed) == sum(len(e.frames) for e in events if isinstance(e, FrameChunk))
    return out


def test_videos_fill_batches_together_and_every_batch_has_the_same_size() -> None:
    mixed: list[Event] = [chunk(1, 90, 5), chunk(0, 0, 3), chunk(1, 95, 1), chunk(0, 3, 7), done(0), done(1)]
    backbone = Slow(0.02)
    found = results(mixed, backbone)
    assert backbone.batches == [4] * 4
    for job, numbers in ((0, range(10)), (1, range(90, 96))):
        vectors, times_ms = found[job]
        assert vectors.dtype == np.float16
        assert vectors[:, 0].tolist() == list(numbers)
        assert times_ms.tolist() == [500 * i for i in numbers]
    assert results([chunk(0, 0, 5), done(0)], Slow())[0][0][:, 1].tolist() == [4] * 5  # filled up


def test_where_the_encoder_looks_across_frames_batches_are_of_one_video() -> None:
    mixed: list[Event] = [chunk(1, 90, 5), chunk(0, 0, 3), chunk(1, 95, 1), chunk(0, 3, 7), done(0), done(1)]
    found = results(mixed, Slow(0.02, frames_together=2))
    assert found[0][0][:, 0].tolist() == list(range(10))
    assert found[0][0][:, 1].tolist() == [4] * 8 + [2] * 2
    assert found[1][0][:, 1].tolist() == [4] * 4 + [2] * 2


def test_a_frames_vector_does_not_depend_on_place_and_company() -> None:
    mini = load_backbone("mini", "cpu")
    mini.arrange()
    frames = np.random.default_rng(0).integers(0, 255, (8, 224, 224, 3), dtype=np.uint8)
    batch = mini.encode_frames(frames)
    moved = mini.encode_frames(np.concatenate([frames[5:], np.zeros_like(frames[:5])]))[:3]
    np.testing.assert_allclose(moved, batch[5:], rtol=0, atol=1e-5 * np.abs(batch).max())


def test_ends_come_in_their_order_also_of_videos_without_frames() -> None:
    events: list[Event] = [chunk(0, 0, 9), done(0), JobFailed(2, "broken"), chunk(1, 0, 1), done(1)]
    found = results(events, Slow(0.05))
    assert list(found) == [0, 2, 1]
    assert found[2] is None


def test_batches_wait_for_room() -> None:
    backbone, read = Slow(), []

    def events() -> Iterator[Event]:
        for i in range(50):
            read.append(i)
            yield chunk(0, 4 * i, 4)
        yield done(0)

    release = threading.Event()
    backbone.encode_frames = lambda frames: (release.wait(5), np.zeros((len(frames), 2), np.float32))[1]  # type: ignore[method-assign]
    with Lanes(backbone) as lanes:  # type: ignore[arg-type]
        threading.Timer(0.2, lambda: (read.append(-1), release.set())).start()
        list(encoded(events(), lanes, 4, lambda count: None))
    assert read.index(-1) <= 2 * torch.get_num_threads() + 1


def test_what_encoding_raises_ends_the_run_and_not_at_the_end_of_a_long_video() -> None:
    class Broken(Slow):
        def encode_frames(self, frames: np.ndarray) -> np.ndarray:
            raise RuntimeError("no memory left")

    read = []

    def events() -> Iterator[Event]:
        for i in range(1000):
            time.sleep(0.001)
            read.append(i)
            yield chunk(0, 0, 4)

    with pytest.raises(RuntimeError, match="no memory left"), Lanes(Broken()) as lanes:  # type: ignore[arg-type]
        list(encoded(events(), lanes, 4, lambda count: None))
    assert len(read) < 100


def test_threads_are_shared_among_lanes_and_given_back() -> None:
    before = torch.get_num_threads()
    seen = []

    class Counting(Slow):
        def encode_frames(self, frames: np.ndarray) -> np.ndarray:
            seen.append(torch.get_num_threads())
            return super().encode_frames(frames)

    torch.set_num_threads(2)
    try:
        backbone = Counting(0.2)
        results([chunk(0, 0, 16), done(0)], backbone)
        assert set(seen) == {1}
        assert backbone.most_at_once == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_long_video_s_vectors_are_joined_while_it_is_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsearch.indexer.encoding._GATHERED", 3)
    most = 0

    def counting(self: VideoFrames) -> None:
        nonlocal most
        gather(self)
        most = max(most, len(self.parts), len(self.times))

    gather = VideoFrames.gather
    monkeypatch.setattr(VideoFrames, "gather", counting)
    events: list[Event] = [chunk(0, first, 2) for first in range(0, 200, 2)]
    vectors, times_ms = results([*events, done(0)], Slow())[0]
    assert vectors[:, 0].tolist() == list(range(200))
    assert times_ms.tolist() == [500 * i for i in range(200)]
    assert most < 40  # of 50 batches and 100 chunks


@pytest.mark.parametrize("gathered", [256, 1])
def test_a_picture_that_stays_is_encoded_once(gathered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsearch.indexer.encoding._GATHERED", gathered)
    shown = [7] * 6 + [8, 9, 9, 7] + [3] * 9
    frames = np.zeros((len(shown), 4, 4, 3), np.uint8)
    frames[:, 3, 3, 1] = np.arange(len(shown)) == 15  # differs in one value only
    frames[:, 0, 0, 0] = shown
    events: list[Event] = [
        FrameChunk(0, frames[first : first + 3], np.arange(first, min(first + 3, len(shown))))
        for first in range(0, len(shown), 3)
    ]
    events[2:2] = [chunk(1, 7, 2)]  # another video shows the same in between
    backbone = Slow()
    found = results([*events, done(0), done(1)], backbone)
    assert found[0][0][:, 0].tolist() == shown
    assert found[0][1].tolist() == list(range(len(shown)))
    assert found[1][0][:, 0].tolist() == [7, 8]
    assert backbone.batches == [4] * 3  # 7, 8, 9, 7, 3, the changed one, 3; 7, 8
    together = Slow(frames_together=2)
    assert results([*events[:2], *events[3:], done(0)], together)[0][0][:, 0].tolist() == shown
    assert sum(together.batches) == len(shown)


def test_an_apple_gpu_is_given_one_batch_at_a_time() -> None:
    backbone = Slow(0.05)
    backbone.device = "mps"
    results([chunk(0, 0, 16), done(0)], backbone)
    assert backbone.most_at_once == 1
