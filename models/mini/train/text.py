"""The text tower run on short padded batches, and its token table's warm start.

`encode` equals `CLIP.encode_text` on sentences cut to the batch's longest: attention is causal, so what
stands behind the end mark cannot reach it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def encode(clip: torch.nn.Module, ids: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """ids (B, L) -> (B, D). `rows`: token vectors (B, L, W) to use in place of the table's."""
    length = ids.shape[1]
    x = (clip.token_embedding(ids) if rows is None else rows) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x[torch.arange(len(ids)), ids.argmax(-1)])
    return x @ clip.text_projection


def text_parameters(clip: torch.nn.Module) -> list[torch.nn.Parameter]:
    """All of the text tower but the token table."""
    return [
        clip.positional_embedding,
        clip.text_projection,
        *clip.transformer.parameters(),
        *clip.ln_final.parameters(),
    ]


def warm_table(
    tokenizer: object, pieces: Callable[[list[str]], list[list[int]]], vectors: np.ndarray, width: int
) -> torch.Tensor:
    """(49408, width) token table: a BPE token's row is the mean of the teacher's vectors of its word pieces,
    projected on their principal axes, so words that no caption holds still mean something."""
    decoder, unbyte = tokenizer.decoder, tokenizer.byte_decoder  # type: ignore[attr-defined]
    strings = []
    for i in range(len(decoder)):
        token = decoder[i].replace("</w>", "")
        special = decoder[i].startswith("<") and decoder[i].endswith("_of_text>")
        strings.append("" if special else bytearray(unbyte[c] for c in token).decode("utf8", "replace"))
    table = np.zeros((len(strings), vectors.shape[1]), np.float32)
    for row, ids in zip(table, pieces(strings), strict=True):
        if ids:
            row[:] = vectors[ids].mean(0)
    table -= table.mean(0)
    _, axes = np.linalg.eigh(table.T @ table)
    table = table @ axes[:, ::-1][:, :width]
    return torch.from_numpy(np.ascontiguousarray(table / table.std() * 0.05))
