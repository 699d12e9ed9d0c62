"""What visitors ask: a sentence, a place in a video, or an uploaded look, known by a token that only its sender has."""

from __future__ import annotations

import datetime
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException

from vsearch.errors import VsearchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.library import Library
    from vsearch.records import Video
    from vsearch.retriever import Answer, Session

MAX_LOOKS = 500  # vectors of uploads, about a kilobyte each; the oldest go first
DAY_S = 86_400


@dataclass(frozen=True)
class Filters:
    """Dates are whole days, both included, of the file's last change; durations in seconds."""

    folder: str | None = None
    after: datetime.date | None = None
    before: datetime.date | None = None
    shortest_s: float | None = None
    longest_s: float | None = None

    def predicate(self) -> Callable[[Video], bool] | None:
        """None when nothing is left out."""
        if self == Filters():
            return None
        folder = Path(self.folder) if self.folder else None
        begin = _start_of(self.after) if self.after else 0.0
        end = _start_of(self.before) + DAY_S if self.before else float("inf")
        low, high = self.shortest_s or 0.0, self.longest_s if self.longest_s is not None else float("inf")

        def fits(video: Video) -> bool:
            duration_s = video.media.duration_ms / 1000 if video.media else 0.0
            inside = folder is None or video.path.is_relative_to(folder)
            return inside and begin <= video.mtime_ns / 1e9 < end and low <= duration_s <= high

        return fits


def _start_of(day: datetime.date) -> float:
    """Unix seconds; of the first and the last days of all dates, which no clock here reaches, ±infinity."""
    try:
        return datetime.datetime.combine(day, datetime.time()).timestamp()
    except (ValueError, OverflowError, OSError):
        return float("-inf") if day.year < 1970 else float("inf")


@dataclass(frozen=True)
class PageQuestion:
    """One of: a sentence; the picture of video `video` at `time_ms`; the token of an upload."""

    text: str | None = None
    video: int | None = None
    time_ms: int = 0
    look: str | None = None


class Visitors:
    """Asks the session for visitors, and keeps what they uploaded; nothing else in it belongs to one."""

    def __init__(self, session: Session[Library]) -> None:
        self._session = session
        self._looks: OrderedDict[str, tuple[str, npt.NDArray[np.float32]]] = OrderedDict()
        self._mutex = threading.Lock()

    @property
    def library(self) -> Library:
        """The library that lies at the path now. Raises LibraryError, which says what to run, while there is none."""
        return self._session.library

    def video(self, id: int, content: str | None = None) -> Video:
        """Raises HTTPException 404; also when it no longer has the `content` (a fingerprint) that is asked for."""
        found = self.library.videos_of([id]).get(id)
        if found is None:
            raise HTTPException(404, "there is no such video in this library")
        if content is not None and content != found.fingerprint:
            raise HTTPException(404, "this video is another one now; search again")
        return found

    def search(self, question: PageQuestion, number: int, filters: Filters) -> Answer:
        only = filters.predicate()
        if question.text is not None:
            return self._session.search(question.text, number=number, only=only)
        if question.video is not None:
            video = self.video(question.video)
            return self._session.similar(video, question.time_ms, number=number, only=only)
        return self._session.look(self._look(question.look or ""), "an upload", number=number, only=only)

    def vector(self, question: PageQuestion) -> npt.NDArray[np.float32]:
        """The question in the space of moments, (D,) unit length."""
        from vsearch.retriever import look_of

        if question.text is not None:
            return self._session.vector(question.text)
        if question.video is not None:
            return look_of(self.library, self.video(question.video), question.time_ms)
        return self._look(question.look or "")

    def keep_look(self, file: Path) -> str:
        """Remember what an uploaded picture or short clip looks like; gives the token to ask with."""
        from vsearch.webui.uploads import frames_of, look_of

        encoder = self._session.encoder()
        frames, times_ms = frames_of(file, encoder.backbone.preprocess)  # others may ask meanwhile
        with self._session.encoders.lock:
            vector = look_of(encoder, frames, times_ms)
        token = secrets.token_urlsafe(18)
        with self._mutex:
            self._looks[token] = (encoder.identity, vector)
            while len(self._looks) > MAX_LOOKS:
                self._looks.popitem(last=False)
        return token

    def _look(self, token: str) -> npt.NDArray[np.float32]:
        with self._mutex:
            identity, vector = self._looks.get(token, ("", None))
        if vector is None:
            raise VsearchError("this upload is no longer kept; choose the picture again")
        if identity != self._session.live.identity:
            raise VsearchError(
                "the library was given another head since this upload; choose the picture again"
            )
        return vector
