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
    """The bodies that are arriving. When one more begins than may, the one whose time is up first makes room:
    whoever sends slowly keeps nobody waiting."""

    def __init__(self) -> None:
        self._arriving: set[Body] = set()

    def body(self, receive: Receive, most: int) -> Body:
        if len(self._arriving) >= MAX_ARRIVING:
            min(self._arriving, key=lambda body: body.ends).give_up()
        body = Body(receive, most, self._arriving.discard)
        self._arriving.add(body)
        return body


class Body:
    """A `receive` that raises HTTPException 413 for a body that is too long, 408 for one that is too slow, and 503 for
    one that was given up.

    Holds a place among the arriving until the body is complete, or `close`.
    """

    def __init__(self, receive: Receive, most: int, leave: Callable[[Body], None]) -> None:
        self._receive, self._most, self._leave = receive, most, leave
        self._seen = 0
        self._began = time.monotonic()
        self._complete = self._given_up = False
        self._next: asyncio.Future[Message] | None = None

    @property
    def ends(self) -> float:
        """When its time is up."""
        return self._began + PATIENCE_S + self._seen / LEAST_RATE

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._given_up:
            raise self._refused()
        self._next = asyncio.ensure_future(self._receive())
        try:
            message = await asyncio.wait_for(self._next, max(self.ends - time.monotonic(), 0))
        except asyncio.TimeoutError:
            self.close()
            raise HTTPException(408, "the request came too slowly", {"connection": "close"}) from None
        except asyncio.CancelledError:
            if self._given_up:
                raise self._refused() from None
            raise
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            raise HTTPException(413, "the request is too large")
        if not message.get("more_body", False):
            self._complete = True
            self.close()
        return message

    def give_up(self) -> None:
        self._given_up = True
        self.close()
        if self._next is not None:
            self._next.cancel()

    def close(self) -> None:
        self._leave(self)

    def _refused(self) -> HTTPException:
        headers = {"connection": "close", "retry-after": "1"}
        return HTTPException(503, "too many slow requests at once; try again", headers)
