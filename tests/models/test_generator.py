"""The trained proposal generator on made-up frames: actions are some directions, the rest are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vsearch.errors import ModelError, VsearchError
from vsearch.models import Generator, TrainingOptions, TrainingVideo, load_generator, train_generator
from vsearch.models.training import Segment
from vsearch.models.training.localization_metrics import average_recall
from vsearch.models.training.segments import Prediction
from vsearch.retriever.actions import generated_by
from vsearch.retriever.actions.learn import training_video
from vsearch.retriever.actions.proposals import Proposals, Timeline, propose

DIM, ACTIONS = 24, (0, 1, 2, 3)
QUICK = TrainingOptions(steps=120, pieces=10)


def video(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, D) frames and (N, 2) instances: scenes of random directions, those of ACTIONS are instances."""
    rng = np.random.default_rng(seed)
    frames, instances, at = [], [], 0
    for kind in rng.permutation(12):
        count = int(rng.integers(6, 20))
        frames.append(np.eye(DIM)[kind] + rng.normal(0, 0.15, (count, DIM)))
        if kind in ACTIONS:
            instances.append((at, at + count))
        at += count
    return np.concatenate(frames).astype(np.float32), np.asarray(instances)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return train_generator([TrainingVideo(*video(seed)) for seed in range(6)], "bb", QUICK)


def recall(maker, number: int) -> float:
    truth, found = [], []
    for seed in range(20, 26):
        frames, instances = video(seed)
        timeline = Timeline.of(frames, np.arange(len(frames), dtype=np.int64) * 500, 500 * len(frames))
        proposals: Proposals = maker(timeline)
        truth += [
            Segment(str(seed), float(timeline.edges_ms[a]), float(timeline.edges_ms[b]), "")
            for a, b in instances
        ]
        found += [
            Prediction(str(seed), float(s), float(e), "", float(x))
            for s, e, x in zip(proposals.start_ms, proposals.end_ms, proposals.score, strict=True)
        ]
    return average_recall(truth, found, number)


def test_it_learns_which_scenes_are_actions(generator: Generator) -> None:
    trained, untrained = recall(generated_by(generator), 5), recall(propose, 5)
    assert trained > 0.8
    assert trained > untrained + 0.2


def test_intervals_that_fit_are_judged_better_than_those_that_do_not(generator: Generator) -> None:
    frames, instances = video(30)
    loose = np.clip(instances + np.array([-6, 6]), 0, len(frames))
    fitting, loosely = generator.score(frames, instances), generator.score(frames, loose)
    assert (fitting > loosely).all()
    assert ((fitting >= 0) & (fitting <= 1)).all()


def test_the_same_training_gives_the_same_weights_and_a_file_keeps_them(
    generator: Generator, tmp_path: Path
) -> None:
    frames, instances = video(31)
    short = TrainingOptions(steps=5, pieces=6)
    a, b = (train_generator([TrainingVideo(frames, instances)], "bb", short) for _ in range(2))
    assert (a.score(frames, instances) == b.score(frames, instances)).all()
    generator.save(tmp_path / "made.safetensors")
    again = load_generator(tmp_path / "made.safetensors")
    assert again.config == generator.config
    assert (again.score(frames, instances) == generator.score(frames, instances)).all()
    assert (again.candidates(frames) == generator.candidates(frames)).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_videos(generator: Generator, count: int) -> None:
    frames, _ = video(32)
    found = generated_by(generator)(Timeline.of(frames[:count], np.arange(count) * 500, 500 * count))
    assert (0, 500 * count) in zip(found.start_ms.tolist(), found.end_ms.tolist(), strict=True)


def test_other_classes_are_cut_out_of_training() -> None:
    frames, instances = video(34)
    line = Timeline.of(frames, np.arange(len(frames), dtype=np.int64) * 500, 500 * len(frames))
    edges = line.edges_ms / 1000
    segments = [Segment("v", edges[a], edges[b], f"class {i % 2}") for i, (a, b) in enumerate(instances)]
    assert (training_video(line, segments).instances == instances).all()
    half = training_video(line, segments, {"class 1"})
    gone = sum(b - a for a, b in instances[::2])
    assert len(half.vectors) == len(frames) - gone
    for (a, b), (c, d) in zip(half.instances, instances[1::2], strict=True):
        assert (half.vectors[a:b] == line.unit[c:d]).all()


def test_unfit_files_frames_and_annotations_are_refused_in_words(
    generator: Generator, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    for name in ("x", "absent"):
        with pytest.raises(ModelError, match="no proposal generator"):
            load_generator(tmp_path / name)
    with pytest.raises(ModelError, match="trained on bb"):
        generator.score(np.ones((4, DIM + 1), np.float32), np.array([[0, 2]]))
    frames, _ = video(33)
    with pytest.raises(VsearchError, match="no annotated"):
        train_generator([TrainingVideo(frames, np.zeros((0, 2), np.int64))], "bb", QUICK)
