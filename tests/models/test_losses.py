"""Losses against small cases worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from vsearch.models.training.losses import classification, masked_words, nce, soft_target_kl

LOGITS = torch.tensor([[2.0, 0.0], [1.0, 3.0]])


def test_nce_one_way_and_symmetric() -> None:
    to_text = (log(1 + exp(-2)) + log(1 + exp(-2))) / 2
    to_video = (log(1 + exp(-1)) + log(1 + exp(-3))) / 2
    assert nce(LOGITS, symmetric=False).item() == pytest.approx(to_text)
    assert nce(LOGITS).item() == pytest.approx((to_text + to_video) / 2)


def test_other_positives_are_not_negatives() -> None:
    same = torch.ones(2, 2, dtype=torch.bool)
    assert nce(LOGITS, same).item() == pytest.approx(0)
    logits = torch.zeros(3, 3, requires_grad=True)
    positives = torch.eye(3, dtype=torch.bool)
    positives[0, 1] = positives[1, 0] = True
    loss = nce(logits, positives)
    assert loss.item() == pytest.approx((2 * log(2) + log(3)) / 3)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == logits.grad[1, 0] == 0
    assert logits.grad[2, 0] > 0


def test_soft_target_kl() -> None:
    q = exp(10) / (exp(10) + 1)
    p = exp(2) / (exp(2) + 1), exp(3) / (exp(1) + exp(3)), exp(2) / (exp(2) + exp(1)), exp(3) / (1 + exp(3))
    kl = [q * log(q / x) + (1 - q) * log((1 - q) / (1 - x)) for x in p]
    expected = ((kl[0] + kl[1]) / 2 + (kl[2] + kl[3]) / 2) / 2
    assert soft_target_kl(LOGITS, torch.eye(2)).item() == pytest.approx(expected, rel=1e-3)
    match = torch.tensor([[True, True], [True, True]])
    assert soft_target_kl(torch.zeros(2, 2), match).item() == pytest.approx(0, abs=1e-6)


def test_classification_is_one_softmax() -> None:
    assert classification(LOGITS, torch.tensor([0, 0])).item() == pytest.approx(
        (log(1 + exp(-2)) + log(1 + exp(2))) / 2
    )
    smooth = classification(LOGITS[:1], torch.tensor([0]), smoothing=0.1).item()
    assert smooth == pytest.approx(0.95 * log(1 + exp(-2)) + 0.05 * log(1 + exp(2)))


def test_masked_words_count_only_masks_and_never_give_nan() -> None:
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    assert masked_words(logits, torch.tensor([[-100, 2, -100]])).item() == pytest.approx(log(4))
    nothing = masked_words(logits, torch.full((1, 3), -100))
    assert nothing.item() == 0
    nothing.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0
