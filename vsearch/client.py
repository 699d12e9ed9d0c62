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
    from vsearch.records import Video
    from vsearch.retriever import Answer
    from vsearch.retriever.actions import Detection


class Library:
    """A session with a library, under its public name. See `vsearch.retriever.session`.

    A library that is indexed further, or deleted and made again, shows at the next question.
    """

    def __init__(self, path: Path, device: str) -> None:
        from vsearch.retriever import Session

        self._session = Session.at(path, device)

    @classmethod
    def open(cls, path: Path | str | None = None, *, device: str = "auto") -> Library:
        """The library in the folder `path`; without, the one that the command line would use here.

        Raises LibraryError when there is none.
        """
        from vsearch.library import find_library

        opened = cls(find_library(Path(path) if path is not None else None).expanduser().resolve(), device)
        _ = opened._session.library  # says so when there is none
        return opened

    def search(self, text: str, *, number: int = 10, threshold: float | None = None) -> Answer:
        """The moments that a sentence describes, at most `number` videos. Raises VsearchError for an empty one."""
        return self._session.search(text, number=number, threshold=threshold)

    def similar(self, video: Video | str, time_s: float, *, number: int = 10) -> Answer:
        """Moments that look like the picture of `video` (or of the path that ends so) at `time_s` seconds."""
        return self._session.similar(self._video(video), round(time_s * 1000), number=number)

    def localize(self, video: Video | str, actions: list[str]) -> list[Detection]:
        """When the named actions happen in `video`, best first."""
        (found,) = self._session.localize([self._video(video)], actions).values()
        return found

    def videos(self, *states: str) -> list[Video]:
        """Videos in path order; in the given states, else all."""
        return self._session.library.videos(*states)

    def close(self) -> None:
        """Let go of the library and the model; a further question opens them again."""
        self._session.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _video(self, video: Video | str) -> Video:
        return self._session.library.find_video(video) if isinstance(video, str) else video
