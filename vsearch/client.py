"""The library in a program's own process: what the HTTP API does, without a server.

from vsearch import Library

with Library.open() as library:
    for hit in library.search("a dog running on grass").hits:
        print(hit.path, hit.start_ms / 1000, hit.strength)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsearch.library import Video
    from vsearch.models import Encoder, TextEncoder
    from vsearch.retriever import Answer
    from vsearch.retriever.actions.localize import Detection


class Library:
    """An open library, its index read once a generation; the model is loaded at the first sentence that is new.

    A library that is indexed further, or deleted and made again, shows at the next question. For one thread at a time.
    """

    def __init__(self, path: Path, device: str) -> None:
        from vsearch.library import Library as Stored
        from vsearch.library.index.standing import Standing

        self._standing = Standing(path, Stored)
        self._device = device
        self._text: TextEncoder | None = None
        self._encoder: Encoder | None = None

    @classmethod
    def open(cls, path: Path | str | None = None, *, device: str = "auto") -> Library:
        """The library in the folder `path`; without, the one that the command line would use here.

        Raises LibraryError when there is none.
        """
        from vsearch.library import find_library

        opened = cls(find_library(Path(path) if path is not None else None).expanduser().resolve(), device)
        opened._standing.library()
        return opened

    def search(self, text: str, *, number: int = 10, threshold: float | None = None) -> Answer:
        """The moments that a sentence describes, at most `number` videos. Raises VsearchError for an empty one."""
        from vsearch.retriever.searching import live_encoder, search, text_encoder, tidied

        library = self._standing.library()
        live, tidy = live_encoder(library), tidied(text)
        if tidy and library.cached_text(live.id, tidy) is None:
            self._text = text_encoder(live, self._encoder or self._text, self._device)
        return search(
            library, text, number=number, threshold=threshold, encoder=self._text, view=self._standing.view
        )

    def similar(self, video: Video | str, time_s: float, *, number: int = 10) -> Answer:
        """Moments that look like the picture of `video` (or of the path that ends so) at `time_s` seconds."""
        from vsearch.retriever import search_similar

        library = self._standing.library()
        return search_similar(
            library, self._video(video), round(time_s * 1000), number=number, view=self._standing.view
        )

    def localize(self, video: Video | str, actions: list[str]) -> list[Detection]:
        """When the named actions happen in `video`, best first."""
        from vsearch.retriever.actions.videos import localize_videos, names_are_known

        library, source = self._standing.library(), self._video(video)
        encoder = None if names_are_known(library, actions) else self._loaded()
        found = localize_videos(library, [source], actions, encoder=encoder, device=self._device)
        return list(found[source])

    def videos(self, *states: str) -> list[Video]:
        """Videos in path order; in the given states, else all."""
        return self._standing.library().videos(*states)

    def close(self) -> None:
        """Let go of the library and the model; a further question opens them again."""
        self._standing.close()
        self._text = self._encoder = None

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _video(self, video: Video | str) -> Video:
        return self._standing.library().find_video(video) if isinstance(video, str) else video

    def _loaded(self) -> Encoder:
        from vsearch.retriever import live_encoder, matching_encoder

        live = live_encoder(self._standing.library())
        self._encoder = matching_encoder(live, self._encoder, self._device)
        return self._encoder
