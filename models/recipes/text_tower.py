"""Reading text with prompts and adapters in it: an open_clip text tower from token embeddings on.

M2-CLIP's text side lives here as well: adapters in the last blocks, and the block that guesses masked words.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vsearch.errors import ModelError

MASK_WORD = "mask"  # an ordinary word of one token, as CLIP's vocabulary has no mask token


def text_parts(clip: Any) -> Any:
    """Where an open_clip model keeps its text tower. Raises ModelError for towers that do not read left to right
    up to an EOT token (SigLIP, CoCa, Hugging-Face text models)."""
    if not reads_left_to_right(clip):
        raise ModelError(
            "prompts and text adapters need CLIP's causal text tower; this model has another kind"
        )
    return getattr(clip, "text", clip)


def reads_left_to_right(clip: Any) -> bool:
    """Whether the text tower is CLIP's: causal, and its vector the one at EOT."""
    parts = getattr(clip, "text", clip)
    pool_type = getattr(parts, "text_pool_type", getattr(parts, "pool_type", None))
    causal = getattr(parts, "attn_mask", None) is not None and getattr(parts, "cls_emb", None) is None
    return bool(pool_type == "argmax" and causal)


def read(
    clip: Any, embeddings: Tensor, eot: Tensor, adapters: TextAdapters | None = None
) -> tuple[Tensor, Tensor]:
    """Token embeddings (B, L, W) without positions, row of EOT (B,) -> sentence (B, D), last tokens (B, L, W)."""
    parts = text_parts(clip)
    x = embeddings + parts.positional_embedding[: embeddings.shape[1]].to(embeddings.dtype)
    mask = parts.attn_mask[: x.shape[1], : x.shape[1]]
    blocks = parts.transformer.resblocks
    for layer, block in enumerate(blocks):
        adapter = adapters.at(layer - len(blocks)) if adapters is not None else None
        x = adapted_block(block, adapter, x, mask)
    row = parts.ln_final(x[torch.arange(len(x), device=x.device), eot])
    projection = parts.text_projection
    if projection is None:
        return row, x
    return (projection(row) if isinstance(projection, nn.Linear) else row @ projection), x


def read_short(clip: Any, embeddings: Tensor, eot: Tensor, together: int = 16) -> Tensor:
    """The sentences of `read`, without the tokens behind EOT: they cannot reach it through the causal mask.

    Sentences of like length are read together. On a CPU that is two to five times faster.
    """
    order = eot.argsort(stable=True)
    found = [
        read(clip, embeddings[some, : int(eot[some].max()) + 1], eot[some])[0]
        for some in order.split(together)
    ]
    return torch.cat(found)[order.argsort()]


def adapted_block(block: Any, adapter: nn.Module | None, x: Tensor, mask: Tensor | None) -> Tensor:
    """A text block with an adapter before its MLP."""
    x = x + block.ls_1(block.attention(block.ln_1(x), attn_mask=mask))
    if adapter is not None:
        x = adapter(x)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


class TextAdapter(nn.Module):
    """x + Up(GELU(Down x)) (M2-CLIP). Biases zero, weights not, so it is not the identity at first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(nn.functional.gelu(self.down(x)))


class TextAdapters(nn.Module):
    """Adapters of the last `count` text blocks."""

    def __init__(self, width: int, hidden: int, count: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(TextAdapter(width, hidden) for _ in range(count))

    def at(self, layer_from_end: int) -> nn.Module | None:
        """-1 is the last block."""
        return self.adapters[layer_from_end] if -layer_from_end <= len(self.adapters) else None


class MaskedWordHead(nn.Module):
    """CMLM (M2-CLIP): text tokens ask the frames for the words that were masked.

    A frozen copy of the last text block, used as cross-attention without causal mask; its own text adapter;
    then Linear, GELU, LayerNorm and a decoder over the words of the labels. Frames must be as wide as text.
    """

    def __init__(self, clip: Any, words: int, hidden: int) -> None:
        super().__init__()
        parts = text_parts(clip)
        width = parts.ln_final.weight.shape[0]
        # Frozen copies, not in `state_dict`: they come with the backbone.
        self._frozen = (
            copy.deepcopy(parts.transformer.resblocks[-1]).requires_grad_(False),
            copy.deepcopy(parts.ln_final).requires_grad_(False),
        )
        self.adapter = TextAdapter(width, hidden)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.decoder = nn.Linear(width, words)

    def forward(self, tokens: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """tokens (B, L, W) before ln_final, frames (B, T, W), mask (B, T) of real ones -> (B, L, words)."""
        block, ln_final = (part.to(tokens.device) for part in self._frozen)
        keys = block.ln_1(frames)
        asked = block.ln_1(tokens)
        heard = block.attn(asked, keys, keys, key_padding_mask=~mask, need_weights=False)[0]
        x = tokens + block.ls_1(heard)
        x = self.adapter(x)
        x = ln_final(x + block.ls_2(block.mlp(block.ln_2(x))))
        return self.decoder(self.transform(x))


def label_words(labels: Sequence[str], template: str = "a video of {}") -> dict[str, int]:
    """The vocabulary of masked words: 0 is any other word."""
    words = sorted({w for label in labels for w in _words(template.replace("{}", label))})
    return {word: i for i, word in enumerate(words, start=1)}


def mask_words(
    sentence: str, vocabulary: Mapping[str, int], tokenizer: Any, rng: random.Random, rate: float = 0.2
) -> tuple[str, list[int]]:
    """Replace a share of whole words, at least one, by the word `mask`.

    Returns the masked sentence and a target per token position of the context: the hidden word's number at the
    place of its mask, -100 elsewhere.
    """
    words = _words(sentence)
    hidden = {i for i in range(len(words)) if rng.random() < rate} or {rng.randrange(max(1, len(words)))}
    targets, masked, position = [-100] * int(tokenizer.context_length), [], 1
    for i, word in enumerate(words):
        shown = MASK_WORD if i in hidden else word
        if i in hidden and position < len(targets) - 1:
            targets[position] = vocabulary.get(word, 0)
        masked.append(shown)
        position += len(tokenizer.encode(shown))
    return " ".join(masked), targets


def _words(sentence: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", sentence.lower()) or ["video"]
