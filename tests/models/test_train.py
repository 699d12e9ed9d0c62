"""Training: order is learned by what looks at order, runs resume bit for bit, and checkpoints say what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Vsearch
from tests.shapes import write_corpus
from tests.towers import sighted_clip, write_model
from vsearch.errors import ModelError, VsearchError
from vsearch.models import Backbone, Preprocess, Window
from vsearch.models.recipes import Recipe, VideoText, load, load_recipe, read_card
from vsearch.models.recipes.recipe import RECIPES, TemporalPart
from vsearch.models.recipes.trained_head import load_trained_head
from vsearch.models.training import TrainOptions, ZipFrames, cached_vectors, pick, refuse_leak
from vsearch.models.training.datasets import Clip, Dataset, read_dataset
from vsearch.models.training.evaluate import evaluate
from vsearch.models.training.samples import Samples, collate
from vsearch.models.training.train import _accelerator, hold_out, train

pytest.importorskip("accelerate", reason="training is an extra")


def small_backbone() -> Backbone:
    import open_clip

    pre = Preprocess(64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Backbone("small", sighted_clip(), open_clip.SimpleTokenizer(), pre, "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("shapes"), videos=160, directions=2)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("many"), videos=320, directions=2)


def frozen(name: str, corpus: Path) -> tuple[Recipe, Backbone, dict, dict]:
    recipe, backbone = replace(load_recipe(name).on_frozen_frames(), train_text=False), small_backbone()
    source = ZipFrames([corpus / "frames.zip"], backbone.preprocess)
    data = [read_dataset("plain", corpus / f"labels-{s}.csv") for s in ("train", "test")]
    return recipe, backbone, data, [cached_vectors(source, d.clips, backbone, None) for d in data]  # type: ignore[return-value]


# Rates for a width of 32 and some ten batches an epoch; the recipes' own are for CLIP and thousands.
TEMPORAL = {
    "efficient-prompt": (3e-3, 20),
    "actionclip": (2e-3, 25),
    "clip4clip-seqtransf": (2e-3, 15),
    "clip4clip-seqlstm": (5e-3, 30),
}


def learned(recipe: Recipe, corpus: Path, folder: Path, lr: float, epochs: int) -> float:
    """Top-1 on unseen videos of two directions, after training on stored frame vectors."""
    _, backbone, (seen, test), (seen_frames, test_frames) = frozen("efficient-prompt", corpus)  # type: ignore[misc]
    train(recipe, backbone, seen, seen_frames, folder, TrainOptions(epochs, batch=32, lr=lr, patience=epochs))
    model, _ = load(folder, small_backbone())
    return evaluate(model, test, test_frames).figures["top1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPORAL)
def test_temporal_heads_learn_direction(name: str, many: Path, tmp_path: Path) -> None:
    recipe = frozen(name, many)[0]
    assert learned(recipe, many, tmp_path, *TEMPORAL[name]) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficient-prompt", "actionclip"])
def test_the_mean_cannot_tell_direction(name: str, many: Path, tmp_path: Path) -> None:
    """The same prompts, texts and losses, only without a look at order."""
    recipe = replace(frozen(name, many)[0], temporal=TemporalPart())
    if name == "actionclip":
        recipe = replace(recipe, train_text=True)
    assert learned(recipe, many, tmp_path, *TEMPORAL[name]) < 70


def quick(corpus: Path, folder: Path, **changes: object) -> Path:
    recipe, backbone, (seen, _), (frames, _) = frozen("efficient-prompt", corpus)  # type: ignore[misc]
    options = replace(TrainOptions(epochs=3, batch=32, lr=1e-3), **changes)  # type: ignore[arg-type]
    train(recipe, backbone, seen, frames, folder, options)
    return folder


def test_a_resumed_run_equals_an_unbroken_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(corpus, tmp_path / "whole")
    from vsearch.models.training import train as module

    stops = iter([False, True])
    real = module._Run.after_epoch

    def killed(self: module._Run, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]
        if next(stops):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(module._Run, "after_epoch", killed)
        quick(corpus, tmp_path / "broken")
    broken = quick(corpus, tmp_path / "broken", resume=True)
    for name, tensor in load_file(whole / "last-3.safetensors").items():
        torch.testing.assert_close(load_file(broken / "last-3.safetensors")[name], tensor, rtol=0, atol=0)
    assert len((broken / "log.csv").read_text().splitlines()) == 4
    with pytest.raises(VsearchError, match="another recipe or other options"):
        quick(corpus, broken, resume=True, lr=1.0)
    quick(corpus, broken, resume=True, epochs=5)  # a finished run goes on
    assert len((broken / "log.csv").read_text().splitlines()) == 6


def test_a_checkpoint_says_what_it_is_and_refuses_what_it_is_not(corpus: Path, tmp_path: Path) -> None:
    folder = quick(corpus, tmp_path / "run")
    card = read_card(folder)
    assert (card.colour_order, card.size, card.mean) == ("RGB", 64, (0.5, 0.5, 0.5))
    assert card.data["clips"] == 120
    assert card.labels == ("left to right", "right to left")
    assert "validation.top1" in card.metrics
    other = small_backbone()
    with torch.no_grad():
        other.clip.visual.proj.add_(1)  # type: ignore[operator, union-attr]
    other.identity = "other"
    with pytest.raises(ModelError, match="was trained on small"):
        load(folder, other)
    tensors = load_file(folder / "weights.safetensors")
    save_file({k: v + 1 for k, v in tensors.items()}, folder / "weights.safetensors")
    with pytest.raises(ModelError, match="the copy is damaged"):
        load(folder, small_backbone())


def test_a_head_embeds_stored_frames_as_evaluation_does(corpus: Path, tmp_path: Path) -> None:
    folder = quick(corpus, tmp_path / "run")
    _, _, (_, test), (_, frames) = frozen("efficient-prompt", corpus)  # type: ignore[misc]
    backbone = small_backbone()
    head = load_trained_head(folder, backbone)
    stored = np.concatenate([frames[c.key] for c in test.clips[:3]])
    windows = [Window(0, 1, 6 * i, 6 * i + 6) for i in range(3)]
    vectors = head.embed_windows(stored, np.arange(len(stored)), windows)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alone = head.embed_windows(frames[test.clips[1].key], np.arange(6), [Window(0, 1, 0, 6)])
    np.testing.assert_allclose(vectors[1], alone[0], atol=1e-5)
    assert head.embed_texts(["a", "b"], backbone).shape == (2, 32)
    assert head.identity.startswith("efficient-prompt@")
    assert json.dumps(head.spec())


@pytest.mark.parametrize(
    "name", ["xclip", "m2clip", "xclip-prompts", "clip4clip-tight", "clip4clip-3d", "actionclip"]
)
def test_in_network_recipes_take_a_step_and_come_back(name: str, corpus: Path, tmp_path: Path) -> None:
    backbone = small_backbone()
    source = ZipFrames([corpus / "frames.zip"], backbone.preprocess)
    data = read_dataset("plain", corpus / "labels-train.csv")
    few = Dataset(data.name, "", data.clips[:8])
    done = train(load_recipe(name), backbone, few, source, tmp_path, TrainOptions(epochs=1, batch=4))
    assert np.isfinite(done.validation.figures["top1"])
    model, _ = load(tmp_path, small_backbone())
    assert evaluate(model, few, source).videos == 8
    with pytest.raises(ModelError, match=r"encoded again|pairs of video and text"):
        load_trained_head(tmp_path, small_backbone())


def test_retrieval_trains_on_captions_in_msrvtt_form(corpus: Path, tmp_path: Path) -> None:
    recipe, backbone, _, _ = frozen("efficient-prompt", corpus)
    source = ZipFrames([corpus / "frames.zip"], backbone.preprocess)
    seen, test = read_dataset("msrvtt", corpus, "9k"), read_dataset("msrvtt", corpus, "1k-A")
    frames = cached_vectors(source, (*seen.clips, *test.clips), backbone, tmp_path / "cache")
    assert cached_vectors(source, seen.clips, backbone, tmp_path / "cache").keys() == {
        c.key for c in seen.clips
    }
    train(recipe, backbone, seen, frames, tmp_path / "run", TrainOptions(epochs=1, batch=32))
    model, card = load(tmp_path / "run", small_backbone())
    refuse_leak(card.data, test)
    with pytest.raises(VsearchError, match="120 of 120 test videos were trained on"):
        refuse_leak(card.data, seen)
    for normalise in (None, "dsl", "qb-norm"):
        found = evaluate(
            model, test, frames, normalise=normalise, bank=[c.captions[0] for c in seen.clips[:10]]
        )
        assert found.protocol["normalise"] == normalise
        assert 0 <= found.figures["t2v.r1"] <= 100


def test_picked_frames_stand_one_in_each_segment() -> None:
    assert pick(12, 4, None) == [1, 4, 7, 10]
    assert pick(3, 4, None) == [0, 1, 2]


def test_batches_mark_what_belongs_together() -> None:
    clips = [Clip("a", ("x",)), Clip("b", ("X ",)), Clip("c", ("y",))]
    frames = {c.key: np.ones((i + 1, 4), np.float16) for i, c in enumerate(clips)}
    samples = Samples(clips, frames, 8, seed=0)
    batch = collate([samples[i] for i in range(3)])
    assert batch.match.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert batch.mask.sum(1).tolist() == [1, 2, 3]
    assert batch.labels is None


def test_every_batch_draws_anew() -> None:
    clips = [Clip(str(i), (), "x") for i in range(40)]
    samples = Samples(clips, {c.key: np.ones((1, 4), np.float16) for c in clips}, 8, 0, ["x"])
    batches = [[samples[i] for i in range(at, at + 4)] for at in range(0, 40, 4)]
    assert len({collate(batch, seed=3).seed for batch in batches}) == 10
    assert collate(batches[0], seed=3).seed == collate(batches[0], seed=3).seed != collate(batches[0], 4).seed


def test_a_scale_at_a_hundred_learns_and_never_passes_it(corpus: Path, tmp_path: Path) -> None:
    backbone = small_backbone()
    with torch.no_grad():
        backbone.clip.logit_scale.fill_(np.log(100))
    source = ZipFrames([corpus / "frames.zip"], backbone.preprocess)
    data = read_dataset("plain", corpus / "labels-train.csv")
    some = Dataset(data.name, "", data.clips[:16])
    recipe = replace(load_recipe("clip4clip").on_frozen_frames(), train_text=False)
    frames = cached_vectors(source, some.clips, backbone, None)
    train(recipe, backbone, some, frames, tmp_path, TrainOptions(epochs=3, batch=4, lr=10.0))
    learned = float(load_file(tmp_path / "last-3.safetensors")["weight.clip.logit_scale"])
    assert learned < np.log(100) - 1e-4


def test_a_sentence_is_read_once_where_no_text_trains(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backbone, (seen, _), (frames, _) = frozen("efficient-prompt", corpus)  # type: ignore[misc]
    recipe = replace(load_recipe("clip4clip-seqlstm").on_frozen_frames(), train_text=False)
    clips = tuple(Clip(c.video, (f"{c.label} {i}", f"again {i}")) for i, c in enumerate(seen.clips[:40]))
    read: list[str] = []
    real = VideoText._read
    monkeypatch.setattr(VideoText, "_read", lambda self, texts: read.extend(texts) or real(self, texts))
    train(recipe, backbone, Dataset("mine", "", clips), frames, tmp_path, TrainOptions(epochs=6, batch=8))
    assert len(read) == len(set(read)) <= 80


def test_validation_is_apart_by_video_and_stable() -> None:
    clips = [Clip(f"v{i % 20}", ("x",), None, float(i), i + 1.0) for i in range(40)]
    training, held = hold_out(clips, 0.1)
    assert not {c.video for c in training} & {c.video for c in held}
    assert len(held) == 4
    assert hold_out(clips[::-1], 0.1)[1] == held[::-1]
    with pytest.raises(VsearchError, match="too few"):
        hold_out(clips[:1], 0.1)


FROM_THE_COMMAND_LINE = {
    "efficient-prompt": ("--lr", "3e-3", "--epochs", "20"),
    "actionclip": ("--lr", "2e-3", "--epochs", "45"),
    "clip4clip-seqtransf": ("--lr", "2e-3", "--epochs", "15"),
    "m2clip": ("--lr", "3e-3", "--epochs", "12"),
    "xclip": ("--lr", "3e-3", "--epochs", "35"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_THE_COMMAND_LINE)
def test_every_system_learns_direction_from_the_command_line(
    name: str, many: Path, tmp_path: Path, vsearch: Vsearch
) -> None:
    model = write_model(tmp_path / "model")
    recipe: str | Path = name
    if (
        name == "xclip"
    ):  # a random ViT is no pretrained one: it moves less, as X-CLIP's own 10 to 1 is for CLIP
        recipe = tmp_path / "xclip.toml"
        recipe.write_text(
            (RECIPES / "xclip.toml").read_text().replace("backbone_lr = 8e-6", "backbone_lr = 8e-7")
        )
    common = (
        "--dataset",
        "plain",
        "--videos",
        many / "frames.zip",
        "--model",
        model,
        "--cache",
        tmp_path / "cache",
    )
    frozen_image = ["--freeze-image"] if load_recipe(recipe).tower.kind == "clip" else []
    arguments = [*common, *FROM_THE_COMMAND_LINE[name], *frozen_image, "--batch", 32, "--patience", 40]
    labels, run = many / "labels-train.csv", tmp_path / "run"
    done = vsearch("train", "--recipe", recipe, "--annotations", labels, "--out", run, *arguments)
    assert done.returncode == 0, done.stderr
    tested = vsearch(
        "eval", "--checkpoint", tmp_path / "run", "--annotations", many / "labels-test.csv", *common, "--json"
    )
    assert tested.returncode == 0, tested.stderr
    found = json.loads(tested.stdout)
    assert found["figures"]["top1"] >= 80, found
    assert found["trained_on"]["hash"]


def test_the_command_line_refuses_testing_on_what_was_trained(
    corpus: Path, tmp_path: Path, vsearch: Vsearch
) -> None:
    model = write_model(tmp_path / "model")
    common = (
        "--annotations",
        corpus,
        "--dataset",
        "msrvtt",
        "--videos",
        corpus / "frames.zip",
        "--model",
        model,
    )
    done = vsearch("train", *common, "--split", "9k", "--epochs", 1, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    refused = vsearch("eval", *common, "--split", "9k", "--checkpoint", tmp_path / "run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "belongs to another protocol" in refused.stderr
    plain = vsearch("eval", *common, "--split", "1k-A", "--checkpoint", tmp_path / "run")
    assert plain.stdout.splitlines()[1].startswith("t2v")


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_run_computes_where_its_backbone_is(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    asked: list[bool] = []
    monkeypatch.setattr(accelerate, "Accelerator", lambda cpu, **others: asked.append(cpu))
    monkeypatch.setattr(
        torch.cuda, "is_available", lambda: device != "mps"
    )  # also one that is not to be used
    _accelerator(TrainOptions(), device)
    assert asked == [device == "cpu"]
