"""An image tower arranged for autocast on a GPU: the same vectors, without casting the weights again for every batch.

Autocast keeps the low-precision copy of a weight only where it has a gradient. Frozen ones are cast by every call,
which for a small tower is a good part of the memory that a batch moves. Here that is done once, for layers whose
weights autocast always casts, and convolutions get them in the layout (channels last) that their input has.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

# What layers of other classes do with their weights before multiplying may need all their digits.
_CAST = (nn.Linear.forward, nn.Conv2d.forward, nn.MultiheadAttention.forward)


def for_gpu(clip: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`clip` with the image tower's linear, convolution and attention weights in `dtype`, to be run under autocast to it.

    `clip` itself stays as it was. The result does not follow later changes of its weights.
    """
    tensors = [*clip.parameters(), *clip.buffers()]
    arranged = copy.deepcopy(clip, {id(tensor): tensor for tensor in tensors})  # of the same tensors
    visual: Any = arranged.visual
    for part in visual.modules():
        if type(part).forward in _CAST:
            for name, weight in list(part.named_parameters(recurse=False)):
                layout = torch.channels_last if weight.dim() == 4 else torch.preserve_format
                low = weight.detach().to(dtype=dtype, memory_format=layout)
                setattr(part, name, nn.Parameter(low, requires_grad=False))
    return arranged
