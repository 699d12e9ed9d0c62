"""The neutral sentences: things, doings and places of all kinds, written for this purpose, one a line in `neutral.txt`.

Their first half says what of a library is near every sentence, their second what its best moments score (scores.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vsearch.models.encoder import TextEncoder

SHIPPED = "neutral.npz"  # in the built-in model's folder: its vectors, and the identity of what made them
_AT_ONCE = 100


@cache
def neutral_sentences() -> tuple[str, ...]:
    """All of them, in their order, which matters."""
    return tuple((Path(__file__).parent / "neutral.txt").read_text(encoding="utf-8").splitlines())


def neutral_vectors(encoder: TextEncoder) -> npt.NDArray[np.float16]:
    """(S, D) unit vectors of the sentences by an encoder. Those of the built-in model are at hand, others are made."""
    shipped = _shipped(encoder.identity)
    if shipped is not None:
        return shipped
    sentences = neutral_sentences()
    made = [encoder.embed_texts(sentences[i : i + _AT_ONCE]) for i in range(0, len(sentences), _AT_ONCE)]
    return np.concatenate(made).astype(np.float16)


def _shipped(identity: str) -> npt.NDArray[np.float16] | None:
    from vsearch.models.backbone import MINI_DIR

    file = MINI_DIR / SHIPPED
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as held:
        if str(held["identity"]) != identity or len(held["vectors"]) != len(neutral_sentences()):
            return None
        vectors: npt.NDArray[np.float16] = held["vectors"]
        return vectors
