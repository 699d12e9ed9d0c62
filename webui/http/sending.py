"""Files by HTTP: whole or one range (RFC 9110, 14), and only when they are not known already (13)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import BinaryIO

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from vsearch.webui.http.refusals import refusal

CHUNK = 1 << 18
UNSATISFIABLE = (0, -1)
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)


def send_file(
    file: BinaryIO,
    media_type: str,
    tag: str,
    asked: Mapping[str, str],
    *,
    named: bool,
    attach: str | None = None,
) -> Response:
    """An open file, which is closed in the end. `tag` stands for exactly its bytes. `asked`: the request's headers.

    `named`: the address names the content, so that browsers may keep it, and ask whether it is still right.
    `attach`: to be saved under this name.
    """
    found = os.fstat(file.fileno())
    size, etag, modified = found.st_size, f'"{tag}"', formatdate(int(found.st_mtime), usegmt=True)
    headers = {"accept-ranges": "bytes", "etag": etag, "last-modified": modified,
               "cache-control": "private, no-cache" if named else "no-store"}  # fmt: skip
    if attach is not None:
        headers["content-disposition"] = f'attachment; filename="{attach}"'
    if not _wanted_by_match(asked, etag, found.st_mtime):
        file.close()
        return refusal(412, "this is no longer what you have a part of", {"etag": etag})
    if _known(asked, etag, found.st_mtime):
        file.close()
        return Response(status_code=304, headers={k: v for k, v in headers.items() if k != "accept-ranges"})
    bounds = parse_range(asked["range"], size) if "range" in asked else None
    if bounds is not None and not _still_the_same(asked.get("if-range"), etag):
        bounds = None
    if bounds == UNSATISFIABLE:
        file.close()
        no_such = {"content-range": f"bytes */{size}"}
        return refusal(416, f"there is no such range in a file of {size} bytes", no_such)
    first, last = bounds or (0, size - 1)
    if bounds is not None:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    headers["content-length"] = str(last - first + 1)
    return _OpenFile(file, first, last, 200 if bounds is None else 206, headers, media_type)


def send_bytes(body: bytes, media_type: str, asked: Mapping[str, str], *, named: bool) -> Response:
    """Something small, whole, unless it is known. `named`: as for `send_file`."""
    etag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "private, no-cache" if named else "no-store"}
    if _known(asked, etag, float("inf")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """'bytes=5-', 'bytes=0-9', 'bytes=-100' -> first and last byte, or UNSATISFIABLE.

    None, which is no range, for what is to be passed over: another unit, malformed, several.
    """
    unit, equals, ranges = header.partition("=")
    parts = [part.strip() for part in ranges.split(",") if part.strip()]
    match = _RANGE.fullmatch(parts[0]) if len(parts) == 1 else None
    if unit.strip().lower() != "bytes" or not equals or match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        count = min(_number(match[2]), size)
        return (size - count, size - 1) if count else UNSATISFIABLE
    first, last = _number(match[1]), _number(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    return (first, min(last, size - 1)) if first < size else UNSATISFIABLE


def _number(digits: str) -> int:
    """No file is longer than eighteen digits say."""
    kept = digits.lstrip("0")
    return 10**18 if len(kept) > 18 else int(kept or "0")


def _known(asked: Mapping[str, str], etag: str, modified_s: float) -> bool:
    """Whether the asker has it already."""
    tags = asked.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or etag in (each.strip().removeprefix("W/") for each in tags.split(","))
    return _unchanged_since(asked.get("if-modified-since"), modified_s, otherwise=False)


def _wanted_by_match(asked: Mapping[str, str], etag: str, modified_s: float) -> bool:
    tags = asked.get("if-match")
    if tags is not None:
        return tags.strip() == "*" or etag in (each.strip() for each in tags.split(","))
    return _unchanged_since(asked.get("if-unmodified-since"), modified_s, otherwise=True)


def _still_the_same(if_range: str | None, etag: str) -> bool:
    """By tag alone: a date says too little of a file's bytes (13.1.5 asks for a strong validator)."""
    return if_range is None or if_range.strip() == etag


def _unchanged_since(date: str | None, modified_s: float, *, otherwise: bool) -> bool:
    try:
        return int(modified_s) <= parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return otherwise  # no date, or none that can be read


class _OpenFile(StreamingResponse):
    """Closes its file whichever way the answer ends: sent, or its asker gone."""

    def __init__(
        self, file: BinaryIO, first: int, last: int, status: int, headers: dict[str, str], media_type: str
    ) -> None:
        super().__init__(_chunks(file, first, last), status, headers, media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _chunks(file: BinaryIO, first: int, last: int) -> Iterator[bytes]:
    file.seek(first)
    left = last - first + 1
    while left > 0 and (data := file.read(min(CHUNK, left))):
        left -= len(data)
        yield data
