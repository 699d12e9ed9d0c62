"""Prompts: where the vectors stand, what is cut, and that no prompt is no change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.towers import small_clip, tokens
from vsearch.errors import ModelError
from vsearch.models.prompts import ContinuousPrompts, VideoSpecificPrompts, fill, template_probabilities
from vsearch.models.recipes import read
from vsearch.models.recipes.blocks import count
from vsearch.models.recipes.text_tower import label_words, mask_words, read_short

WORDS = ["a dog", "a man in a red shirt rides a horse along the beach", "word " * 90]


def test_the_released_table_has_39424_parameters() -> None:
    with torch.device("meta"):
        assert count(ContinuousPrompts(512, released_layout=True)) == 39_424
        assert count(ContinuousPrompts(512)) == 32 * 512


def test_video_specific_prompts_have_6697984_parameters() -> None:
    with torch.device("meta"):
        assert count(VideoSpecificPrompts(768, 512)) == 6_697_984


def test_no_prompts_is_clip() -> None:
    clip = small_clip()
    ids = tokens(WORDS)
    embeddings, eot = ContinuousPrompts(32, 0, 0)(ids, clip.token_embedding)
    torch.testing.assert_close(read(clip, embeddings, eot)[0], clip.encode_text(ids))


def test_reading_up_to_eot_alone_is_the_same() -> None:
    """In any order of lengths, more sentences than are read together, with prompts and with gradient."""
    clip, prompts = small_clip(), ContinuousPrompts(32, 5, 3)
    ids = tokens([WORDS[0], *WORDS, *("word " * n for n in range(30, 0, -1))])
    embeddings, eot = prompts(ids, clip.token_embedding)
    whole, short = read(clip, embeddings, eot)[0], read_short(clip, embeddings, eot)
    torch.testing.assert_close(short, whole)
    weights = torch.randn_like(whole)
    one, other = (
        torch.autograd.grad((x * weights).sum(), prompts.table, retain_graph=True)[0] for x in (whole, short)
    )
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)  # sums over all sentences, in float32


@pytest.mark.parametrize("released", [False, True])
def test_layout_row_by_row(released: bool) -> None:
    table = torch.nn.Embedding(49408, 8)
    prompts = ContinuousPrompts(8, prefix=3, suffix=2, released_layout=released)
    ids = tokens(WORDS)
    rows, eot = prompts(ids, table)
    for ids_of, row, end in zip(ids, rows, eot.tolist(), strict=True):
        n = min(int(ids_of.argmax()) - 1, 77 - 2 - 5)
        assert end == n + 6
        expected = [table(ids_of[:1])[0], *(prompts.table[1:4] if released else prompts.table[:3])]
        expected += list(table(ids_of[1 : n + 1]))
        expected += list(prompts.table[n + 4 : n + 6] if released else prompts.table[3:5])
        expected.append(table(torch.tensor(49407)))
        torch.testing.assert_close(row[: end + 1], torch.stack(expected))


def test_a_long_sentence_is_cut_to_43_tokens_and_keeps_its_end() -> None:
    _, eot = ContinuousPrompts(8)(tokens(WORDS), torch.nn.Embedding(49408, 8))
    assert eot.tolist()[-1] == 76
    assert ContinuousPrompts(8).context - 2 - 32 == 43


def test_too_many_prompts_are_refused() -> None:
    with pytest.raises(ModelError, match="no room"):
        ContinuousPrompts(8, 40, 40)


@pytest.mark.parametrize("released", [False, True])
def test_gradient_reaches_the_table_through_the_frozen_tower(released: bool) -> None:
    clip = small_clip().requires_grad_(False)
    prompts = ContinuousPrompts(32, 4, 4, released)
    embeddings, eot = prompts(tokens(WORDS[:2]), clip.token_embedding)
    read(clip, embeddings, eot)[0].square().sum().backward()
    touched = prompts.table.grad.abs().sum(dim=1) > 0  # type: ignore[union-attr]
    assert touched.sum() == 8 if not released else touched[1:5].all() and not touched[0]
    assert all(p.grad is None for p in clip.parameters())


def test_template_probabilities_average_after_softmax() -> None:
    video = torch.nn.functional.normalize(torch.randn(3, 8), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(2, 5, 8), dim=-1)
    expected = sum((100 * video @ t.T).softmax(-1) for t in texts) / 2
    torch.testing.assert_close(template_probabilities(video, texts), expected)
    assert fill(["a {} b"], "{x}") == ["a {x} b"]


def test_video_specific_prompts_differ_by_video() -> None:
    module = VideoSpecificPrompts(16, 32)
    out = module(torch.randn(4, 32), torch.randn(2, 3, 9, 16), torch.ones(2, 3))
    assert out.shape == (2, 4, 32)
    assert not torch.allclose(out[0], out[1])


def test_without_attention_and_mlp_video_specific_prompts_scale_the_text() -> None:
    """c_0 + alpha * c_2 with c_2 = c_0 is (1 + alpha) * c_0: the direction is CLIP's."""
    module = VideoSpecificPrompts(16, 32)
    for layer in module.layers:
        parts: Any = layer
        for linear in (parts.out, parts.mlp.c_proj):
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
    text = torch.randn(4, 32)
    torch.testing.assert_close(module(text, torch.randn(1, 3, 9, 16), torch.ones(1, 3))[0], 1.1 * text)


def test_masking_hides_at_least_one_word_and_knows_where() -> None:
    import random

    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    words = label_words(["playing violin", "surfing"])
    for seed in range(20):
        masked, targets = mask_words("a video of playing violin", words, tokenizer, random.Random(seed))
        places = [i for i, t in enumerate(targets) if t != -100]
        assert len(places) == masked.split().count("mask") >= 1
        ids = tokenizer([masked])[0]
        assert {int(ids[i]) for i in places} == {tokenizer.encode("mask")[0]}
        assert all(targets[i] in words.values() for i in places)
