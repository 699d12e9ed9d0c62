"""An image tower arranged for the CPU: the same weights and the same vectors to float32 rounding, twice as fast.

Each rewrite keeps what a layer computes and changes how:

- batch normalisation goes into the weights of the convolution before it (Jacob et al. 2018, section 3.2);
- TensorFlow's one-sided padding before a convolution of stride 2 goes into its kernel, as a row and a column of
  zeros, which saves copying the picture into a larger one;
- linear layers and the projections of attention go to oneDNN with weights packed once. torch gives float32
  products to MKL, which leaves half of an AMD processor unused (97 against 217 GFLOPS a core on an EPYC);
- so do convolutions, with the ReLU behind them. torch gives those over single pixels to MKL, too, where a thread has
  fewer than 16 pictures.

A rewrite stays only if the tower still gives the same vectors for a probe (`TOLERANCE`), so a tower that is built
in a way not foreseen here is simply left as it is. Weights are shared with the original, except the packed ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOLERANCE = 1e-4  # largest difference of a value, as a part of the largest value of the vector


def for_cpu(clip: nn.Module, size: int) -> nn.Module:
    """`clip` with its image tower rewritten; `encode_image` of the result takes (N, 3, size, size) on the CPU.

    `clip` itself stays as it was. The result does not follow later changes of its weights.
    """
    with torch.inference_mode():
        probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        expected = clip.encode_image(probe)  # type: ignore[operator]
        for rewrite in (_fold_norms, _pad_in_kernels, _pack_products, _pack_convolutions):
            candidate = twin(clip)
            try:
                if rewrite(candidate.visual) and _same(candidate.encode_image(probe), expected):
                    clip = candidate
            except (AttributeError, RuntimeError, TypeError):  # what this torch or this tower does not offer
                continue
    return clip


def packed(module: nn.Module, *probe: Any) -> nn.Module:
    """A copy of `module` on packed weights, or `module` itself where the copy answers `probe` otherwise.

    For blocks over stored frame vectors; attention is packed where no sequence of a batch is padded.
    """
    with torch.inference_mode():
        try:
            twin = copy.deepcopy(module, {id(tensor): tensor for tensor in module.parameters()})
            if _pack_products(twin) and _same(twin(*probe), module(*probe)):
                return twin
        except (AttributeError, RuntimeError, TypeError):  # as in `for_cpu`
            pass
    return module


def weights_version(module: nn.Module) -> int:
    """A number that changes whenever the weights do, in place."""
    return sum(tensor._version for tensor in chain(module.parameters(), module.buffers()))


def twin(clip: nn.Module) -> Any:
    """A copy whose image tower can be rebuilt, of the same tensors."""
    visual: Any = clip.visual
    shared = {id(tensor): tensor for tensor in chain(visual.parameters(), visual.buffers(), _packed(visual))}
    twin = copy.copy(clip)
    twin._modules = {**clip._modules, "visual": copy.deepcopy(visual, shared)}
    return twin


def _packed(visual: nn.Module) -> Iterator[Tensor]:
    """Packed weights, which cannot be copied."""
    return (part.packed for part in visual.modules() if isinstance(part, _Packed | _PackedConvolution))


def _same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _fold_norms(visual: nn.Module) -> int:
    """Every convolution that stands right before a BatchNorm takes it in; the number of them."""
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    count = 0
    for parent in list(visual.modules()):
        for (_, conv), (name, norm) in pairwise(parent.named_children()):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if norm.running_mean is None or norm.running_var is None:
                continue
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            # timm's kind of BatchNorm ends with an activation
            rest: list[Any] = [getattr(norm, "drop", None), getattr(norm, "act", None)]
            setattr(
                parent,
                name,
                nn.Sequential(*(part for part in rest if part and type(part) is not nn.Identity)),
            )
            count += 1
    return count


def _pad_in_kernels(visual: nn.Module) -> int:
    """timm's Conv2dSame of stride 2, for inputs of even size: they need k - 2 rows, the odd one at the end."""
    return _replace(
        visual, lambda part: type(part).__name__ == "Conv2dSame" and part.stride == (2, 2), _symmetric
    )


def _symmetric(conv: Any) -> nn.Conv2d:
    size = conv.kernel_size[0]
    before = (size - 2) // 2
    after = size - 2 - before
    extra = after - before  # of zeros at the beginning, so that padding by `after` on both sides is right
    even = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        size + extra,
        2,
        after,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    even.weight = nn.Parameter(F.pad(conv.weight, (extra, 0, extra, 0)), requires_grad=False)
    even.bias = conv.bias
    return even.eval()


def _pack_products(visual: nn.Module) -> int:
    count = _replace(visual, _packable, _PackedAttention)
    return count + _replace(
        visual, lambda part: type(part) is nn.Linear, lambda part: _Packed(part.weight, part.bias)
    )


def _packable(part: Any) -> bool:
    return (
        type(part) is nn.MultiheadAttention
        and part._qkv_same_embed_dim
        and part.batch_first
        and part.in_proj_bias is not None
        and part.bias_k is None
        and not part.add_zero_attn
    )


class _Packed(nn.Module):
    """x (..., K) -> (..., N), as nn.Linear."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias  # some towers ask their layers for dtype or device
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


class _PackedAttention(nn.Module):
    """Self-attention (B, T, D) -> (B, T, D), None, as nn.MultiheadAttention without weights or mask."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.original = [
            attention
        ]  # for calls of another kind; in a list, so that it is no part of this module
        self.heads = attention.num_heads
        self.inward = _Packed(attention.in_proj_weight, attention.in_proj_bias)
        self.outward = _Packed(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> tuple[Tensor, Tensor | None]:
        known = how.keys() <= {"need_weights", "attn_mask", "key_padding_mask"}
        plain = how.get("need_weights") is False and known and how.get("attn_mask") is None
        padding = how.get("key_padding_mask")
        if query is not key or key is not value or not plain or (padding is not None and padding.any()):
            found: tuple[Tensor, Tensor | None] = self.original[0](query, key, value, **how)
            return found
        batch, length, width = query.shape
        parts = self.inward(query).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        return self.outward(mixed), None


def _pack_convolutions(visual: nn.Module) -> int:
    """Each with the ReLU or ReLU6 that `_fold_norms` left alone behind it."""
    behind: dict[nn.Module, nn.Sequential] = {}
    for parent in visual.modules():
        for (_, conv), (_, rest) in pairwise(parent.named_children()):
            if isinstance(rest, nn.Sequential) and [type(part) for part in rest] in ([nn.ReLU], [nn.ReLU6]):
                behind[conv] = rest

    def pack(conv: Any) -> nn.Module:
        rest = behind.get(conv, nn.Sequential())
        most = [float("inf") if type(part) is nn.ReLU else 6.0 for part in rest]
        for index in reversed(range(len(rest))):
            del rest[index]
        return _PackedConvolution(conv, *most)

    return _replace(
        visual,
        lambda part: (
            type(part) is nn.Conv2d and part.padding_mode == "zeros" and not isinstance(part.padding, str)
        ),
        pack,
    )


class _PackedConvolution(nn.Module):
    """x (N, C, H, W), as nn.Conv2d with zeros around; with `most`, clamped to 0 ... `most`."""

    def __init__(self, conv: nn.Conv2d, most: float | None = None) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._how = [list(pair) for pair in (conv.padding, conv.stride, conv.dilation)]
        self._groups = conv.groups
        self._after = ("none", []) if most is None else ("hardtanh", [0.0, most])
        with torch.inference_mode(False):  # packing refuses what was computed in inference mode
            weight = conv.weight.detach().clone()
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how, conv.groups, None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, *self._how, self._groups, *self._after, ""
        )
        return out


def _replace(root: nn.Module, fits: Callable[[Any], bool], make: Callable[[Any], nn.Module]) -> int:
    """Put `make(part)` in the place of every part that fits; the number of them."""
    places = [(parent, name, part) for parent, name, part in _parts(root) if fits(part)]
    for parent, name, part in places:
        setattr(parent, name, make(part))
    return len(places)


def _parts(root: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in root.modules():
        for name, part in parent.named_children():
            yield parent, name, part
