"""Learned prompts for action names: what they start as, what they learn, and what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vsearch.maths import normalise
from vsearch.models import Backbone, Pairs, PromptOptions, embed_names, load_backbone, train_prompts
from vsearch.models.action_prompts import BEFORE, BEHIND, start_prompts
from vsearch.models.mini.train.prompts import Clips, phrase_batch, phrases_of
from vsearch.models.training import Segment
from vsearch.retriever.actions.learn import annotated_pairs
from vsearch.retriever.actions.proposals import Timeline

NAMES = ["archery", "playing piano", "surfing"]


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return load_backbone(str(tiny_model), "cpu")


def pairs_of(backbone: Backbone) -> Pairs:
    """Noisy clips of three directions, and clips of a fourth that no name describes."""
    centres = np.random.default_rng(0).normal(size=(4, backbone.dim))
    owners = np.repeat([0, 1, 2, -1], 6)
    clips = centres[owners] + np.random.default_rng(1).normal(0, 0.3, (24, backbone.dim))
    return Pairs(NAMES, normalise(clips), owners)


def found(texts: np.ndarray, pairs: Pairs) -> float:
    shown = pairs.owners >= 0
    return float(((pairs.clips @ texts.T).argmax(axis=1) == pairs.owners)[shown].mean())


def test_prompts_start_as_the_words_of_a_sentence(backbone: Backbone) -> None:
    said = normalise(backbone.encode_texts([f"{BEFORE} {name} {BEHIND}" for name in NAMES]))
    assert embed_names(backbone, start_prompts(backbone), NAMES) == pytest.approx(said, abs=1e-5)


def test_training_names_clips_and_leaves_the_model_alone(backbone: Backbone) -> None:
    pairs = pairs_of(backbone)
    sentence = backbone.encode_texts(["a man rides a wave"])
    before = found(embed_names(backbone, start_prompts(backbone), NAMES), pairs)
    prompts = train_prompts(backbone, lambda _: [pairs], PromptOptions(steps=150, rate=0.05))
    assert found(embed_names(backbone, prompts, NAMES), pairs) > max(before, 0.6)
    assert (backbone.encode_texts(["a man rides a wave"]) == sentence).all()
    again = train_prompts(backbone, lambda _: [pairs], PromptOptions(steps=150, rate=0.05))
    assert (again.table == prompts.table).all()


def test_clips_of_no_name_are_pushed_away(backbone: Backbone) -> None:
    pairs = pairs_of(backbone)
    shown = pairs.owners >= 0
    known = Pairs(NAMES, pairs.clips[shown], pairs.owners[shown])
    margins = []
    for material in (pairs, known):
        prompts = train_prompts(backbone, lambda _, m=material: [m], PromptOptions(steps=100, rate=0.05))
        scores = pairs.clips @ embed_names(backbone, prompts, NAMES).T
        own = scores[shown, pairs.owners[shown]].mean()
        margins.append(own - scores[~shown].mean())
    assert margins[0] > margins[1]


def test_captions_become_action_names() -> None:
    assert phrases_of("a man is playing a guitar on a stage") == ["playing guitar"]
    assert phrases_of("Two girls are riding horses and a dog is running") == ["riding horses", "running"]
    assert phrases_of("a red car") == []
    clips = Clips(np.eye(4, dtype=np.float32), [["a", "b"], ["a"], ["c"], ["a"]])
    batch = phrase_batch(clips, 3)
    assert len(set(batch.names)) == len(batch.names)
    rows = batch.clips.argmax(axis=1)
    assert all(batch.names[o] in clips.names[r] for r, o in zip(rows, batch.owners, strict=True))


def test_annotated_videos_give_clips_and_what_lies_between() -> None:
    frames = np.repeat(np.eye(5, dtype=np.float32), 16, axis=0)  # 8 s of each direction
    timeline = Timeline.of(frames, np.arange(80, dtype=np.int64) * 500, 40_000)
    segments = (Segment("v", 7.75, 15.75, "archery"), Segment("v", 23.75, 31.75, "other"))
    pairs = annotated_pairs([(timeline, segments)], ["archery", "surfing"])
    assert pairs.owners[:1].tolist() == [0]
    assert (pairs.owners[1:] == -1).all()
    assert pairs.clips[0] == pytest.approx(np.eye(5)[1])
    assert {int(k) for k in pairs.clips[1:].argmax(axis=1)} == {
        0,
        2,
        4,
    }  # no instance of another class either


@pytest.mark.slow
def test_a_closed_set_is_learned_from_annotated_videos(tmp_path: Path, tiny_model: Path, vsearch) -> None:
    from tests.media import write_video

    folder = tmp_path / "videos"
    folder.mkdir()
    database = {}
    for i in range(4):
        write_video(folder / f"v{i}.mp4", frames=200 + 10 * i)
        marks = [{"segment": [1, 3], "label": "one"}, {"segment": [4, 6], "label": "two"}]
        database[f"v{i}"] = {"subset": "training", "duration": 8.0, "annotations": marks}
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"database": database}))
    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    learn = (
        "train-proposals",
        truth,
        "--save",
        tmp_path / "generator.safetensors",
        "--steps",
        2,
        "--vocabulary",
    )
    done = vsearch(*learn, "mine")
    assert done.returncode == 0, done.stderr
    assert "learned prompts for 2 classes" in done.stderr
    done = vsearch("localize", folder / "v0.mp4", "--vocabulary", "mine", "--threshold", 0, "--format", "csv")
    assert {line.split(",")[3] for line in done.stdout.splitlines()[1:]} == {"one", "two"}
    done = vsearch(*learn, "ucf101")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "data set" in done.stderr
