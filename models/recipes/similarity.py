"""Similarity of videos and texts: cosine for everything that is indexed, a transformer over pairs to re-rank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vsearch.models.recipes.blocks import Block, QuickGELU, heads_for
from vsearch.models.recipes.temporal import positions_for


def cosine(video: Tensor, text: Tensor) -> Tensor:
    """(B, D), (K, D) -> (B, K). A text per video, (B, K, D), is allowed (X-CLIP)."""
    video, text = nn.functional.normalize(video, dim=-1), nn.functional.normalize(text, dim=-1)
    return torch.einsum("bd,bkd->bk", video, text) if text.dim() == 3 else video @ text.T


class TightTransformer(nn.Module):
    """CLIP4Clip tightTransf (3.3): [text, frames] of every pair through four blocks; the first token is the score.

    There is no vector to index: it re-ranks a short list.
    """

    def __init__(self, dim: int, layers: int = 4, positions: int = 77) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(positions, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads_for(dim)) for _ in range(layers))
        self.pooler = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), QuickGELU())
        self.score = nn.Linear(dim, 1)

    def forward(self, frames: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        """frames (B, T, D), mask (B, T), text (K, D) -> (B, K) scores, not bounded."""
        batch, texts = len(frames), len(text)
        pairs = torch.cat(
            [
                text.unsqueeze(0).expand(batch, -1, -1).unsqueeze(2),
                frames.unsqueeze(1).expand(-1, texts, -1, -1),
            ],
            dim=2,
        ).flatten(0, 1)  # (B*K, 1+T, D)
        real = nn.functional.pad(mask, (1, 0), value=True).repeat_interleave(texts, dim=0)
        h = pairs + positions_for(self.positions, real).to(pairs.dtype)
        for block in self.blocks:
            h = block(h, ~real)
        return self.score(self.pooler(h[:, 0])).view(batch, texts)
