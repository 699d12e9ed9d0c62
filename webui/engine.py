"""The library and the model that a running server keeps open; nothing in it belongs to a visitor."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException

from vsearch.errors import LibraryError

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo, Library, Video
    from vsearch.models import Encoder
    from vsearch.retriever import Answer


class Engine:
    """Opens the library when it is there, loads the model at the first sentence that is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library: Library | None = None
        self._encoder: Encoder | None = None
        self._mutex = threading.Lock()
        self.model = threading.Lock()  # one sentence at a time: the towers are not made for threads

    def library(self) -> Library:
        """Raises LibraryError, which says what to run, while there is none."""
        from vsearch.library import Library

        with self._mutex:
            if self._library is None:
                if not Library.exists(self.path):
                    raise LibraryError(
                        "there is no library yet: run `vsearch index FOLDER`, then search here"
                    )
                self._library = Library.open(self.path)
            return self._library

    def video(self, id: int) -> Video:
        """Raises HTTPException 404."""
        for video in self.library().videos():
            if video.id == id:
                return video
        raise HTTPException(404, "there is no such video in this library")

    def search(self, text: str, number: int) -> Answer:
        from vsearch.retriever import live_encoder, search

        library = self.library()
        live = live_encoder(library)
        if library.cached_text(live.id, " ".join(text.split())) is not None or not text.strip():
            return search(library, text, number=number)
        with self.model:
            return search(library, text, number=number, encoder=self._loaded(live))

    def _loaded(self, live: EncoderInfo) -> Encoder:
        from vsearch.retriever import matching_encoder

        self._encoder = matching_encoder(live, self._encoder)
        return self._encoder

    def close(self) -> None:
        with self._mutex:
            if self._library is not None:
                self._library.close()
                self._library = None
