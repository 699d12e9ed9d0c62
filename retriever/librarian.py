"""What the helper knows between questions: a few open indexes and encoders.

The catalogue is opened for each question and read anew, and an index is used again only while its generation answers
and its files are untouched, so an indexing run, another head, or another library in the same place shows at once.
Whatever is wrong or would take long is left to the query: then it answers, or complains, as it does without a helper.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import VsearchError
from vsearch.library import EncoderInfo, Reading, open_reader
from vsearch.library.index.standing import HeldIndex
from vsearch.retriever.answer import Answer
from vsearch.retriever.question import Question, answer, remember
from vsearch.retriever.searching import live_encoder, matching_encoder, tidied

if TYPE_CHECKING:
    from vsearch.library.index.view import IndexView
    from vsearch.models import TextEncoder

_VIEWS, _ENCODERS = 3, 2
_LET_GO_S = 120.0  # an index not asked for so long is closed: it may keep a disk busy, and memory
_NOTE_PATIENCE_MS = 20  # while another process writes: the answer must not wait, and the caller notes it then


@dataclass
class _Held:
    index: HeldIndex
    asked: float  # time.monotonic()


class Librarian:
    """Answers for any library of the user's, with sentences encoded on `device`."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._views: dict[Path, _Held] = {}
        self._encoders: dict[str, TextEncoder] = {}  # by identity, the one used last at the end
        self._not_quick: set[str] = set()
        self._wanted: EncoderInfo | None = None

    def prepare(self, path: Path, *, encoder: bool) -> bool:
        """Open a library before the first question; with its encoder, however long that takes to load, or else if that
        is quick. False when it cannot be used."""
        try:
            library = open_reader(path)
            if library is None:
                return False
            with library:
                live = live_encoder(library)
                self._view(library)
            return self._encoder(live) is not None or not encoder or self._load(live)
        except (VsearchError, OSError):
            return False

    def answer(self, question: Question, waits: Callable[[], bool]) -> tuple[Answer | None, bool]:
        """The answer, and whether it is noted. None: the query is to do the work itself. Nothing is noted for a caller
        who no longer `waits`."""
        try:
            library = open_reader(Path(question.library))
            if library is None:
                return None, False
            with library:
                live = live_encoder(library)
                encoder = self._encoder(live)
                if encoder is None and library.cached_text(live.id, tidied(question.text)) is None:
                    self._wanted = live
                    return None, False
                found = answer(
                    library,
                    question,
                    encoder=encoder,
                    device=self._device,
                    view=self._view,
                )
                if library.damaged:
                    return None, False  # the query says what, to whom it may concern
                noted = waits() and remember(library, found, patience_ms=_NOTE_PATIENCE_MS)
        except Exception:  # a fault of ours, too: the query's own way reports it
            return None, False
        return found, noted

    def load_wanted(self) -> None:
        """Load the encoder that a question lacked; meanwhile queries do their own work."""
        live, self._wanted = self._wanted, None
        if live is not None:
            self._load(live)

    def tidy(self) -> float:
        """Close what nobody asks for; gives the seconds until there may be more to close."""
        now = time.monotonic()
        self._views = {path: held for path, held in self._views.items() if now - held.asked < _LET_GO_S}
        return min((held.asked + _LET_GO_S - now for held in self._views.values()), default=_LET_GO_S)

    def _view(self, library: Reading) -> IndexView:
        held = self._views.pop(library.path, None) or _Held(HeldIndex(), 0.0)
        view = held.index.view(library)
        held.asked = time.monotonic()
        self._views[library.path] = held
        for path in list(self._views)[:-_VIEWS]:
            del self._views[path]
        return view

    def _encoder(self, live: EncoderInfo) -> TextEncoder | None:
        """The library's encoder if it is at hand, or quick to load."""
        from vsearch.models.encoder import load_quick_encoder

        found = self._encoders.get(live.identity)
        if found is None and self._device in ("auto", "cpu") and live.identity not in self._not_quick:
            found = load_quick_encoder(live.spec)
        if found is None or found.identity != live.identity:
            self._not_quick.add(live.identity)
            return None
        return self._keep(found)

    def _load(self, live: EncoderInfo) -> bool:
        try:
            self._keep(matching_encoder(live, None, self._device))
        except Exception:  # the query that works alone says what is wrong
            return False
        return True

    def _keep(self, encoder: TextEncoder) -> TextEncoder:
        self._encoders.pop(encoder.identity, None)
        self._encoders[encoder.identity] = encoder
        for identity in list(self._encoders)[:-_ENCODERS]:
            del self._encoders[identity]
        return encoder
