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

from starlette.responses import PlainTextResponse, Response

from vsearch.errors import VsearchError
from vsearch.webui.http.bodies import Bodies, Message, Receive, longest
from vsearch.webui.http.refusals import refusal

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

LEAST_TOKEN = 32  # characters
MAX_AT_ONCE = 128  # requests in work; more are told to come back
COOKIE = "vsearch_token"
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
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
    """The wrapper. Refuses with 400, 401, 403, 413 or 503 before any route sees the request; asks the application
    for HEAD as for GET and leaves the body out."""

    def __init__(self, app: Asgi, access: Access) -> None:
        self._app = app
        self._access = access
        self._in_work = 0
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        if scope["method"] == "HEAD":  # whose Range means nothing (RFC 9110, 14.2)
            fields = [field for field in scope["headers"] if field[0].lower() != b"range"]
            scope, send = {**scope, "method": "GET", "headers": fields}, _without_body(send)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        no = self._refusal(scope, headers)
        if no is not None:
            await _answer(scope, receive, send, *no)
        elif (clean := self._token_in_address(scope)) is not None:
            cookie = f"{COOKIE}={self._access.token}; HttpOnly; SameSite=Strict; Path=/"
            await Response(status_code=303, headers={"location": clean, "set-cookie": cookie})(
                scope, receive, send
            )
        elif self._in_work >= MAX_AT_ONCE:
            again = {"retry-after": "1"}
            await _answer(scope, receive, send, 503, "too many requests at once; try again", again)
        else:
            body = self._bodies.body(receive, _most(scope)) if _has_body(headers) else None
            self._in_work += 1
            try:
                await self._app(scope, body or receive, send)
            finally:
                self._in_work -= 1
                if body is not None:
                    body.close()

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._host_is_ours(host):
            return 400, "this name does not belong to this server"
        if _from_another_site(scope, headers):
            return 403, "another site may not ask this server"
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


def _from_another_site(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a page of another origin asks. It may lead people to our page; it may not ask, embed or measure
    anything here. What is no browser says neither."""
    site = headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        return not (followed and scope["method"] == "GET" and scope["path"] == "/")
    origin = headers.get("origin")
    if origin is None:
        return False
    ours = headers.get("host", "").lower()
    if site == "same-origin":  # the browser's word; behind a proxy we may not know our own scheme
        return origin.lower().partition("://")[2] != ours
    return origin.lower() != f"{scope.get('scheme', 'http')}://{ours}"


def _has_body(headers: dict[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _most(scope: Scope) -> int:
    return longest(scope["method"], scope["path"])


def _with_headers(send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return dressed


def _without_body(send: Send) -> Send:
    """The answer ends where its body begins; who streams one is told that nobody listens."""

    async def bare(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return bare


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, text: str, headers: dict[str, str] | None = None
) -> None:
    """In plain words for a person at the page, else as the API refuses."""
    if scope["path"] == "/":
        answer: Response = PlainTextResponse(text, status, headers)
    else:
        answer = refusal(status, text, headers)
    await answer(scope, receive, send)
