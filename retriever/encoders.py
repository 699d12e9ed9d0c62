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


class NotAtHandError(ModelError):
    """An encoder that takes long to load, where nobody waits for it."""


class Encoders:
    """The `most` encoders used last, by identity. Threads take turns: with `lock` held, one loads or works.

    `patient` False: what loads slowly is not loaded for a sentence, only noted as `wanted`.
    """

    def __init__(self, device: str = "auto", *, patient: bool = True, most: int = 1) -> None:
        self.lock = threading.RLock()
        self.wanted: EncoderInfo | None = None
        self._device = device
        self._patient = patient
        self._most = most
        self._held: dict[str, Encoder] = {}  # the one used last at the end
        self._slow: set[str] = set()  # identities

    def __bool__(self) -> bool:
        """Whether any was needed so far."""
        return bool(self._held)

    def at_hand(self, live: EncoderInfo) -> Encoder | None:
        """One that is loaded, or loads quickly: without torch, and for the CPU."""
        with self.lock:
            found = self._held.get(live.identity)
            if found is None and self._device in ("auto", "cpu") and live.identity not in self._slow:
                from vsearch.models import load_quick_encoder

                self._make_room()
                found = load_quick_encoder(live.spec)
            if found is None or found.identity != live.identity:
                self._slow.add(live.identity)
                return None
            return self._keep(found)

    def load(self, live: EncoderInfo) -> Encoder:
        """On the device that was asked for, however long that takes. Raises ModelError when it cannot be had, LibraryError
        when its head is gone."""
        from vsearch.models import resolve_devices

        with self.lock:
            found = self._held.get(live.identity)
            device = resolve_devices(self._device)[0]
            if found is not None and found.backbone.device != device:
                found = None
            if found is None and device == "cpu":
                found = self.at_hand(live)
            if found is None:
                self._make_room()
                found = matching_encoder(live, self._device)
            return self._keep(found)

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
        """Let go of all of them; does not wait for who works with one."""
        self._held, self._slow = {}, set()

    def _make_room(self) -> None:
        """For one more, before it is loaded: memory must not hold both."""
        while len(held := self._held) >= self._most:
            held.pop(next(iter(held)), None)

    def _keep(self, encoder: Encoder) -> Encoder:
        held = self._held
        held.pop(encoder.identity, None)
        held[encoder.identity] = encoder
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

    def of(self, live: EncoderInfo) -> LazyEncoder:
        """Another library's, or that of the library's other head, from the same encoders."""
        return self._encoders.text(live)


def matching_encoder(live: EncoderInfo, device: str = "auto") -> Encoder:
    """The library's encoder, loaded. Raises ModelError when it cannot be had, LibraryError when its head is gone."""
    from vsearch.models import load_encoder

    check_head(live)
    encoder = load_encoder(live.spec, device)
    if encoder.identity != live.identity:
        raise ModelError(
            f"this library was indexed with {live.identity}, but this installation has {encoder.identity}; "
            f"change the library to that: vsearch reindex --model {live.spec['model']}"
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
