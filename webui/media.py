"""Pictures and video for the page: only what the catalogue references, in ranges, opened once and checked.

Formats that browsers do not play get a short H.264 preview of the moment, made on demand in a private folder.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastapi import HTTPException

from vsearch.errors import VsearchError
from vsearch.indexer import MATROSKA, MP4

if TYPE_CHECKING:
    from vsearch.records import Video

MAX_PREVIEW_MS = 60_000
MAX_PREVIEWS, MAX_PREVIEW_BYTES = 40, 400_000_000  # kept; the oldest go first
AT_ONCE = 2  # encodings at a time
WAIT_S = 60.0  # in the queue for one of them
TYPES = {MP4: "video/mp4", MATROSKA: "video/webm"}
# What Chromium, Firefox and Safari all play.
PLAYABLE = {(MP4, "h264"), (MP4, "av1"), (MATROSKA, "vp8"), (MATROSKA, "vp9"), (MATROSKA, "av1")}
CLOCK_S = 2.0  # the catalogue counts whole seconds


def plays_in_browsers(video: Video) -> bool:
    """A file whose clock does not start at 0 is not left to them: some take the start off, some do not."""
    if video.media is None or (video.media.container, video.media.codec) not in PLAYABLE:
        return False
    if video.media.start_ms:
        return False
    return video.media.container != MATROSKA or video.path.suffix.lower() == ".webm"  # .mkv: Chromium only


def open_source(video: Video) -> BinaryIO:
    """The very file that was indexed, opened. Raises HTTPException 404 when another one stands in its place."""
    gone = HTTPException(404, "this file has changed or gone since it was indexed; run `vsearch index` again")
    if video.state not in ("indexed", "partial"):
        raise gone
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        place = video.path.resolve(strict=True)
        fd = os.open(place, flags)
    except (OSError, RuntimeError):  # the latter: links that lead in a circle
        raise gone from None
    found = os.fstat(fd)
    same = (found.st_size, found.st_mtime_ns) == (video.size, video.mtime_ns)
    # Size and time can be given to any file, by a link or by `touch`; the time of that cannot.
    doubtful = place != video.path or found.st_ctime > video.added_at + CLOCK_S
    if (
        not stat.S_ISREG(found.st_mode)
        or not same
        or (doubtful and _content(place, found) != video.fingerprint)
    ):
        os.close(fd)
        raise gone
    return os.fdopen(fd, "rb")


def _content(place: Path, found: os.stat_result) -> str:
    """The fingerprint of a file; read once, until something changes about it."""
    try:
        return _fingerprint(
            place, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        )
    except OSError:
        return "unreadable"


@functools.lru_cache(maxsize=1000)
def _fingerprint(place: Path, *same_file: int) -> str:
    from vsearch.indexer.fingerprint import fingerprint

    return fingerprint(place)


class Previews:
    """Cut clips in a private folder, bounded in number, size and encodings at a time. Close to delete them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vsearch-previews-")
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._mutex = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._words: dict[str, str] = {}  # on sound that could not be had

    def get(self, video: Video, start_ms: int, end_ms: int) -> tuple[BinaryIO, str | None]:
        """An open H.264 file of [start_ms, end_ms), and a sentence when its sound could not be had. Raises VsearchError
        when it cannot be cut."""
        duration_ms = video.media.duration_ms if video.media else 0
        end_ms = min(end_ms, duration_ms)
        if not 0 <= start_ms < end_ms:
            raise VsearchError("this range is empty, or lies outside the video")
        if end_ms - start_ms > MAX_PREVIEW_MS:
            raise VsearchError(
                f"at most {MAX_PREVIEW_MS // 1000} s can be cut here; `vsearch clip` cuts more"
            )
        open_source(video).close()
        name = f"{video.fingerprint}-{start_ms}-{end_ms}.mp4"
        path = Path(self._folder.name) / name
        with self._mutex:
            mine = self._busy.setdefault(name, threading.Lock())
        try:
            with mine:  # one cutting for many who ask for the same
                file = _reopened(path) or self._cut(video, path, start_ms, end_ms)
        finally:
            with self._mutex:
                self._busy.pop(name, None)
        word = self._words.get(name)
        self._make_room()
        return file, word

    def _cut(self, video: Video, path: Path, start_ms: int, end_ms: int) -> BinaryIO:
        from vsearch.indexer import export_clip

        if not self._slots.acquire(timeout=WAIT_S):
            raise HTTPException(503, "other previews are being made; try again")
        try:  # in a folder of its own, where another's _make_room does not see it before it is open
            with tempfile.TemporaryDirectory(dir=self._folder.name) as own:
                made = Path(own) / path.name
                word = export_clip(video.path, made, start_ms, end_ms)
                if word is not None:
                    self._words[path.name] = word
                file = made.open("rb")
                os.replace(made, path)
                return file
        finally:
            self._slots.release()

    def close(self) -> None:
        self._folder.cleanup()

    def _make_room(self) -> None:
        with self._mutex:
            kept = sorted(
                Path(self._folder.name).glob("*.mp4"), key=lambda p: p.stat().st_atime_ns, reverse=True
            )
            total = 0
            for i, path in enumerate(kept):
                total += path.stat().st_size
                if i and (i >= MAX_PREVIEWS or total > MAX_PREVIEW_BYTES):
                    path.unlink(missing_ok=True)  # who has it open reads on
                    self._words.pop(path.name, None)


def _reopened(path: Path) -> BinaryIO | None:
    """A kept preview, noted as used; None when there is none, or no more."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    os.utime(file.fileno(), ns=(time.time_ns(), os.fstat(file.fileno()).st_mtime_ns))
    return file


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
