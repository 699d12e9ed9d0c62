"""The transformer block that CLIP and all five systems share, and the rules around it."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Pre-LN attention and a 4x MLP. Parameter names are open_clip's, so a CLIP text block's weights fit.

    3,152,384 parameters at width 512.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, W), padding (B, T) True where there is nothing -> (B, T, W)."""
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
    )


def heads_for(width: int) -> int:
    """CLIP's rule of 64 channels a head, or the nearest count that divides the width."""
    wanted = max(1, width // 64)
    return next(heads for heads in range(wanted, 0, -1) if width % heads == 0)


def normal_weights(module: nn.Module, std: float) -> None:
    """Linear weights N(0, std^2), biases zero (ActionCLIP's fusion, section 3.2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.MultiheadAttention):
            nn.init.normal_(part.in_proj_weight, std=std)


def count(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, of all or of those that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
