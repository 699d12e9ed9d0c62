"""Cached query vectors: float32 little-endian, then a digest of encoder, sentence and vector.

A wrong vector would answer its sentence wrongly for ever, and nothing else on disk can tell. So one whose digest does
not fit counts as not cached: the next time the sentence is asked, it is embedded anew.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DIGEST_BYTES = 8


def packed(encoder_id: int, text: str, vector: npt.NDArray[np.float32]) -> bytes:
    """What is stored for a sentence's vector (D,)."""
    values = vector.astype("<f4").tobytes()
    return values + _digest(encoder_id, text, values)


def unpacked(encoder_id: int, text: str, stored: object) -> npt.NDArray[np.float32] | None:
    """The vector (D,); None when these are not the bytes that were stored for this sentence."""
    import numpy as np

    if not isinstance(stored, bytes):
        return None
    values, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    if not values or len(values) % 4 or digest != _digest(encoder_id, text, values):
        return None
    return np.frombuffer(values, "<f4").astype(np.float32)


def _digest(encoder_id: int, text: str, values: bytes) -> bytes:
    about = f"{encoder_id}\0{text}\0".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(about + values, digest_size=_DIGEST_BYTES).digest()
