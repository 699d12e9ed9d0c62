"""Connections: how long the head of a request may take to arrive. Bodies have a deadline of their own; see bodies.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from vsearch.webui.http import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PATIENCE_S = 10.0  # from the connection, or from a later request's first byte, to the end of the head


class Connection(H11Protocol):
    """Gives up a connection on which the head of a request does not come, or comes too slowly: else as many as this
    process may have open would keep everybody away."""

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn names the kind that asyncio hands it
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the head is here
            self._stop()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._giving_up is None:
            self._giving_up = self.loop.call_later(PATIENCE_S, self._give_up)

    def _stop(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            answer = refusal(408, "the request came too slowly", {"connection": "close"})
            fields = [b"%s: %s" % field for field in answer.raw_headers]
            self.transport.write(
                b"\r\n".join([b"HTTP/1.1 408 Request Timeout", *fields, b"", bytes(answer.body)])
            )
            self.transport.close()


def configured(app: ASGIApp, **told: Any) -> Config:
    """uvicorn's configuration for `app`, with connections that are given up."""
    return Config(app, http=Connection, **told)
