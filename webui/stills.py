"""Pictures of moments for the page, made on demand and kept in memory for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from fastapi import HTTPException

from vsearch.webui.media import AT_ONCE, WAIT_S, open_source

if TYPE_CHECKING:
    from vsearch.records import Video

HEIGHT = 240  # pixels
MAX_STILLS = 500  # kept, some ten kilobytes each; the longest unused go first


class Stills:
    """JPEGs by content and time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._mutex = threading.Lock()

    def get(self, video: Video, time_ms: int) -> bytes:
        """What the video shows then. Raises MediaError, HTTPException 404 for a file that is not the one indexed."""
        from vsearch.indexer import still_at

        key = (video.fingerprint or "", time_ms)
        with self._mutex:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        open_source(video).close()
        if not self._slots.acquire(timeout=WAIT_S):
            raise HTTPException(503, "other pictures are being made; try again", {"retry-after": "2"})
        try:
            jpeg = still_at(video.path, time_ms, HEIGHT)
        finally:
            self._slots.release()
        with self._mutex:
            self._kept[key] = jpeg
            while len(self._kept) > MAX_STILLS:
                self._kept.popitem(last=False)
        return jpeg
