"""The library and the model that a running server keeps open; nothing in it belongs to a visitor.

A question is a sentence, a place in a video, or an uploaded look, known by a token that only its sender has.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException

from vsearch.errors import VsearchError
from vsearch.library import Library
from vsearch.library.index.standing import Standing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.library import EncoderInfo, Video
    from vsearch.library.catalogue.schema import Catalogue
    from vsearch.models import Encoder
    from vsearch.records import FrameSet
    from vsearch.retriever import Answer
    from vsearch.webui.filters import Filters

MAX_LOOKS = 500  # vectors of uploads, about a kilobyte each; the oldest go first


@dataclass(frozen=True)
class PageQuestion:
    """One of: a sentence; the picture of video `video` at `time_ms`; the token of an upload."""

    text: str | None = None
    video: int | None = None
    time_ms: int = 0
    look: str | None = None


class Engine:
    """Opens the library when it is there, loads the model at the first sentence that is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = threading.Lock()  # one at a time: the towers are not made for threads
        self._standing = Standing(path, _Served)
        self._encoder: Encoder | None = None
        self._looks: OrderedDict[str, tuple[str, npt.NDArray[np.float32]]] = OrderedDict()
        self._mutex = threading.Lock()

    def library(self) -> Library:
        """The library that lies at the path now. Raises LibraryError, which says what to run, while there is none."""
        return self._standing.library()

    def video(self, id: int, content: str | None = None) -> Video:
        """Raises HTTPException 404; also when it no longer has the `content` (a fingerprint) that is asked for."""
        found = self.library().videos_of([id]).get(id)
        if found is None:
            raise HTTPException(404, "there is no such video in this library")
        if content is not None and content != found.fingerprint:
            raise HTTPException(404, "this video is another one now; search again")
        return found

    def search(self, question: PageQuestion, number: int, filters: Filters) -> Answer:
        from vsearch.retriever import search, search_look, search_similar

        library, only = self.library(), filters.predicate()
        if question.text is not None:
            with self._model_for(question.text) as encoder:
                return search(
                    library,
                    question.text,
                    number=number,
                    only=only,
                    encoder=encoder,
                    view=self._standing.view,
                )
        if question.video is not None:
            video = self.video(question.video)
            return search_similar(
                library, video, question.time_ms, number=number, only=only, view=self._standing.view
            )
        look = self._look(question.look or "")
        return search_look(library, look, "an upload", number=number, only=only, view=self._standing.view)

    def vector(self, question: PageQuestion) -> npt.NDArray[np.float32]:
        """The question in the space of moments, (D,) unit length."""
        from vsearch.retriever import look_of

        if question.text is not None:
            return self.embed(question.text)
        if question.video is not None:
            return look_of(self.library(), self.video(question.video), question.time_ms)
        return self._look(question.look or "")

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """A sentence's vector."""
        from vsearch.retriever import live_encoder, sentence_vector

        library = self.library()
        with self._model_for(text) as encoder:
            return sentence_vector(library, live_encoder(library), text, encoder).vector

    @contextlib.contextmanager
    def _model_for(self, text: str) -> Iterator[Encoder | None]:
        """The model, nobody else's meanwhile, for a sentence that the library does not remember; else None."""
        from vsearch.retriever.searching import live_encoder, tidied

        library, tidy = self.library(), tidied(text)
        live = live_encoder(library)
        if not tidy or library.cached_text(live.id, tidy) is not None:
            yield None
            return
        with self.model:
            yield self._loaded(live)

    def localize(self, video: Video, names: list[str], threshold: float) -> list[Any]:
        from vsearch.retriever import live_encoder
        from vsearch.retriever.actions.localize import Limits
        from vsearch.retriever.actions.videos import embed_actions, localize_videos, names_are_known

        library = self.library()
        live = live_encoder(library)
        if not names_are_known(library, names):
            with self.model:
                embed_actions(library, names, loaded=self._loaded(live))
        known = names_are_known(library, names)  # False where the library cannot be written
        limits = Limits(20, 100, threshold)
        with contextlib.nullcontext() if known else self.model:
            encoder = None if known else self._loaded(live)
            return list(localize_videos(library, [video], names, limits=limits, encoder=encoder)[video])

    def keep_look(self, file: Path) -> str:
        """Remember what an uploaded picture or short clip looks like; gives the token to ask with."""
        from vsearch.retriever import live_encoder
        from vsearch.webui.uploads import frames_of, look_of

        live = live_encoder(self.library())
        with self.model:
            encoder = self._loaded(live)
        frames, times_ms = frames_of(file, encoder.backbone.preprocess)  # others may ask meanwhile
        with self.model:
            vector = look_of(encoder, frames, times_ms)
        token = secrets.token_urlsafe(18)
        with self._mutex:
            self._looks[token] = (live.identity, vector)
            while len(self._looks) > MAX_LOOKS:
                self._looks.popitem(last=False)
        return token

    def _look(self, token: str) -> npt.NDArray[np.float32]:
        from vsearch.retriever import live_encoder

        with self._mutex:
            identity, vector = self._looks.get(token, ("", None))
        if vector is None:
            raise VsearchError("this upload is no longer kept; choose the picture again")
        if identity != live_encoder(self.library()).identity:
            raise VsearchError(
                "the library was given another head since this upload; choose the picture again"
            )
        return vector

    def _loaded(self, live: EncoderInfo) -> Encoder:
        from vsearch.retriever import matching_encoder

        self._encoder = matching_encoder(live, self._encoder)
        return self._encoder

    def close(self) -> None:
        self._standing.close()


class _Served(Library):
    """A library that several threads ask at once."""

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        super().__init__(path, catalogue)
        self._opening = threading.Lock()  # NumPy reads a map's header with `ast`, which threads can upset

    def frames(self, frame_set_id: int) -> FrameSet:
        with self._opening:
            return super().frames(frame_set_id)

    def sound_frames(self, frame_set_ids: Iterable[int]) -> dict[int, FrameSet]:
        with self._opening:
            return super().sound_frames(frame_set_ids)
