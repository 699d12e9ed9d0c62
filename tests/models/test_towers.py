"""Towers that look across frames: sizes, and that each is CLIP where the paper says it starts as CLIP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer
from torch import nn

from tests.towers import shape_of, small_clip, tokens
from vsearch.errors import ModelError
from vsearch.models import Backbone, Preprocess
from vsearch.models.prompts import ContinuousPrompts
from vsearch.models.recipes import Batch, VideoText, load_recipe, read
from vsearch.models.recipes.blocks import count
from vsearch.models.recipes.recipe import TowerPart, recipe_names
from vsearch.models.recipes.temporal import TemporalAdapter, build_temporal, pool
from vsearch.models.recipes.text_tower import MaskedWordHead, TextAdapters
from vsearch.models.recipes.towers import CrossFrameTower, FrameTower, TedTower, build_tower
from vsearch.models.training.samples import pad

VIDEO = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def per_frame(clip: Any, video: torch.Tensor) -> torch.Tensor:
    return clip.encode_image(video.flatten(0, 1)).unflatten(0, video.shape[:2])


class Deaf(CrossFrameTower):
    """Messages are sent, and nobody attends to them."""

    def attend(self, block: Any, z: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(z.shape[1], z.shape[1])
        mask[:, -1] = float("-inf")
        return block.attention(z, attn_mask=mask)


def without_exchange(tower: CrossFrameTower) -> None:
    for attention in tower.attn:
        nn.init.zeros_(attention.out_proj.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(attention.out_proj.bias)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
def test_parameter_counts_on_published_shapes(name: str) -> None:
    clip = shape_of(name)
    with torch.device("meta"):
        assert count(build_tower("cross-frame", clip)) == 35_453_952
        ted = build_tower("ted", clip)
        assert count(ted) == 14_247_936
        text = TextAdapters(512, 384, 1)
        words = MaskedWordHead(clip, 520, 384)  # holds the adapter of the thirteenth block
        classifier = nn.Linear(768, 400)
        total = sum(count(m) for m in (ted, text, words, TemporalAdapter(512), classifier))
        assert total == 16_138_136


@pytest.mark.parametrize("kind", ["clip", "ted", "patch3d"])
def test_identity_at_initialisation(kind: str) -> None:
    clip = small_clip()
    out = build_tower(kind, clip)(clip.visual, VIDEO)
    torch.testing.assert_close(out.features, per_frame(clip, VIDEO))
    assert out.patches.shape == (2, 3, 16, 64)


def test_ted_before_attention_too_is_identity_and_bigger() -> None:
    clip = small_clip()
    tower = TedTower(64, 2, hidden=16, before_attention=True)
    torch.testing.assert_close(tower(clip.visual, VIDEO).features, per_frame(clip, VIDEO))
    assert count(tower) == 2 * count(TedTower(64, 2, hidden=16))


def test_cross_frame_without_exchange_and_with_messages_masked_is_clip() -> None:
    clip = small_clip()
    torch.manual_seed(0)
    tower = Deaf(64, 2, 2)
    without_exchange(tower)
    torch.testing.assert_close(tower(clip.visual, VIDEO).features, per_frame(clip, VIDEO))
    # and with messages heard it is not CLIP, as the release starts
    heard = build_tower("cross-frame", clip)(clip.visual, VIDEO).features
    assert not torch.allclose(heard, per_frame(clip, VIDEO), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
@torch.inference_mode()
def test_identities_hold_on_published_shapes(name: str) -> None:
    """Random weights: what is added must vanish whatever CLIP's own weights are."""
    import open_clip

    torch.manual_seed(0)
    clip = open_clip.model.CLIP(**open_clip.get_model_config(name)).eval()
    video = torch.randn(1, 3, 3, 224, 224)
    want = per_frame(clip, video)
    for kind in ("clip", "ted", "patch3d"):
        torch.testing.assert_close(build_tower(kind, clip)(clip.visual, video).features, want, msg=kind)
    deaf = Deaf(768, 12, 12)
    without_exchange(deaf)
    torch.testing.assert_close(deaf(clip.visual, video).features, want)
    mask = torch.ones(1, 3, dtype=torch.bool)
    for kind in ("mean", "adapter"):
        torch.testing.assert_close(build_temporal(kind=kind, dim=512)(want, mask), want, msg=kind)
    torch.testing.assert_close(pool(want, mask, False), want.mean(1))
    ids = tokens(["a dog running on grass", "archery"])
    embeddings, eot = ContinuousPrompts(512, 0, 0)(ids, clip.token_embedding)
    torch.testing.assert_close(read(clip, embeddings, eot)[0], clip.encode_text(ids))


@pytest.mark.parametrize("kind", ["cross-frame", "ted", "patch3d", "shift"])
def test_a_frame_hears_of_the_others_but_not_of_other_videos(kind: str) -> None:
    torch.manual_seed(0)
    clip = small_clip()
    tower = build_tower(kind, clip)
    with torch.no_grad():
        for p in tower.parameters():
            p.normal_(std=0.1)
    changed = VIDEO.clone()
    changed[0, 2] = 0
    before, after = tower(clip.visual, VIDEO).features, tower(clip.visual, changed).features
    assert not torch.allclose(before[0, 1], after[0, 1], atol=1e-5)
    torch.testing.assert_close(before[1], after[1])


@pytest.mark.parametrize("name", [*(n for n in recipe_names() if n != "zero-shot"), "shift"])
def test_a_short_video_gives_the_same_alone_and_beside_longer_ones(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(
        "small", small_clip(), SimpleTokenizer(), Preprocess(64, (0.5,) * 3, (0.25,) * 3), "cpu"
    )
    labels = ["running", "dancing"]
    recipe = load_recipe("actionclip" if name == "shift" else name)
    recipe = replace(recipe, tower=TowerPart("shift")) if name == "shift" else recipe
    model = VideoText(recipe, backbone, labels).eval()
    with torch.no_grad():
        for part in model.new.parameters():
            part.add_(0.1 * torch.randn_like(part))
    rng = np.random.default_rng(0)
    short, long = (rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for n in (2, 5))
    together, mask = pad([short, long])
    with torch.no_grad():
        alone = model.embed_video(*pad([short]))
        beside = model.embed_video(together, mask)
        torch.testing.assert_close(beside.vectors[:1], alone.vectors, rtol=1e-4, atol=1e-5)
        text = model.embed_text(labels)
        torch.testing.assert_close(
            model.logits(beside, text)[:1], model.logits(alone, text), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("part", ["masked_words", "classifier"])
def test_heads_of_classes_hear_real_frames_alone(part: str) -> None:
    torch.manual_seed(0)
    recipe = replace(load_recipe("m2clip"), loss=replace(load_recipe("m2clip").loss, vc=1.0, cmlm=1.0))
    backbone = Backbone(
        "small", small_clip(), SimpleTokenizer(), Preprocess(64, (0.5,) * 3, (0.25,) * 3), "cpu"
    )
    model = VideoText(recipe, backbone, ["running", "dancing"]).eval()
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    video, mask = pad([frames])
    padded = (
        torch.cat([video, torch.full_like(video, 255)], dim=1),
        torch.cat([mask, torch.zeros_like(mask)], dim=1),
    )
    loss = {"masked_words": "cmlm", "classifier": "vc"}[part]
    found = []
    for some, real in ((video, mask), padded):
        with torch.no_grad():
            batch = Batch(some, real, ["running"], torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]), 7)
            found.append(model(batch)[loss])
    torch.testing.assert_close(found[0], found[1])
    assert found[0] > 0


def test_difference_of_the_first_frame_is_zero() -> None:
    torch.manual_seed(0)
    adapter = TedTower(64, 1, hidden=16).mlp_adapters[0]
    nn.init.normal_(adapter.over_space.weight)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2 * 3, 17, 64)
    moved = (adapter(x, torch.ones(2, 3, dtype=torch.bool)) - x).unflatten(0, (2, 3))
    assert moved[:, 0].abs().max() == 0
    assert moved[:, 1, 0].abs().max() == 0  # class token
    assert moved[:, 1, 1:].abs().max() > 0


def test_zero_convolutions_of_ted_learn() -> None:
    clip = small_clip().requires_grad_(False)
    tower = TedTower(64, 2, hidden=16)
    tower(clip.visual, VIDEO).features.square().sum().backward()
    for adapter in tower.mlp_adapters:
        assert adapter.over_time.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    for adapter in tower.mlp_adapters[
        :-1
    ]:  # behind the last attention, patches no longer reach the class token
        assert adapter.over_space.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_text_read_from_embeddings_is_clip_and_adapters_change_the_last_blocks() -> None:
    clip, ids = small_clip(), tokens(["a dog", "two men play chess"])
    eot, embedded = ids.argmax(1), clip.token_embedding(ids)
    torch.testing.assert_close(read(clip, embedded, eot)[0], clip.encode_text(ids))
    adapters = TextAdapters(32, 16, 1)
    assert adapters.at(-1) is adapters.adapters[0]
    assert adapters.at(-2) is None
    assert not torch.allclose(read(clip, embedded, eot, adapters)[0], clip.encode_text(ids))


def test_the_cnn_is_refused_with_a_sentence() -> None:

    from vsearch.models import load_backbone

    mini = load_backbone("mini", "cpu")
    assert isinstance(build_tower("clip", mini.clip), FrameTower)
    with pytest.raises(ModelError, match="cross-frame tower needs a vision transformer"):
        build_tower("cross-frame", mini.clip)
    with pytest.raises(ModelError, match="unknown tower"):
        build_tower("slowfast", small_clip())
