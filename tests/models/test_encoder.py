"""Windows and the zero-shot head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsearch.errors import ModelError
from vsearch.maths import normalise
from vsearch.models import Window, ZeroShotHead, load_head, plan_windows
from vsearch.models.backbone import resolve_device


def times(duration_s: float, fps: float = 2.0) -> np.ndarray:
    return (np.arange(max(1, int(duration_s * fps))) * 1000 / fps).astype(np.int64)


def test_a_short_video_is_one_moment() -> None:
    assert plan_windows(times(0.3), 300, 8, 0.5) == [Window(0, 300, 0, 1)]
    assert plan_windows(times(8), 8000, 8, 0.5) == [Window(0, 8000, 0, 16)]


def test_windows_overlap_by_half_and_the_last_ends_with_the_video() -> None:
    windows = plan_windows(times(21), 21000, 8, 0.5)
    assert [(w.start_ms, w.end_ms) for w in windows] == [
        (0, 8000),
        (4000, 12000),
        (8000, 16000),
        (13000, 21000),
    ]
    assert (windows[1].first_frame, windows[1].last_frame) == (8, 24)


def test_a_video_a_little_longer_than_a_window_is_covered_from_its_start() -> None:
    windows = plan_windows(times(10), 10000, 8, 0.5)
    assert [(w.start_ms, w.end_ms) for w in windows] == [(0, 8000), (2000, 10000)]


def test_a_hole_in_a_damaged_file_makes_no_empty_moment() -> None:
    holed = np.array([0, 500, 1000, 60000, 60500], dtype=np.int64)
    windows = plan_windows(holed, 61000, 8, 0.5)
    assert all(w.first_frame < w.last_frame for w in windows)
    assert {i for w in windows for i in range(w.first_frame, w.last_frame)} == set(range(5))


@given(
    st.floats(0.1, 400),
    st.sampled_from([0.5, 1.0, 2.0, 5.0]),
    st.sampled_from([2.0, 8.0]),
    st.sampled_from([0, 0.5]),
)
def test_every_frame_is_in_a_window_of_the_right_length(
    duration: float, fps: float, length: float, overlap: float
) -> None:
    t = times(duration, fps)
    windows = plan_windows(t, round(duration * 1000), length, overlap)
    assert {i for w in windows for i in range(w.first_frame, w.last_frame)} == set(range(len(t)))
    assert all(w.end_ms - w.start_ms <= length * 1000 for w in windows)
    assert len({(w.start_ms, w.end_ms) for w in windows}) == len(windows)


def test_zero_shot_head_normalises_frames_before_and_after_the_mean() -> None:
    frames = np.array([[10.0, 0.0], [0.0, 1.0]], dtype=np.float16)  # a long and a short vector weigh the same
    moment = ZeroShotHead().embed_windows(frames, np.array([0, 500]), [Window(0, 1000, 0, 2)])
    assert moment == pytest.approx(np.array([[0.5**0.5, 0.5**0.5]]), abs=1e-3)


def test_head_identity_follows_what_it_does_and_its_spec_restores_it() -> None:
    head = ZeroShotHead(templates=("{}", "a video of {}"))
    assert load_head(head.spec()) == head
    assert head.identity != ZeroShotHead().identity != ZeroShotHead(window_s=4).identity


def test_normalise_leaves_a_zero_row_zero() -> None:
    assert normalise(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


def test_the_gpu_of_apple_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        if there:
            assert resolve_device("mps") == "mps"
        else:
            with pytest.raises(ModelError, match="Apple"):
                resolve_device("mps")
