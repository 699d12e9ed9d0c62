"""The bodies of requests: how long they may be, how long they may take, how many may be arriving at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from vsearch.webui.uploads import MAX_UPLOAD

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

MAX_BODY = 64_000  # bytes; no request of the page is longer but an upload
UPLOAD = "/api/look"
MAX_ARRIVING = 16  # fewer than requests at once: slow bodies leave places for everything else
PATIENCE_S = 10.0  # for a body that brings nothing …
LEAST_RATE = 100_000  # … and longer by a second for each so many bytes that it has brought


def longest(method: str, path: str) -> int:
    """The longest body that a request may have, in bytes."""
    return MAX_UPLOAD if (method, path) == ("POST", UPLOAD) else MAX_BODY


class Bodies:
    """Counts the bodies that are arriving."""

    def __init__(self) -> None:
        self._arriving = 0

    @property
    def full(self) -> bool:
        return self._arriving >= MAX_ARRIVING

    def body(self, receive: Receive, most: int) -> Body:
        return Body(self, receive, most)

    def _count(self, change: int) -> None:
        self._arriving += change


class Body:
    """A `receive` that raises HTTPException 413 for a body that is too long and 408 for one that is too slow.

    Holds a place among the arriving until the body is complete, or `close`.
    """

    def __init__(self, bodies: Bodies, receive: Receive, most: int) -> None:
        self._bodies, self._receive, self._most = bodies, receive, most
        self._seen = 0
        self._began = time.monotonic()
        self._arriving = True
        bodies._count(+1)

    async def __call__(self) -> Message:
        if not self._arriving:
            return await self._receive()
        left = self._began + PATIENCE_S + self._seen / LEAST_RATE - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except asyncio.TimeoutError:
            self.close()
            raise HTTPException(408, "the request came too slowly", {"connection": "close"}) from None
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            raise HTTPException(413, "the request is too large")
        if not message.get("more_body", False):
            self.close()
        return message

    def close(self) -> None:
        if self._arriving:
            self._arriving = False
            self._bodies._count(-1)
