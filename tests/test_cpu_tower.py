"""The image tower arranged for the CPU: plain open_clip's vectors, whatever the tower is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.towers import sighted_clip, small_clip
from vsearch.models import load_backbone
from vsearch.models.backbone import Backbone, Preprocess
from vsearch.models.cpu_tower import for_cpu, packed
from vsearch.models.temporal import build_temporal

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def plain_vectors(backbone: Backbone, frames: np.ndarray) -> np.ndarray:
    """As open_clip computes them: its own preprocessing constants, its own tower."""
    pre = backbone.preprocess
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous() / 255
    pixels = (pixels - torch.tensor(pre.mean).view(3, 1, 1)) / torch.tensor(pre.std).view(3, 1, 1)
    with torch.inference_mode():
        return backbone.clip.encode_image(pixels).numpy()


def pictures(size: int, count: int = 5) -> np.ndarray:
    """Gradients with discs, so that vectors differ: (count, size, size, 3)"""
    y, x = np.mgrid[0:size, 0:size] * (255 / size)
    out = []
    for i in range(count):
        picture = np.stack([x, y, 255 - x], axis=-1)
        picture[(x - 40 * i - 30) ** 2 + (y - 128) ** 2 < 900] = np.random.default_rng(i).integers(0, 255, 3)
        out.append(picture)
    return np.stack(out).astype(np.uint8)


def of(clip: Any) -> Backbone:
    import open_clip

    pre = Preprocess(64, (0.5,) * 3, (0.25,) * 3)
    backbone = Backbone("small", clip, open_clip.SimpleTokenizer(), pre, "cpu")
    backbone.arrange()
    return backbone


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def left(backbone: Backbone, kind: type[nn.Module]) -> int:
    visual: Any = backbone._image_side().visual
    return sum(isinstance(part, kind) for part in visual.modules())


def test_the_built_in_tower_gives_open_clips_vectors_without_its_norms() -> None:
    mini = load_backbone("mini", "cpu")
    mini.arrange()
    frames = pictures(224)
    assert_same(mini.encode_frames(frames), plain_vectors(mini, frames))
    assert left(mini, nn.BatchNorm2d) == 0
    if torch.backends.mkldnn.is_available():
        assert left(mini, nn.Conv2d) == left(mini, nn.ReLU6) == 0
    assert not any(type(part).__name__ == "Conv2dSame" for part in mini._image_side().visual.modules())


@needs_onednn
def test_a_vision_transformer_gives_open_clips_vectors_with_packed_weights() -> None:
    small = of(sighted_clip())
    frames = pictures(64)
    assert_same(small.encode_frames(frames), plain_vectors(small, frames))
    assert left(small, nn.Linear) == left(small, nn.MultiheadAttention) == 0


def test_batches_of_any_size_and_long_ones_agree() -> None:
    small = of(sighted_clip())
    frames = pictures(64, 9)
    one_by_one = np.concatenate([small.encode_frames(frame[None]) for frame in frames])
    np.testing.assert_allclose(small.encode_frames(frames), one_by_one, rtol=1e-4, atol=1e-4)


def test_the_model_itself_its_identity_and_its_training_are_untouched() -> None:
    small = of(small_clip())
    before = {name: value.clone() for name, value in small.clip.state_dict().items()}
    small.encode_frames(pictures(64))
    after = small.clip.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert small.identity == of(small_clip()).identity
    small.clip.requires_grad_(True)
    small.clip.encode_image(torch.zeros(1, 3, 64, 64)).sum().backward()
    assert small.clip.visual.conv1.weight.grad is not None


def test_weights_changed_in_place_are_followed() -> None:
    small = of(sighted_clip())
    frames = pictures(64)
    first = small.encode_frames(frames)
    with torch.no_grad():
        small.clip.visual.transformer.resblocks[0].mlp.c_fc.weight.mul_(-3)
    assert np.abs(small.encode_frames(frames) - first).max() > 1e-2
    assert_same(small.encode_frames(frames), plain_vectors(small, frames))


@needs_onednn
def test_convolutions_are_packed_with_the_relu_that_is_theirs_alone() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False), nn.ReLU6(),
        nn.Conv2d(8, 4, 3, padding="same"), nn.Flatten(),
    ).eval()  # fmt: skip
    clip = _Clip()
    clip.visual = plain
    arranged: Any = for_cpu(clip, 16)
    kinds = [type(part).__name__ for part in arranged.visual]
    assert kinds.count("_PackedConvolution") == 2
    assert kinds.count("Conv2d") == 1  # its padding has no numbers
    for size, count in ((16, 5), (24, 1)):
        x = torch.randn(count, 3, size, size)
        with torch.inference_mode():
            torch.testing.assert_close(arranged.encode_image(x), clip.encode_image(x), rtol=1e-4, atol=1e-5)


class _Crossed(nn.Module):
    """Registers its norm right behind a convolution whose output something else sees, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(0.5)
        self.norm.weight.data.fill_(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.conv(x)
        return (self.norm(seen) + seen).mean((2, 3))


class _Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = _Crossed()

    def encode_image(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


def test_a_tower_that_a_rewrite_would_change_is_left_alone() -> None:
    clip = _Clip().eval()
    arranged: Any = for_cpu(clip, 16)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(arranged.encode_image(x), clip.encode_image(x))
    assert isinstance(arranged.visual.norm, nn.BatchNorm2d)


@needs_onednn
def test_a_temporal_head_on_packed_weights_gives_the_same_with_and_without_padding() -> None:
    torch.manual_seed(0)
    layers = build_temporal("transformer", 64, 2, 8).eval()
    frames, whole = torch.randn(5, 8, 64), torch.ones(5, 8, dtype=torch.bool)
    faster = packed(layers, frames, whole)
    assert not any(type(part) is nn.MultiheadAttention for part in faster.modules())
    padded = whole.clone()
    padded[1, 3:] = False
    with torch.inference_mode():
        for mask in (whole, padded):
            found, expected = faster(frames, mask), layers(frames, mask)
            torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=0)
    nothing = nn.Identity()
    assert packed(nothing, frames) is nothing
