"""Learned prompts for action names: what they start as, what they learn, and what they leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vsearch.errors import ModelError
from vsearch.library import Library
from vsearch.models import Backbone, Encoder, ZeroShotHead, load_backbone, normalise
from vsearch.models.action_prompts import (
    BEFORE,
    BEHIND,
    CARD,
    Pairs,
    PromptOptions,
    embed_blend,
    embed_names,
    load_prompts,
    save_prompts,
    shipped_prompts,
    start_prompts,
    train_prompts,
)
from vsearch.models.mini.train.prompts import Clips, phrase_batch, phrases_of
from vsearch.models.training.segments import Segment
from vsearch.retriever.actions import videos as actions
from vsearch.retriever.actions.learn import annotated_pairs
from vsearch.retriever.actions.proposals import Timeline
from vsearch.retriever.searching import sentence_vector

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


def test_kept_prompts_serve_their_own_model_and_only_when_they_are_good(
    backbone: Backbone, tmp_path: Path
) -> None:
    prompts = train_prompts(backbone, lambda _: [pairs_of(backbone)], PromptOptions(steps=2))
    about = {"backbone": backbone.identity, "table": "0123", "default": True}
    save_prompts(tmp_path, prompts, about)
    assert shipped_prompts(backbone.identity, tmp_path) == "prompts@0123"
    assert shipped_prompts("another", tmp_path) is None
    assert (load_prompts(backbone, tmp_path).table == prompts.table).all()
    (tmp_path / "prompts.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="install vsearch again"):
        load_prompts(backbone, tmp_path)
    worse = tmp_path / "worse"
    worse.mkdir()
    save_prompts(worse, prompts, {**about, "default": False})
    assert shipped_prompts(backbone.identity, worse) is None


def test_names_use_shipped_prompts_and_sentences_do_not(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = train_prompts(backbone, lambda _: [pairs_of(backbone)], PromptOptions(steps=5, rate=0.05))
    encoder = Encoder(backbone, ZeroShotHead())
    vectors = {}
    for kept in (None, "prompts@0123"):
        monkeypatch.setattr(actions, "shipped_prompts", lambda _, kept=kept: kept)
        monkeypatch.setattr(actions, "load_prompts", lambda _: prompts)
        with Library.open(tmp_path / str(kept), create=True) as library:
            library.register_encoder(
                encoder.identity, backbone.identity, encoder.head.identity, encoder.spec()
            )
            live = library.encoders()[0]
            monkeypatch.setattr(actions, "live_encoder", lambda _, live=live: live)
            names = actions.embed_actions(library, NAMES, loaded=encoder)
            assert (names == actions.embed_actions(library, NAMES)).all()  # cached, under a key of their own
            vectors[kept] = names, sentence_vector(library, live, "archery", encoder)[1]
    assert len(vectors[None][0]) == len(actions.TEMPLATES)
    blend = embed_blend(backbone, prompts, NAMES)
    assert vectors["prompts@0123"][0] == pytest.approx(blend[None], abs=1e-6)
    plain = normalise(backbone.encode_texts(["archery"]))[0]
    for _, sentence in vectors.values():
        assert sentence == pytest.approx(plain, abs=1e-5)


def test_what_ships_was_judged_on_classes_that_it_did_not_see() -> None:
    import vsearch.models.mini as mini

    (folder,) = mini.__path__
    about = json.loads((Path(folder) / CARD).read_text())
    figures = about["ucf101_top1_top5_of_101_names_classes_unseen"]
    used, plain = figures["prompts and templates (used)"], figures["templates"]
    assert about["default"] == (used[0] >= plain[0] and used[1] >= plain[1])
    model = load_backbone("mini", "cpu")
    assert about["backbone"] == model.identity  # else: python -m vsearch.models.mini.train.prompts
    assert np.isfinite(embed_names(model, load_prompts(model), NAMES)).all()


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
