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

from vsearch.errors import LibraryError

if TYPE_CHECKING:
    import vsearch.library
    from vsearch.library import Video
    from vsearch.models import Encoder
    from vsearch.retriever import Answer
    from vsearch.retriever.localize import Detection


class Library:
    """An open library with its model, loaded at the first sentence that is new. For one thread at a time."""

    def __init__(self, opened: vsearch.library.Library, device: str) -> None:
        self._opened = opened
        self._device = device
        self._encoder: Encoder | None = None

    @classmethod
    def open(cls, path: Path | str | None = None, *, device: str = "auto") -> Library:
        """The library in the folder `path`; without, the one that the command line would use here.

        Raises LibraryError when there is none.
        """
        from vsearch.library import Library as Stored
        from vsearch.library import find_library

        place = find_library(Path(path) if path is not None else None)
        if not Stored.exists(place):
            raise LibraryError(f"There is no library at {place}: run `vsearch index FOLDER` first.")
        return cls(Stored.open(place), device)

    def search(self, text: str, *, number: int = 10, threshold: float | None = None) -> Answer:
        """The moments that a sentence describes, at most `number` videos. Raises VsearchError for an empty one."""
        from vsearch.retriever import live_encoder, search

        live = live_encoder(self._opened)
        known = self._opened.cached_text(live.id, " ".join(text.split())) is not None
        encoder = None if known or not text.strip() else self._loaded()
        return search(self._opened, text, number=number, threshold=threshold, encoder=encoder)

    def similar(self, video: Video | str, time_s: float, *, number: int = 10) -> Answer:
        """Moments that look like the picture of `video` (or of the path that ends so) at `time_s` seconds."""
        from vsearch.retriever import search_similar

        return search_similar(self._opened, self._video(video), round(time_s * 1000), number=number)

    def localize(self, video: Video | str, actions: list[str]) -> list[Detection]:
        """When the named actions happen in `video`, best first."""
        from vsearch.retriever.actions import localize_videos

        source = self._video(video)
        return list(localize_videos(self._opened, [source], actions, encoder=self._loaded())[source])

    def videos(self, *states: str) -> list[Video]:
        """Videos in path order; in the given states, else all."""
        return self._opened.videos(*states)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _video(self, video: Video | str) -> Video:
        return self._opened.find_video(video) if isinstance(video, str) else video

    def _loaded(self) -> Encoder:
        from vsearch.retriever import live_encoder, matching_encoder

        self._encoder = matching_encoder(live_encoder(self._opened), self._encoder, self._device)
        return self._encoder
