"""Temporal heads: order, padding, any number of frames, and what they are at initialisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.towers import small_clip
from vsearch.errors import ModelError
from vsearch.models.recipes.blocks import Block, count
from vsearch.models.recipes.similarity import TightTransformer, cosine
from vsearch.models.recipes.temporal import build_temporal, pool, positions_for, start_from_text

KINDS = {
    "mean": {},
    "lstm": {},
    "conv": {},
    "efficient-prompt": {"kind": "transformer", "layers": 2, "positions": 16, "residual": False, "std": 0.01},
    "actionclip": {"kind": "transformer", "layers": 6, "positions": 77},
    "seqTransf": {"kind": "transformer", "layers": 4, "positions": 77},
    "xclip": {"kind": "transformer", "layers": 1, "positions": 8},
    "adapter": {},
}


def head(name: str, dim: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return build_temporal(**{"kind": name, "dim": dim, **KINDS[name]})  # type: ignore[arg-type]


def mask_of(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_parameter_counts_at_512() -> None:
    with torch.device("meta"):
        assert count(Block(512, 8)) == 3_152_384
        assert count(head("efficient-prompt", 512)) == 2 * 3_152_384 + 16 * 512
        assert count(head("actionclip", 512)) == 6 * 3_152_384 + 77 * 512
        assert count(head("lstm", 512)) == 2_101_248
        assert count(head("xclip", 512)) == 3_152_384 + 8 * 512
        assert count(head("adapter", 512)) == 263_936
        assert count(head("mean", 512)) == 0


@pytest.mark.parametrize("name", KINDS)
def test_padding_changes_nothing(name: str) -> None:
    module, x = head(name), torch.randn(2, 5, 32)
    if name == "adapter":
        nn.init.normal_(module.conv.weight)  # type: ignore[arg-type]
    mask = mask_of(3, 5)
    batch = pool(module(x, mask), mask, normalise_frames=True)
    alone = pool(module(x[:1, :3], mask_of(3)), mask_of(3), normalise_frames=True)
    torch.testing.assert_close(batch[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("frames", [1, 100])
def test_any_number_of_frames(name: str, frames: int) -> None:
    out = head(name)(torch.randn(1, frames, 32), mask_of(frames))
    assert out.shape == (1, frames, 32)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", [n for n in KINDS if n not in ("mean", "adapter")])
def test_order_is_seen_by_all_but_the_mean(name: str) -> None:
    module, x, mask = head(name), torch.randn(1, 6, 32), mask_of(6)
    forward = pool(module(x, mask), mask, True)
    backward = pool(module(x.flip(1), mask), mask, True)
    assert not torch.allclose(forward, backward, atol=1e-6)
    mean = head("mean")
    torch.testing.assert_close(pool(mean(x, mask), mask, True), pool(mean(x.flip(1), mask), mask, True))


def test_mean_is_pooled_clip_with_and_without_unit_frames() -> None:
    x = torch.randn(1, 4, 32)
    out = head("mean")(x, mask_of(4))
    torch.testing.assert_close(pool(out, mask_of(4), False), x.mean(1))  # ActionCLIP MeanP, temporal=0
    unit = nn.functional.normalize(x, dim=-1).mean(1)
    torch.testing.assert_close(pool(out, mask_of(4), True), unit)  # CLIP4Clip meanP


def test_final_adapter_is_identity_at_first_and_its_convolution_learns() -> None:
    module, x = head("adapter"), torch.randn(2, 4, 32)
    out = module(x, mask_of(4, 4))
    torch.testing.assert_close(out, x, rtol=0, atol=0)
    out.square().sum().backward()
    assert module.conv.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_convolution_starts_as_a_shift_over_time() -> None:
    x = torch.arange(3.0).view(1, 3, 1).expand(1, 3, 8)
    moved = head("conv", 8)(x, mask_of(3)) - x
    torch.testing.assert_close(moved[0, :, 0], torch.tensor([0.0, 0, 1]))  # previous frame
    torch.testing.assert_close(moved[0, :, 3], torch.tensor([0.0, 1, 2]))  # stays
    torch.testing.assert_close(moved[0, :, 7], torch.tensor([1.0, 2, 0]))  # next frame


def test_positions_are_rows_up_to_the_table_and_interpolated_beyond() -> None:
    table = torch.arange(4.0).unsqueeze(1)
    assert positions_for(table, mask_of(3))[0, :, 0].tolist() == [0, 1, 2]
    assert positions_for(table, mask_of(7))[0, :, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert positions_for(table, mask_of(3, 7))[0, :3, 0].tolist() == [0, 1, 2]


def test_seq_transf_starts_from_the_text_tower_where_it_fits() -> None:
    clip = small_clip(layers=4)
    module = head("seqTransf")
    assert start_from_text(module, clip.transformer.resblocks, clip.positional_embedding)
    torch.testing.assert_close(module.positions, clip.positional_embedding)
    x = torch.randn(1, 5, 32)
    mine = module.blocks[2]
    torch.testing.assert_close(mine(x), clip.transformer.resblocks[2](x))
    assert not start_from_text(head("seqTransf", 64), clip.transformer.resblocks, clip.positional_embedding)


def test_tight_transformer_scores_pairs_and_ignores_padding() -> None:
    module = TightTransformer(32)
    frames, text = torch.randn(2, 5, 32), torch.randn(3, 32)
    scores = module(frames, mask_of(3, 5), text)
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[:1, 1:2], module(frames[:1, :3], mask_of(3), text[1:2]))
    with torch.device("meta"):
        assert round(count(TightTransformer(512)) / 1e6, 1) == 12.9


def test_cosine_with_one_text_and_with_one_per_video() -> None:
    video, text = torch.randn(2, 8), torch.randn(3, 8)
    torch.testing.assert_close(cosine(video, text), cosine(5 * video, text.expand(2, -1, -1)))


def test_unknown_head() -> None:
    with pytest.raises(ModelError, match="unknown temporal head 'gru'"):
        build_temporal("gru", 8)
