"""Fewer hubs: pictures that lie near every sentence must not answer every query.

In a joint space some vectors are neighbours of far too many queries (Radovanović et al., JMLR 2010). Following
Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation" (CVPR 2022), a picture's similarity to a bank
of training sentences says how much of a hub it is. Here that is part of the image tower: the last component of its
vector falls with the soft maximum over the bank, and that of every sentence is one positive number, so the plain
cosine of the two is already the corrected score.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class HubAwareHead(nn.Module):
    """An image head (…) -> (N, D) followed by the correction; gives unit vectors but for the last component.

    centroids (K, D): means of clusters of unit sentence vectors, `log_share` (K,) the log of the clusters' shares;
    basis (D, D - 1): the space without its weakest direction, whose place the correction takes; `level`: its mean
    over training pictures; `weight`: its weight over the last component of sentences.
    """

    centroids: torch.Tensor
    log_share: torch.Tensor
    basis: torch.Tensor
    level: torch.Tensor
    weight: torch.Tensor

    def __init__(self, head: nn.Module, dim: int, centroids: int, temperature: float) -> None:
        super().__init__()
        self.head, self.temperature = head, temperature
        self.register_buffer("centroids", torch.zeros(centroids, dim))
        self.register_buffer("log_share", torch.zeros(centroids))
        self.register_buffer("basis", torch.zeros(dim, dim - 1))
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, ...) what `head` takes -> (N, D)"""
        unit = nn.functional.normalize(self.head(features), dim=-1)
        away = (self.level - self.hubness(unit)) * self.weight
        return torch.cat([unit @ self.basis, away[:, None]], dim=-1)

    def hubness(self, unit: torch.Tensor) -> torch.Tensor:
        """(N, D) unit vectors -> (N,) the soft maximum of their cosines with the bank."""
        t = self.temperature
        return t * torch.logsumexp(unit @ self.centroids.T / t + self.log_share, dim=-1)


def make_hub_aware(clip: nn.Module, dim: int, centroids: int, temperature: float) -> nn.Module:
    """`clip` (open_clip's, with a timm image tower) with its image head inside a `HubAwareHead` to be filled."""
    visual: Any = clip.visual
    visual.head = HubAwareHead(visual.head, dim, centroids, temperature)
    return clip
