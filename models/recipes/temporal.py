"""Temporal heads: frame vectors (B, T, D) and a mask (B, T) of real frames -> frame vectors that know their order.

Pooling comes after (`pool`). Every head takes any number of frames, and a video's result does not depend on
the padding it gets from longer neighbours in a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsearch.errors import ModelError
from vsearch.models.recipes.blocks import Block, heads_for, normal_weights
from vsearch.models.recipes.recipe import TemporalPart
from vsearch.models.recipes.text_tower import text_parts


def temporal_layers(part: TemporalPart, dim: int, clip: Callable[[], nn.Module]) -> nn.Module:
    """A recipe's head for vectors of `dim`. Blocks that start from the text tower are built like those of `clip()`."""
    head = build_temporal(part.kind, dim, part.layers, part.positions, part.residual, part.std)
    if part.from_text and part.kind == "transformer":
        parts = text_parts(clip())
        start_from_text(head, parts.transformer.resblocks, parts.positional_embedding)
    return head


def build_temporal(
    kind: str, dim: int, layers: int = 0, positions: int = 77, residual: bool = True, std: float = 0.02
) -> nn.Module:
    """The head of that name for vectors of `dim`. Raises ModelError for an unknown name."""
    if kind == "mean":
        return Mean()
    if kind == "lstm":
        return Recurrent(dim)
    if kind == "conv":
        return ShiftConv(dim)
    if kind == "transformer":
        return TemporalTransformer(dim, layers, positions, residual, std)
    if kind == "adapter":
        return TemporalAdapter(dim)
    raise ModelError(f"unknown temporal head {kind!r}; known: mean, lstm, conv, transformer, adapter")


class Mean(nn.Module):
    """Order is not looked at: the frames as they are."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


class Recurrent(nn.Module):
    """x + LSTM(x), one layer, one direction (CLIP4Clip seqLSTM; ActionCLIP LSTM).

    Padding stands at the end, which a causal recurrence cannot see, so nothing needs packing.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.lstm(x)[0]


class ShiftConv(nn.Module):
    """x + depthwise convolution over time, k = 3, that starts as a shift (ActionCLIP Conv_1D).

    At first a quarter of the channels take the previous frame, half stay, a quarter take the next one.
    Time and channels are transposed, not reinterpreted as in the released code.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            quarter = dim // 4
            self.conv.weight[:quarter, 0, 0] = 1
            self.conv.weight[quarter : dim - quarter, 0, 1] = 1
            self.conv.weight[dim - quarter :, 0, 2] = 1

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = x * mask.unsqueeze(-1)
        return x + self.conv(real.transpose(1, 2)).transpose(1, 2)


class TemporalTransformer(nn.Module):
    """Learned positions and pre-LN blocks. `residual` adds the raw frames to the result.

    Efficient-Prompt 3.2: 1-2 blocks, 16 positions, no residual. ActionCLIP Transf: 6 blocks, 77, residual.
    CLIP4Clip seqTransf: 4 blocks, 77, residual, may start from the text tower (`start_from_text`).
    X-CLIP's multi-frame integration (3.3): 1 block, T positions, residual.
    """

    def __init__(self, dim: int, layers: int, positions: int, residual: bool, std: float) -> None:
        super().__init__()
        self.residual = residual
        self.positions = nn.Parameter(torch.randn(positions, dim) * std)
        self.blocks = nn.ModuleList(Block(dim, heads_for(dim)) for _ in range(layers))
        if residual:
            normal_weights(self.blocks, std)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = x + positions_for(self.positions, mask).to(x.dtype)
        for block in self.blocks:
            h = block(h, ~mask)
        return x + h if self.residual else h


class TemporalAdapter(nn.Module):
    """x + Up(depthwise Conv1d(Down x)), zero convolution: exact identity at first (M2-CLIP, last adapter)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 2
        self.down = nn.Linear(dim, hidden)
        self.conv = nn.Conv1d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.up = nn.Linear(hidden, dim)
        for tensor in (self.down.bias, self.up.bias, self.conv.weight, self.conv.bias):
            nn.init.zeros_(tensor)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.down(x) * mask.unsqueeze(-1)
        return x + self.up(self.conv(h.transpose(1, 2)).transpose(1, 2))


def start_from_text(module: nn.Module, blocks: nn.ModuleList, positions: Tensor) -> bool:
    """Copy the first text blocks and text positions of CLIP into a module with `.blocks` and `.positions`
    (CLIP4Clip, 3.3). False, and nothing is done, where the widths differ or the text tower is shallower."""
    mine: Any = module
    if positions.shape[1] != mine.positions.shape[1] or len(blocks) < len(mine.blocks):
        return False
    with torch.no_grad():
        rows = min(len(positions), len(mine.positions))
        mine.positions[:rows] = positions[:rows]
    for i, source in zip(range(len(mine.blocks)), blocks, strict=False):
        text: Any = source
        block = Block(
            positions.shape[1], text.attn.num_heads
        )  # its number of heads and its activation come along
        block.mlp.gelu = copy.deepcopy(text.mlp.gelu)
        block.load_state_dict({k: v for k, v in source.state_dict().items() if not k.startswith("ls_")})
        mine.blocks[i] = block.to(positions.device)
    return True


def positions_for(table: Tensor, mask: Tensor) -> Tensor:
    """Rows of a position table (L, D) for masked sequences (B, T) -> (B, T, D).

    Up to L real frames take the first rows; more frames share the whole table by linear interpolation, each
    video by its own count.
    """
    length = mask.sum(dim=1, keepdim=True)
    rows = len(table)
    step = torch.where(length > rows, (rows - 1) / (length - 1).clamp(min=1), torch.ones_like(length))
    at = (torch.arange(mask.shape[1], device=mask.device) * step).clamp(max=rows - 1)  # (B, T)
    low = at.floor().long()
    share = (at - low).unsqueeze(-1).to(table.dtype)
    return table[low] * (1 - share) + table[(low + 1).clamp(max=rows - 1)] * share


def pool(x: Tensor, mask: Tensor, normalise_frames: bool) -> Tensor:
    """Mean over the real frames, (B, T, D) -> (B, D). With `normalise_frames` each frame has unit length first
    (CLIP4Clip meanP); the result is not normalised."""
    if normalise_frames:
        x = nn.functional.normalize(x, dim=-1)
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1)
