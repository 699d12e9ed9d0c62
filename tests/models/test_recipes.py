"""Recipes: files that are wrong are refused, and gradient reaches exactly the parameters that should train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.towers import small_clip
from vsearch.errors import ModelError
from vsearch.models import Backbone, Preprocess, load_backbone
from vsearch.models.recipes import Batch, VideoText, load_recipe
from vsearch.models.recipes.recipe import RECIPES, read_recipe, recipe_names

LABELS = ["left", "right"]


def small_backbone(**text: int) -> Backbone:
    import open_clip

    pre = Preprocess(64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Backbone("small", small_clip(**text), open_clip.SimpleTokenizer(), pre, "cpu")


def batch_of(classes: bool, vectors: bool) -> Batch:
    torch.manual_seed(1)
    video = torch.randn(2, 4, 32) if vectors else torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 1]) if classes else None
    return Batch(
        video, torch.ones(2, 4, dtype=torch.bool), ["left", "right"], torch.eye(2, dtype=torch.bool), labels
    )


@pytest.mark.parametrize("name", [n for n in recipe_names() if n != "zero-shot"])
@pytest.mark.parametrize("classes", [False, True])
def test_gradient_reaches_exactly_what_the_recipe_trains(name: str, classes: bool) -> None:
    recipe = load_recipe(name)
    model = VideoText(recipe, small_backbone(layers=4), LABELS if classes else ())
    model.train()
    sum(model(batch_of(classes, not recipe.in_network)).values()).backward()  # type: ignore[union-attr]
    reached = {
        n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 1e-7)
    }
    expected = {n for n, _ in model.trained()} - idle(name, model)
    assert reached == expected
    own = {n for n in expected if n.startswith("clip.")}
    assert any(n.startswith("clip.visual") for n in own) == recipe.train_image
    assert any(n.startswith("clip.transformer") for n in own) == recipe.train_text


def idle(name: str, model: VideoText) -> set[str]:
    """What cannot learn in one step from the start, and why."""
    patterns = {
        # Zero convolutions let nothing through to what stands before them, nor anything but biases behind them;
        # behind the last attention patches no longer reach the class token.
        "m2clip": r"new\.(tower|temporal)\..*(down\.|up\.weight)|mlp_adapters\.1\.(over_space|difference)",
        # the pair transformer has no cosine to scale, and what all scores share changes no ranking
        "clip4clip-tight": r"clip\.logit_scale|score\.bias",
    }
    return {n for n, _ in model.trained() if re.search(patterns.get(name, "$^"), n)}


def test_every_recipe_is_named_like_its_file() -> None:
    assert {load_recipe(n).name for n in recipe_names()} == set(recipe_names())
    assert {"efficient-prompt", "actionclip", "xclip", "m2clip", "clip4clip"} <= set(recipe_names())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = 1\nsummary=''\nsource=''", "name is 1; it must be of type str"),
        ("name = 'x'", "are required"),
        ("name='x'\nsummary=''\nsource=''\nspeed=1", "unknown key 'speed'"),
        (
            "name='x'\nsummary=''\nsource=''\n[tower]\nkind='resnet'",
            "tower: kind is 'resnet'; it must be one of 'clip'",
        ),
        ("name='x'\nsummary=''\nsource=''\ntower=3", "tower must be a table"),
        ("name=", "not TOML"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ModelError, match=sentence):
        load_recipe(file)


def test_unknown_recipe() -> None:
    with pytest.raises(ModelError, match="unknown recipe 'evl'; known: actionclip"):
        load_recipe("evl")


def test_a_recipe_survives_being_written_and_read() -> None:
    recipe = load_recipe(RECIPES / "m2clip.toml")
    assert read_recipe(recipe.as_dict(), "again") == recipe


def test_mini_takes_what_needs_no_vit() -> None:
    mini = load_backbone("mini", "cpu")
    for name in recipe_names():
        recipe = load_recipe(name)
        if recipe.tower.kind == "clip":
            VideoText(recipe, mini)
        else:
            with pytest.raises(ModelError, match="needs a vision transformer"):
                VideoText(recipe, mini)


def test_at_first_clip4clip_is_mean_pooled_clip() -> None:
    backbone = small_backbone()
    model = VideoText(load_recipe("clip4clip"), backbone).eval()
    batch = batch_of(False, False)
    mine = model.embed_video(batch.video, batch.mask).vectors
    frames = torch.from_numpy(backbone.encode_frames(batch.video.flatten(0, 1).numpy())).unflatten(0, (2, 4))
    torch.testing.assert_close(
        mine, torch.nn.functional.normalize(frames, dim=-1).mean(1), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(model.embed_text(LABELS), torch.from_numpy(backbone.encode_texts(LABELS)))
