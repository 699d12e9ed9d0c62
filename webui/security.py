"""Who may ask, and how much: Host and Origin checks, the token, body size, number of requests at once.

One ASGI wrapper around everything, Gradio's own routes included.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.exceptions import HTTPException

from vsearch.errors import VsearchError
from vsearch.webui.uploads import MAX_UPLOAD

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

LEAST_TOKEN = 32  # characters
MAX_BODY = 64_000  # bytes; no request of the page is longer but an upload
UPLOAD = "/api/look"
MAX_AT_ONCE = 128  # requests in work; more are told to come back
COOKIE = "vsearch_token"
# Gradio's own ways to put files on this machine or to read them; the page uses none of them.
CLOSED = ("/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/gradio_api/stream", "/gradio_api/deep_link",
          "/gradio_api/component_server", "/gradio_api/mcp", "/upload", "/file=", "/proxy=")  # fmt: skip
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",  # Gradio's page needs inline scripts; nothing may come from elsewhere
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
        b"frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    ),
]


@dataclass(frozen=True)
class Access:
    """Where the server listens and what it asks of visitors. Raises VsearchError for an unsafe choice."""

    host: str = "127.0.0.1"
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise VsearchError(f"the token is too short: give at least {LEAST_TOKEN} characters")
        if self.token is None and not is_loopback(self.host):
            raise VsearchError(
                f"{self.host} can be reached from other machines: give a --token of at least {LEAST_TOKEN} "
                "characters, or serve on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """The wrapper. Refuses with 400, 401, 403, 404, 413 or 503 before any route sees the request."""

    def __init__(self, app: Asgi, access: Access) -> None:
        self._app = app
        self._access = access
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
        elif (clean := self._token_in_address(scope)) is not None:
            cookie = f"{COOKIE}={self._access.token}; HttpOnly; SameSite=Strict; Path=/".encode("latin-1")
            await _answer(send, 303, "", [(b"location", clean.encode()), (b"set-cookie", cookie)])
        elif self._in_work >= MAX_AT_ONCE:
            await _answer(send, 503, "too many requests at once; try again", [(b"retry-after", b"1")])
        else:
            self._in_work += 1
            try:
                await self._app(scope, _limited(receive, _most(scope)), _with_headers(send))
            finally:
                self._in_work -= 1

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._host_is_ours(host):
            return 400, "this name does not belong to this server"
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin and urlsplit(origin).netloc != host:
            return 403, "another site may not ask this server for changes"
        if any(scope["path"].startswith(closed) for closed in CLOSED):
            return 404, "there is nothing here"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _most(scope):
            return 413, "the request is too large"
        if self._access.token is not None and not self._admitted(scope, headers):
            return 401, "give the token: as ?token=… in the address, or in a header 'Authorization: Bearer …'"
        return None

    def _host_is_ours(self, header: str) -> bool:
        """DNS rebinding: without a token, only loopback names are ours. With one, the token is the guard."""
        if self._access.token is not None:
            return bool(header)
        try:
            return is_loopback(urlsplit(f"//{header}").hostname or "")
        except ValueError:
            return False

    def _admitted(self, scope: Scope, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return True
        return self._token_in_address(scope) is not None

    def _token_in_address(self, scope: Scope) -> str | None:
        """The address without the right token in it, for a redirect that keeps tokens out of histories."""
        if self._access.token is None or scope["method"] != "GET":
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == "token" and self._is_token(value) for name, value in asked):
            return None
        rest = urlencode([(name, value) for name, value in asked if name != "token"])
        return "/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else "")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._access.token or "").encode())


def _most(scope: Scope) -> int:
    """The longest body that a request may have, in bytes."""
    return MAX_UPLOAD if (scope["method"], scope["path"]) == ("POST", UPLOAD) else MAX_BODY


def _limited(receive: Receive, most: int) -> Receive:
    """Bodies without a declared length are counted as they arrive."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, "the request is too large")  # the application answers with it
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return dressed


async def _answer(
    send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = text.encode()
    await send({
        "type": "http.response.start", "status": status,
        "headers": [(b"content-type", b"text/plain; charset=utf-8"),
                    (b"content-length", str(len(body)).encode()), *HEADERS, *(headers or [])],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})
