"""Pictures and video for the page: only what the catalogue references, in ranges, opened once and checked.

Formats that browsers do not play get a short H.264 preview of the moment, made on demand in a private folder.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse

from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.library import Video

CHUNK = 1 << 18
MAX_PREVIEW_MS = 60_000
MAX_PREVIEWS, MAX_PREVIEW_BYTES = 40, 400_000_000  # kept; the oldest go first
AT_ONCE = 2  # encodings at a time
WAIT_S = 60.0  # in the queue for one of them
TYPES = {"mov": "video/mp4", "matroska": "video/webm"}
# What Chromium, Firefox and Safari all play.
PLAYABLE = {("mov", "h264"), ("mov", "av1"), ("matroska", "vp8"), ("matroska", "vp9"), ("matroska", "av1")}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def container_family(video: Video) -> str:
    """'mov', 'matroska', … of FFmpeg's comma-separated names."""
    name = video.media.container.split(",")[0] if video.media else ""
    return {"mp4": "mov", "webm": "matroska"}.get(name, name)


def plays_in_browsers(video: Video) -> bool:
    if video.media is None or (container_family(video), video.media.codec) not in PLAYABLE:
        return False
    return (
        container_family(video) != "matroska" or video.path.suffix.lower() == ".webm"
    )  # .mkv: Chromium only


def open_source(video: Video) -> BinaryIO:
    """The very file that was indexed, opened. Raises HTTPException 404 when another one stands in its place."""
    gone = HTTPException(404, "this file has changed or gone since it was indexed; run `vsearch index` again")
    if video.state not in ("indexed", "partial"):
        raise gone
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        linked = video.path.is_symlink()
        place = video.path.resolve(strict=True) if linked else video.path
        fd = os.open(place, flags)
    except OSError:
        raise gone from None
    found = os.fstat(fd)
    same = (found.st_size, found.st_mtime_ns) == (video.size, video.mtime_ns)
    if (
        not stat.S_ISREG(found.st_mode)
        or not same
        or (linked and _content(place, found) != video.fingerprint)
    ):
        os.close(fd)
        raise gone
    return os.fdopen(fd, "rb")


def _content(place: Path, found: os.stat_result) -> str:
    """The fingerprint of a file behind a link: size and time alone would let a link lead to another file."""
    try:
        return _fingerprint(place, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError:
        return "unreadable"


@functools.lru_cache(maxsize=1000)
def _fingerprint(place: Path, *same_file: int) -> str:
    from vsearch.indexer.fingerprint import fingerprint

    return fingerprint(place)


def send_file(
    file: BinaryIO, media_type: str, range_header: str | None, *, name: str | None = None
) -> Response:
    """A file, or the one range of it that was asked for (RFC 9110, section 14). Closes the file."""
    size = os.fstat(file.fileno()).st_size
    headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=3600"}
    if name is not None:
        headers["content-disposition"] = f'attachment; filename="{name}"'
    first, last, status = 0, size - 1, 200
    if range_header:
        bounds = parse_range(range_header, size)
        if bounds is None:
            file.close()
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        (first, last), status = bounds, 206
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    headers["content-length"] = str(last - first + 1)
    return StreamingResponse(_chunks(file, first, last), status, headers, media_type)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """'bytes=5-', 'bytes=0-9', 'bytes=-100' -> first and last byte. None: malformed, several, or outside."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]) or size == 0:
        return None
    if not match[1]:
        count = int(match[2])
        return (max(0, size - count), size - 1) if count else None
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    return (first, min(last, size - 1)) if first < size and first <= last else None


def _chunks(file: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        left = last - first + 1
        while left > 0 and (data := file.read(min(CHUNK, left))):
            left -= len(data)
            yield data


class Previews:
    """Cut clips in a private folder, bounded in number, size and encodings at a time. Close to delete them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vsearch-previews-")
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._mutex = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def get(self, video: Video, start_ms: int, end_ms: int) -> BinaryIO:
        """An open H.264 file of [start_ms, end_ms). Raises VsearchError when it cannot be cut."""
        from vsearch.indexer import export_clip

        duration_ms = video.media.duration_ms if video.media else 0
        end_ms = min(end_ms, duration_ms)
        if not 0 <= start_ms < end_ms:
            raise VsearchError("this range is empty, or lies outside the video")
        if end_ms - start_ms > MAX_PREVIEW_MS:
            raise VsearchError(
                f"at most {MAX_PREVIEW_MS // 1000} s can be cut here; `vsearch clip` cuts more"
            )
        open_source(video).close()
        name = f"{video.id}-{video.mtime_ns}-{start_ms}-{end_ms}.mp4"
        path = Path(self._folder.name) / name
        with self._mutex:
            mine = self._busy.setdefault(name, threading.Lock())
        try:
            with mine:  # one cutting for many who ask for the same
                if not path.is_file():
                    # export_clip's temporary name is one a folder: each cutting gets a folder of its own
                    if not self._slots.acquire(timeout=WAIT_S):
                        raise HTTPException(503, "other previews are being made; try again")
                    try:
                        with tempfile.TemporaryDirectory(dir=self._folder.name) as own:
                            export_clip(video.path, Path(own) / name, start_ms, end_ms)
                            os.replace(Path(own) / name, path)
                    finally:
                        self._slots.release()
                os.utime(path)
                file = path.open("rb")
        finally:
            with self._mutex:
                self._busy.pop(name, None)
        self._make_room()
        return file

    def close(self) -> None:
        self._folder.cleanup()

    def _make_room(self) -> None:
        with self._mutex:
            kept = sorted(
                Path(self._folder.name).glob("*.mp4"), key=lambda p: p.stat().st_mtime, reverse=True
            )
            total = 0
            for i, path in enumerate(kept):
                total += path.stat().st_size
                if i and (i >= MAX_PREVIEWS or total > MAX_PREVIEW_BYTES):
                    path.unlink(missing_ok=True)  # who has it open reads on
