"""A temporal head over stored frame vectors, arranged for the CPU: windows of equal length in, their moments out.

A temporal transformer is rewritten, everything else keeps its layers (linear ones packed, `cpu_tower.packed`):

- products, those of attention too, run in bfloat16 with float32 sums where the CPU multiplies that itself (AVX-512 BF16,
  AMX), twice as fast as float32; the residual stream, LayerNorm and softmax stay float32;
- biases and the MLP's activation are applied by the product that comes before them (QuickGELU is swish with 1.702
  moved into the weights on both sides);
- where frames are pooled by their mean, that is taken before the last linear layer instead of after it.

An arrangement stays only if its moments for a probe have the cosine `COSINE` to those of the trained layers, or more;
else the next one is taken. Training and evaluation use the layers as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsearch.models.cpu_tower import packed
from vsearch.models.temporal import TemporalTransformer, pool, positions_for

COSINE = {torch.bfloat16: 0.9999, torch.float32: 1 - 1e-8}  # least that a moment may have, by precision

# (B, T, D) float32, every frame a real one -> (B, D) float32, not of unit length
Moments = Callable[[Tensor], Tensor]


def moments_of(layers: nn.Module, normalise_frames: bool, dim: int, device: torch.device) -> Moments:
    """The head `layers` with its pooling (`temporal.pool`), on the CPU in the fastest arrangement that fits."""
    layers = layers.eval()
    if device.type != "cpu":
        return _as_trained(layers, normalise_frames)
    probe = torch.randn(16, 8, dim, generator=torch.Generator().manual_seed(0))
    if type(layers) is TemporalTransformer:
        for precision in (torch.bfloat16, torch.float32) if multiplies_bfloat16() else (torch.float32,):
            found = arranged(layers, normalise_frames, precision, probe)
            if found is not None:
                return found
    return _as_trained(packed(layers, probe, torch.ones(16, 8, dtype=torch.bool)), normalise_frames)


def multiplies_bfloat16() -> bool:
    """Whether products in bfloat16 are faster here than in float32; elsewhere oneDNN imitates them."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in names)


def arranged(
    layers: TemporalTransformer, normalise_frames: bool, precision: torch.dtype, probe: Tensor
) -> Moments | None:
    """A copy with products in `precision`, or None where this torch or these blocks do not allow it, or where moments
    of the `probe` (B, T, D) differ too much from those of the layers themselves."""
    with torch.inference_mode():
        try:
            found = _Arranged(layers, normalise_frames, precision)
            expected = _as_trained(layers, normalise_frames)(probe)
            cosine = F.cosine_similarity(found(probe).double(), expected.double(), dim=1)
        except (AttributeError, IndexError, RuntimeError, TypeError):
            return None
    return found if cosine.min() >= COSINE[precision] else None


def _as_trained(layers: nn.Module, normalise_frames: bool) -> Moments:
    def run(frames: Tensor) -> Tensor:
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        return pool(layers(frames, mask), mask, normalise_frames)

    return run


class _Arranged:
    """Rows are frames of all windows below each other, (B T, D), as products take them."""

    def __init__(self, layers: TemporalTransformer, normalise_frames: bool, precision: torch.dtype) -> None:
        self.positions, self.residual = layers.positions.detach(), layers.residual
        self.normalise_frames = normalise_frames
        self.blocks = [_Block(block, precision) for block in layers.blocks]

    def __call__(self, frames: Tensor) -> Tensor:
        batch, length, width = frames.shape
        whole = torch.ones(1, length, dtype=torch.bool)
        rows = (frames + positions_for(self.positions, whole)).view(-1, width)
        for block in self.blocks[:-1]:
            block.attend(rows, length)
            rows.add_(block.shrink(block.widen(rows)))
        last = self.blocks[-1]
        last.attend(rows, length)
        wide = last.widen(rows)
        if self.normalise_frames:
            rows.add_(last.shrink(wide))
            if self.residual:
                rows.add_(frames.reshape(-1, width))
            return F.normalize(rows, dim=-1).view(batch, length, width).mean(dim=1)
        mean = rows.view(batch, length, width).mean(dim=1)
        mean += last.shrink(wide.view(batch, length, -1).mean(dim=1, dtype=torch.float32).to(wide.dtype))
        return mean + frames.mean(dim=1) if self.residual else mean


class _Block:
    """A `blocks.Block` in steps."""

    def __init__(self, block: Any, precision: torch.dtype) -> None:
        attention, mlp = block.attn, block.mlp
        self.heads, self.precision = attention.num_heads, precision
        self.norms = block.ln_1, block.ln_2
        self.activation, inside = _fused(mlp.gelu)
        inside_softmax = torch.ones(3, attention.embed_dim)
        inside_softmax[0] = attention.head_dim**-0.5  # of queries
        inside_softmax = inside_softmax.view(-1, 1)
        self.inward = _Product(
            attention.in_proj_weight * inside_softmax,
            attention.in_proj_bias * inside_softmax[:, 0],
            precision,
        )
        self.outward = _Product(attention.out_proj.weight, attention.out_proj.bias, precision)
        self.wider = _Product(mlp.c_fc.weight * inside, mlp.c_fc.bias * inside, precision)
        self.narrower = _Product(mlp.c_proj.weight / inside, mlp.c_proj.bias, precision)

    def attend(self, rows: Tensor, length: int) -> None:
        """Adds attention among each `length` rows to them."""
        width = rows.shape[1]
        parts = self.inward(self.norms[0](rows).to(self.precision))
        parts = parts.view(-1, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).contiguous()
        q, k, v = parts.flatten(1, 2)  # (B heads, T, D / heads) each
        mixed = torch.bmm(_shares(torch.bmm(q, k.transpose(1, 2))), v)
        mixed = mixed.view(-1, self.heads, length, width // self.heads).transpose(1, 2)
        rows.add_(self.outward(mixed.reshape(-1, width)))

    def widen(self, rows: Tensor) -> Tensor:
        """(N, D) float32 -> (N, 4 D), behind the activation."""
        return self.wider(self.norms[1](rows).to(self.precision), self.activation)

    def shrink(self, wide: Tensor) -> Tensor:
        """(N, 4 D) -> (N, D)"""
        return self.narrower(wide)


def _shares(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of (N, T, T), as float32 inside. Along a few neighbouring values torch takes
    them one by one, so keys are brought to the front, where it takes many windows at once."""
    keys_first = scores.permute(2, 0, 1).float().contiguous()
    return keys_first.softmax(0).to(scores.dtype).permute(1, 2, 0)


def _fused(activation: nn.Module) -> tuple[str, float]:
    """oneDNN's name of an activation, and the factor that its input has and its output lacks there.

    Raises TypeError for others.
    """
    if type(activation) is nn.GELU and activation.approximate == "none":
        return "gelu", 1.0
    if type(activation).__name__ == "QuickGELU":  # ours and open_clip's
        return "swish", 1.702
    raise TypeError(f"no product ends with {activation}")


class _Product:
    """A linear layer: (N, K) -> (N, M), both in `precision`, its sums in float32."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: torch.dtype) -> None:
        self.bias = bias.detach().to(precision)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(precision), None)

    def __call__(self, rows: Tensor, then: str = "none") -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, then, [], "none")
        return out
