"""Encoders at hand: a library's own is loaded when first needed, and nothing is loaded twice."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import LibraryError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.models import Encoder
    from vsearch.records import EncoderInfo

_MOST = 2


class NotAtHandError(ModelError):
    """An encoder that takes long to load, where nobody waits for it."""


class Encoders:
    """The encoders used last, by identity. Threads take turns: with `lock` held, one loads or works.

    `patient` False: what loads slowly is not loaded for a sentence, only noted as `wanted`.
    """

    def __init__(self, device: str = "auto", *, patient: bool = True) -> None:
        self.lock = threading.RLock()
        self.wanted: EncoderInfo | None = None
        self._device = device
        self._patient = patient
        self._held: dict[str, Encoder] = {}  # the one used last at the end
        self._slow: set[str] = set()  # identities

    def __bool__(self) -> bool:
        """Whether any was needed so far."""
        return bool(self._held)

    def at_hand(self, live: EncoderInfo) -> Encoder | None:
        """One that is loaded, or loads quickly: without torch."""
        with self.lock:
            found = self._held.get(live.identity)
            if found is None and self._device in ("auto", "cpu") and live.identity not in self._slow:
                from vsearch.models import load_quick_encoder

                found = load_quick_encoder(live.spec)
            if found is None or found.identity != live.identity:
                self._slow.add(live.identity)
                return None
            return self._keep(found)

    def load(self, live: EncoderInfo) -> Encoder:
        """However long that takes. Raises ModelError when it cannot be had, LibraryError when its head is gone."""
        with self.lock:
            return self.at_hand(live) or self._keep(matching_encoder(live, self._device))

    def text(self, live: EncoderInfo) -> LazyEncoder:
        """What embeds sentences, and loads the encoder when there is one to embed."""
        return LazyEncoder(live, self)

    def embed_texts(self, live: EncoderInfo, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors. Raises NotAtHandError where nobody waits for the encoder."""
        with self.lock:
            encoder = self.at_hand(live)
            if encoder is None and not self._patient:
                self.wanted = live
                raise NotAtHandError("the encoder is not loaded yet")
            return (encoder or self.load(live)).embed_texts(texts)

    def clear(self) -> None:
        with self.lock:
            self._held.clear()

    def _keep(self, encoder: Encoder) -> Encoder:
        self._held.pop(encoder.identity, None)
        self._held[encoder.identity] = encoder
        for identity in list(self._held)[:-_MOST]:
            del self._held[identity]
        return encoder


class LazyEncoder:
    """A library's encoder for sentences. `made`: the sentences it embedded, and their vectors (D,)."""

    def __init__(self, live: EncoderInfo, encoders: Encoders) -> None:
        self.identity = live.identity
        self.made: dict[str, npt.NDArray[np.float32]] = {}
        self._live, self._encoders = live, encoders

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors. Raises ModelError when the encoder cannot be had."""
        vectors = self._encoders.embed_texts(self._live, texts)
        self.made.update(zip(texts, vectors, strict=True))
        return vectors


def matching_encoder(live: EncoderInfo, device: str = "auto") -> Encoder:
    """The library's encoder, loaded. Raises ModelError when it cannot be had, LibraryError when its head is gone."""
    from vsearch.models import load_encoder

    check_head(live)
    encoder = load_encoder(live.spec, device)
    if encoder.identity != live.identity:
        raise ModelError(
            f"this library was indexed with {live.identity}, but this installation has {encoder.identity}; "
            "index it again into a new library: vsearch index FOLDER --library NEW"
        )
    return encoder


def check_head(encoder: EncoderInfo) -> None:
    """Raises LibraryError when the library's trained head is no longer there. What is in it is checked on loading."""
    checkpoint = encoder.spec["head"].get("checkpoint")
    if checkpoint is None:
        return
    from vsearch.models.recipes import CARD, WEIGHTS

    if not all((Path(checkpoint) / name).is_file() for name in (CARD, WEIGHTS)):
        raise LibraryError(
            f"The trained head {encoder.head} is missing from the library: adopt its checkpoint again "
            "(vsearch adopt CHECKPOINT) or go back to the head before (vsearch adopt --rollback)."
        )
