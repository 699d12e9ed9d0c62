"""From a picture's ImageNet features to its vector: what the captions taught, what the classifier knows, fewer hubs.

Three small networks learned pictures with captions. Beside them stands the classifier that came with the trunk: its
probabilities weigh the text vectors of its classes' names (ConSE: Norouzi et al., "Zero-shot learning by convex
combination of semantic embeddings", ICLR 2014), so that what few captions mention can be searched by name.

A picture near every sentence must not answer every query (Radovanović et al., JMLR 2010). Following Bogolin et al.,
"Cross Modal Retrieval with Querybank Normalisation" (CVPR 2022), the similarity to a bank of training sentences says
how much of a hub it is. The last component of a picture's vector falls with the soft maximum over the bank, and that of
every sentence is one positive number, so the plain cosine of the two is the corrected score.
"""

from __future__ import annotations

import torch
from torch import nn


class PictureHead(nn.Module):
    """(N, features) -> (N, dim), of unit length but for the last component.

    `names` (classes, dim - 1): text vectors of the classes' names less their mean, times their weight; `centroids`
    (K, dim - 1): means of clusters of unit sentence vectors, `log_share` (K,) the log of the clusters' shares; `level`:
    the hubness of the average training picture; `weight`: that of the correction, over the last component of sentences.
    """

    names: torch.Tensor
    centroids: torch.Tensor
    log_share: torch.Tensor
    level: torch.Tensor
    weight: torch.Tensor

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        members: int,
        hidden: int,
        classes: int,
        centroids: int,
        temperature: float,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, dim - 1))
            for _ in range(members)
        )
        self.classifier = nn.Linear(features, classes)
        self.register_buffer("names", torch.zeros(classes, dim - 1))
        self.register_buffer("centroids", torch.zeros(centroids, dim - 1))
        self.register_buffer("log_share", torch.zeros(centroids))
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        unit = self.uncorrected(features)
        away = (self.level - self.hubness(unit)) * self.weight
        return torch.cat([unit, away[:, None]], dim=-1)

    def uncorrected(self, features: torch.Tensor) -> torch.Tensor:
        """(N, features) -> (N, dim - 1) unit vectors, hubs and all."""
        learned = torch.stack([nn.functional.normalize(member(features), dim=-1) for member in self.members])
        known = self.classifier(features).softmax(-1) @ self.names
        return nn.functional.normalize(learned.mean(0) + known, dim=-1)

    def hubness(self, unit: torch.Tensor) -> torch.Tensor:
        """(N, dim - 1) unit vectors -> (N,) the soft maximum of their cosines with the bank."""
        t = self.temperature
        return t * torch.logsumexp(unit @ self.centroids.T / t + self.log_share, dim=-1)
