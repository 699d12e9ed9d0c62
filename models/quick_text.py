"""The text side of a backbone alone, in NumPy: a new sentence becomes a vector without importing torch.

A CLIP text transformer (Radford et al. 2021, section 2.4) reads left to right, so only the tokens up to the end of
text matter: a query is a dozen rows through a few small matrices. That takes milliseconds, while importing torch and
open_clip takes seconds. The identity is the one that `Backbone` has; it is worked out from the same bytes, so a file
that reads differently here than there cannot pass for the same model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.models.backbone import MINI_DIR, Preprocess, identity_of, preprocess_of
from vsearch.models.bpe import Tokenizer
from vsearch.models.compact import load_compact_arrays
from vsearch.models.encoder import ZeroShotHead

Array = npt.NDArray[np.float32]

# What `open_clip_config.json` may leave out (open_clip.transform.PreprocessCfg)
_PREPROCESS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_TEXT_KEYS = {
    "context_length",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
}  # with these alone it is CLIP's


@dataclass(frozen=True)
class QuickText:
    """The text side of a backbone: what a head needs of it to embed sentences."""

    name: str
    identity: str
    dim: int
    heads: int
    quick_gelu: bool
    weights: Mapping[str, Array]
    tokenizer: Tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """N sentences -> (N, D) float32, not normalised. Sentences over the context length are cut."""
        return np.stack([self._encode(self.tokenizer(text)) for text in texts])

    def _encode(self, tokens: list[int]) -> Array:
        """L tokens up to the end of text -> (D,)"""
        w = self.weights
        end = int(
            np.argmax(tokens)
        )  # as open_clip: the first of the highest number, should a sentence spell it out
        tokens = tokens[: end + 1]
        x = w["token_embedding.weight"][tokens] + w["positional_embedding"][: len(tokens)]  # (L, W)
        causal = np.triu(np.full((len(tokens), len(tokens)), -np.inf, np.float32), 1)
        for layer in range(_layers(w)):
            block = f"transformer.resblocks.{layer}."
            x = x + self._attention(block + "attn.", _norm(w, block + "ln_1", x), causal)
            hidden = _linear(w, block + "mlp.c_fc", _norm(w, block + "ln_2", x))
            x = x + _linear(
                w, block + "mlp.c_proj", _quick_gelu(hidden) if self.quick_gelu else _gelu(hidden)
            )
        return _norm(w, "ln_final", x[-1]) @ w["text_projection"]

    def _attention(self, name: str, x: Array, mask: Array) -> Array:
        """(L, W) -> (L, W)"""
        rows, width = x.shape
        qkv = x @ self.weights[name + "in_proj_weight"].T + self.weights[name + "in_proj_bias"]  # (L, 3 W)
        q, k, v = qkv.reshape(rows, 3, self.heads, width // self.heads).transpose(
            1, 2, 0, 3
        )  # each (H, L, W / H)
        scores = (q / np.float32(math.sqrt(width // self.heads))) @ k.transpose(0, 2, 1) + mask  # (H, L, L)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return _linear(self.weights, name + "out_proj", (shares @ v).transpose(1, 0, 2).reshape(rows, width))


@dataclass(frozen=True)
class QuickTextEncoder:
    """Such a text side under a plain head: as `Encoder`, for sentences only."""

    text: QuickText
    head: ZeroShotHead

    @property
    def identity(self) -> str:
        return f"{self.text.identity}+{self.head.identity}"

    def embed_texts(self, texts: Sequence[str]) -> Array:
        """N sentences -> (N, D) float32 unit vectors."""
        return self.head.embed_texts(texts, self.text)


def load_quick_encoder(spec: Mapping[str, Any]) -> QuickTextEncoder | None:
    """The encoder that a library's spec names, for sentences only; None when it takes `load_encoder` to have it.
    The caller compares identities."""
    head = spec["head"]
    if head["recipe"] != "zero-shot":
        return None
    text = load_quick_text(spec["model"])
    return (
        QuickTextEncoder(text, ZeroShotHead(head["window_s"], head["overlap"], tuple(head["templates"])))
        if text
        else None
    )


def load_quick_text(name: str) -> QuickText | None:
    """The text side of `mini`, or of a folder with `open_clip_config.json` and safetensors weights; None for models
    that only open_clip can load, for text towers of another kind, and for files that open_clip should explain."""
    if name != "mini" and not Path(name).is_dir():
        return None
    folder = MINI_DIR if name == "mini" else Path(name)
    config_file = folder / ("config.json" if name == "mini" else "open_clip_config.json")
    weights_file = folder / ("weights.safetensors" if name == "mini" else "open_clip_model.safetensors")
    if not (config_file.is_file() and weights_file.is_file()):
        return None
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        model, pre = config["model_cfg"], _preprocess(config)
        text = model["text_cfg"]
    except (KeyError, ValueError, ModelError):
        return None  # open_clip says better what is wrong with it
    if set(text) - _TEXT_KEYS or set(model) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}:
        return None
    try:
        state = load_compact_arrays(weights_file)
    except (ModelError, KeyError, TypeError):  # damaged, or numbers that NumPy does not know (bfloat16)
        return None
    weights = {
        key: value
        for key, value in state.items()
        if key.startswith(
            ("token_embedding", "positional_embedding", "transformer.", "ln_final", "text_projection")
        )
    }
    if set(weights) != _expected(_layers(weights)) or _layers(weights) != text.get("layers", 12):
        return None
    return QuickText(
        name, identity_of(name, state, pre), int(model["embed_dim"]), int(text.get("heads", 8)),
        bool(model.get("quick_gelu", False)), weights, Tokenizer(int(text.get("context_length", 77))),
    )  # fmt: skip


def _preprocess(config: dict[str, Any]) -> Preprocess:
    given = {key: value for key, value in config.get("preprocess_cfg", {}).items() if value is not None}
    return preprocess_of({"size": config["model_cfg"]["vision_cfg"]["image_size"], **_PREPROCESS, **given})


def _expected(layers: int) -> set[str]:
    """The tensors of a CLIP text transformer."""
    inner = ["attn.in_proj_weight", "attn.in_proj_bias"]
    inner += [f"{part}.{kind}" for part in ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")]  # fmt: skip
    blocks = {f"transformer.resblocks.{layer}.{part}" for layer in range(layers) for part in inner}
    outer = {
        "token_embedding.weight",
        "positional_embedding",
        "ln_final.weight",
        "ln_final.bias",
        "text_projection",
    }
    return blocks | outer


def _layers(weights: Mapping[str, Array]) -> int:
    return sum(key.endswith(".attn.in_proj_weight") for key in weights)


def _linear(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def _norm(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    return centred / deviation * weights[name + ".weight"] + weights[name + ".bias"]


def _gelu(x: Array) -> Array:
    """x * Phi(x), exact as torch's; NumPy has no erf, but a query has few numbers."""
    erf = np.frompyfunc(math.erf, 1, 1)(x * np.float32(math.sqrt(0.5))).astype(np.float32)
    return x * (np.float32(0.5) * (1 + erf))


def _quick_gelu(x: Array) -> Array:
    return x / (1 + np.exp(np.float32(-1.702) * x))
