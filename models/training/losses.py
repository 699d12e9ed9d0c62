"""Losses over logits, (videos, texts). All return a scalar that is never NaN for finite logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def nce(logits: Tensor, positives: Tensor | None = None, symmetric: bool = True) -> Tensor:
    """Batch NCE: pair i belongs together (Efficient-Prompt eq. 5 one way, CLIP4Clip eq. 7-9 both ways).

    positives (B, B) True where a pair off the diagonal belongs together too (same video or same sentence):
    such pairs are left out of the denominators, neither pulled nor pushed.
    """
    if positives is not None:
        others = positives & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    one_way = F.cross_entropy(logits, target)
    return (one_way + F.cross_entropy(logits.T, target)) / 2 if symmetric else one_way


def soft_target_kl(logits: Tensor, match: Tensor, sharpness: float = 10.0) -> Tensor:
    """Mean of both directions of KL(Q || P), Q = softmax(10 * match) (ActionCLIP, section 3.1; M2-CLIP).

    Q keeps a little mass on every pair that does not match, as in the released code.
    """
    target = (sharpness * match.to(logits.dtype)).softmax(dim=1)
    target_t = (sharpness * match.T.to(logits.dtype)).softmax(dim=1)
    to_text = F.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean")
    to_video = F.kl_div(logits.T.log_softmax(dim=1), target_t, reduction="batchmean")
    return (to_text + to_video) / 2


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over classes, (B, C) and (B,): M2-CLIP's CMC on cosine logits, its VC on a linear classifier,
    X-CLIP's loss with smoothing 0.1. One softmax, not two as in M2-CLIP's released CMC."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def masked_words(logits: Tensor, targets: Tensor) -> Tensor:
    """CMLM: cross-entropy at masked positions, (B, L, V) and (B, L) with -100 elsewhere; 0 when none is masked."""
    if not bool((targets != -100).any()):
        return logits.sum() * 0
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
