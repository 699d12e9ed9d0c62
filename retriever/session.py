"""One way to ask a library: the command line for one question, the helper and the page for many, a program through
`vsearch.Library`. The library, its live index and its encoders are each opened once, and renewed when others answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from vsearch.library.catalogue import Reading
from vsearch.records import LAST_HITS
from vsearch.retriever.encoders import Encoders

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.library import Library
    from vsearch.library.index import HeldIndex
    from vsearch.models import Encoder
    from vsearch.records import EncoderInfo, Video
    from vsearch.retriever.actions import Detection, Learned, Limits, Maker
    from vsearch.retriever.actions.classify import Guess
    from vsearch.retriever.answer import Answer
    from vsearch.retriever.question import Question
    from vsearch.retriever.searching import Only

Opened = TypeVar("Opened", bound=Reading)


class NewSentence(NamedTuple):
    """What the library does not remember yet: a sentence, and its vector (D,) by the encoder of that identity."""

    identity: str
    text: str
    vector: npt.NDArray[np.float32]

    def keep(self, library: Reading, patience_ms: int = Reading.NOTE_PATIENCE_MS) -> bool:
        """Have the library remember it, unless another encoder answers by now. False when it is to be tried again."""
        live = library.live_encoder()
        if live is None or live.identity != self.identity:
            return True
        return library.cache_text(live.id, self.text, self.vector, patience_ms)


class Session(Generic[Opened]):
    """Questions to the library that `library()` gives. For any number of threads where that is.

    Every question raises LibraryError while nothing is indexed or the index is damaged, ModelError when the library's
    model is needed and not at hand.
    """

    def __init__(
        self,
        library: Callable[[], Opened],
        *,
        device: str = "auto",
        index: HeldIndex | None = None,
        encoders: Encoders | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """`index`, `encoders`: where they outlive this session. `close`: lets go of the library."""
        from vsearch.library.index import HeldIndex

        self._library = library
        self._index = index or HeldIndex()
        self.encoders = encoders if encoders is not None else Encoders(device)
        self._close = close
        self.unkept: NewSentence | None = None  # what is left of `remember`

    @classmethod
    def of(cls, library: Opened, device: str = "auto") -> Session[Opened]:
        """With a library that is open and stays so."""
        return cls(lambda: library, device=device)

    @staticmethod
    def at(path: Path, device: str = "auto") -> Session[Library]:
        """With the library that lies at `path` when a question is asked; another one, when it is made again."""
        from vsearch.library.index import Standing

        place = Standing(path)
        return Session(place.library, device=device, index=place.index, close=place.close)

    @property
    def library(self) -> Opened:
        """The one that is there now. Raises LibraryError, which says what to run, when there is none."""
        return self._library()

    @property
    def live(self) -> EncoderInfo:
        """What the library answers with."""
        from vsearch.retriever.searching import live_encoder

        return live_encoder(self.library)

    def encoder(self) -> Encoder:
        """The library's, loaded; work with it under `encoders.lock`."""
        return self.encoders.load(self.live)

    def search(
        self,
        text: str,
        *,
        number: int = 10,
        threshold: float | None = None,
        only: Only | None = None,
        within: Video | None = None,
        least: str | None = None,
        keep: bool = True,
    ) -> Answer:
        """The moments that a sentence describes: at most `number` videos, or intervals `within` one. `only`: which videos
        may answer.
        `least`: 'weak', 'likely' or 'strong', leaves out what is less. `keep`: have the library remember the sentence's vector now; else `remember` does.

        Raises VsearchError for an empty sentence.
        """
        library = self.library
        live = library.live_encoder()
        reader = None if live is None else self.encoders.text(live)
        if within is None:
            from vsearch.retriever.searching import search

            found = search(
                library, text, number=number, threshold=threshold, encoder=reader, only=only,
                view=self._index.view, cache=keep, least=least,
            )  # fmt: skip
        else:
            from vsearch.retriever.actions import search_in

            found = search_in(
                library,
                within,
                text,
                number=number,
                threshold=threshold,
                encoder=reader,
                cache=keep,
                least=least,
            )
        if not keep and not found.cut and reader is not None and found.query in reader.made:
            self.unkept = NewSentence(reader.identity, found.query, reader.made[found.query])
        return found

    def similar(self, video: Video, time_ms: int, *, number: int = 10, only: Only | None = None) -> Answer:
        """Moments that look like what `video` shows at `time_ms`."""
        from vsearch.retriever.searching import search_similar

        return search_similar(self.library, video, time_ms, number=number, only=only, view=self._index.view)

    def look(
        self, look: npt.NDArray[np.float32], label: str, *, number: int = 10, only: Only | None = None
    ) -> Answer:
        """Moments that look like `look`, a unit vector (D,) in the space of moments."""
        from vsearch.retriever.searching import search_look

        return search_look(self.library, look, label, number=number, only=only, view=self._index.view)

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """A sentence in the space of moments, (D,) unit length."""
        from vsearch.retriever.searching import live_encoder, sentence_vector

        library = self.library
        live = live_encoder(library)
        return sentence_vector(library, live, text, self.encoders.text(live)).vector

    def localize(
        self,
        videos: Sequence[Video],
        names: Sequence[str],
        *,
        limits: Limits | None = None,
        maker: Maker | None = None,
        learned: Learned | None = None,
    ) -> dict[Video, list[Detection]]:
        """When the named actions happen in each video, best first."""
        from vsearch.retriever.actions import Limits, localize_videos
        from vsearch.retriever.searching import live_encoder

        library = self.library
        return localize_videos(
            library, videos, names, limits=limits or Limits(), maker=maker, learned=learned,
            encoder=self.encoders.text(live_encoder(library)),
        )  # fmt: skip

    def classify(
        self,
        videos: Sequence[Video],
        names: Sequence[str],
        *,
        learned: Learned | None = None,
        number: int = 5,
    ) -> dict[Video, list[Guess]]:
        """The `number` likeliest of the names for each clip."""
        from vsearch.retriever.actions.classify import classify
        from vsearch.retriever.searching import live_encoder

        library = self.library
        encoder = self.encoders.text(live_encoder(library))
        return classify(library, videos, names, learned=learned, number=number, encoder=encoder)

    def answer(self, question: Question) -> Answer:
        """To a question as a record; what it leaves to be noted is for `remember`."""
        within = None
        if question.within is not None:
            path = Path(question.within_path) if question.within_path else None
            within = self.library.find_video(question.within, path)
        return self.search(
            question.text,
            number=question.number,
            threshold=question.threshold,
            within=within,
            least=question.least,
            keep=False,
        )

    def remember(self, given: Answer, patience_ms: int = Reading.NOTE_PATIENCE_MS) -> bool:
        """Note the hits for the commands that follow, and the sentence if it was new. Waits `patience_ms` at most for
        another process that writes, and never fails. Whether the hits are noted; a sentence that is not stays `unkept`."""
        library, until = self.library, time.monotonic() + patience_ms / 1000
        value = json.dumps([[hit.path, hit.start_ms, hit.end_ms] for hit in given.hits])
        noted = library.remember(LAST_HITS, value, patience_ms)
        new = self.unkept if self.unkept is not None and self.unkept.text == given.query else None
        if new is None or new.keep(library, max(0, round(1000 * (until - time.monotonic())))):
            self.unkept = None
        return noted

    def close(self) -> None:
        """Let go of everything; a further question opens it again, where that can be."""
        self.encoders.clear()
        self._index.let_go()
        self._close()
