"""What the server says by HTTP, to programs, to browsers, and to those it should not serve."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.site import QUERY, running
from vsearch.retriever import Session
from vsearch.webui.http import Access, bodies, connections

pytestmark = pytest.mark.slow  # Gradio takes seconds to import


def is_refusal(answer: httpx.Response, status: int) -> bool:
    said = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert said["schema_version"] == 1
    return isinstance(said["error"], str) and bool(said["error"])


def test_every_refusal_has_the_documented_shape(site: httpx.Client, ids: dict[str, int]) -> None:
    for status, address in {
        404: "/api/videos/999", 405: "/api/retry", 422: "/api/search?q=a&n=0", 409: None,
    }.items():  # fmt: skip
        if address:
            assert is_refusal(site.get(address), status)
    for address in ("/api/none", "/nothing", "/page/none.js", "/media/999", "/gradio_api/queue/join"):
        assert is_refusal(site.get(address), 404), address
    assert is_refusal(site.get("/api/library", headers={"host": "evil.example"}), 400)
    assert is_refusal(site.get("/api/library", headers={"origin": "https://evil.example"}), 403)
    assert is_refusal(site.post("/api/head", content=b"x" * (bodies.MAX_BODY + 1)), 413)
    assert is_refusal(site.post("/api/head", content=b"{"), 422)
    wrong = site.post(
        "/api/head", content=b'{"choice": NaN}', headers={"content-type": "application/json"}
    ).json()
    assert wrong["detail"][0]["loc"][-1] == "choice"
    assert "choice" in wrong["error"]


def test_a_wrong_token_and_a_missing_library_are_refused_in_shape(
    folder: Path, tmp_path: Path, ids: dict[str, int]
) -> None:
    with running(folder / "library", Access(token="t" * 32)) as address:
        assert is_refusal(httpx.get(f"{address}/api/library"), 401)
    with running(tmp_path / "none") as address:
        assert is_refusal(httpx.get(f"{address}/api/library"), 409)


def test_a_fault_of_the_server_is_told_in_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Session[Any]) -> Any:
        raise RuntimeError("inner words")

    monkeypatch.setattr(Session, "library", property(broken))
    with running(tmp_path / "none") as address:
        answer = httpx.get(f"{address}/api/library")
    assert is_refusal(answer, 500)
    assert "inner words" not in answer.text


def test_head_is_get_without_the_body(site: httpx.Client, ids: dict[str, int]) -> None:
    video = ids["early"]
    for address in (
        "/", "/health", "/openapi.json", "/theme.css", "/page/page.js", f"/api/search?q={QUERY}", "/api/videos",
        "/api/library", f"/media/{video}", f"/thumb/{video}", f"/clip/{ids['old']}?start=1&end=2", "/api/none",
    ):  # fmt: skip
        plain = {"accept-encoding": "identity"}
        got, head = (
            site.get(address, headers=plain),
            site.head(address, headers={**plain, "range": "bytes=0-1"}),
        )
        assert (head.status_code, head.content) == (got.status_code, b""), address
        assert head.headers["content-length"] == str(len(got.content)), address
        assert head.headers["content-type"] == got.headers["content-type"], address


def test_wrong_methods_are_told_the_right_ones(site: httpx.Client, ids: dict[str, int]) -> None:
    document = site.get("/openapi.json").json()
    for path, methods in {**document["paths"], "/": {"get": {}}, "/page/{name}": {"get": {}}}.items():
        address = path.replace("{id}", str(ids["early"])).replace("{name}", "page.js")
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - {m.upper() for m in methods}:
            answer = site.request(method, address)
            assert is_refusal(answer, 405), (method, address)
            assert answer.headers["allow"] == ("GET, HEAD" if "get" in methods else "POST"), address


def test_the_document_names_what_addresses_answer(site: httpx.Client) -> None:
    for path, methods in site.get("/openapi.json").json()["paths"].items():
        for method, told in methods.items():
            assert {"400", "401", "403", "404", "405", "413", "422", "500", "503"} <= told["responses"].keys()
            kinds = set(told["responses"]["200"]["content"])
            if path.startswith(("/media", "/clip", "/thumb", "/still")):
                assert "application/json" not in kinds, (method, path)
            if path == "/api/localize":
                assert kinds == {"application/json", "text/csv", "application/x-subrip", "text/vtt"}


def test_gradio_is_closed_but_for_the_page(site: httpx.Client) -> None:
    for address in ("queue/join", "queue/data", "run/predict", "api/predict", "call/x", "info", "heartbeat/x", "upload", "startup-events"):  # fmt: skip
        for method in ("GET", "POST"):
            assert is_refusal(site.request(method, f"/gradio_api/{address}", json={}), 404), address
    for address in (
        "/config",
        "/dev/reload",
        "/queue/join",
        "/login",
        "/monitoring",
        "/robots.txt",
        "/svelte/x",
    ):
        assert site.get(address).status_code == 404, address


@pytest.mark.parametrize("site_is", ["cross-site", "same-site"])
def test_other_sites_learn_nothing(site: httpx.Client, ids: dict[str, int], site_is: str) -> None:
    def asked(path: str, mode: str, dest: str, method: str = "GET") -> httpx.Response:
        fetch = {"sec-fetch-site": site_is, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        return site.request(method, path, headers=fetch)

    for path in (f"/media/{ids['early']}", "/media/999", f"/clip/{ids['old']}?start=1&end=2", "/api/library"):
        for mode, dest in (
            ("no-cors", "video"),
            ("no-cors", "image"),
            ("cors", "empty"),
            ("navigate", "document"),
        ):
            assert is_refusal(asked(path, mode, dest), 403)
    assert asked("/", "navigate", "iframe").status_code == 403
    assert asked("/", "no-cors", "script").status_code == 403
    assert asked("/", "navigate", "document", "POST").status_code == 403
    assert asked("/?q=a", "navigate", "document").status_code == 200


def test_the_page_itself_and_programs_are_served(site: httpx.Client) -> None:
    for headers in ({}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert site.get("/api/library", headers=headers).status_code == 200
    for address in ("/", "/api/library", "/health", "/page/page.js", "/api/none", "/theme.css"):
        assert site.get(address).headers["cross-origin-resource-policy"] == "same-origin", address


def test_an_origin_is_compared_whole(site: httpx.Client) -> None:
    ours = str(site.base_url).rstrip("/")
    body = {"choice": "none such"}
    assert site.post("/api/head", json=body, headers={"origin": ours}).status_code == 422
    for origin in (ours.replace("http:", "https:"), "null", "http://127.0.0.1:1", f"{ours}.evil.example"):
        assert is_refusal(site.post("/api/head", json=body, headers={"origin": origin}), 403), origin
        assert is_refusal(site.get("/api/library", headers={"origin": origin}), 403), origin
    proxied = {"origin": ours.replace("http:", "https:"), "sec-fetch-site": "same-origin"}
    assert site.post("/api/head", json=body, headers=proxied).status_code == 422


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "1969-12-31"])
def test_the_first_and_last_of_all_days_are_days(site: httpx.Client, day: str) -> None:
    for name in ("after", "before"):
        answer = site.get("/api/search", params={"q": QUERY, name: day})
        assert answer.status_code == 200
        assert bool(answer.json()["hits"]) == ((name == "after") == (day < "2000"))


def opened(site: httpx.Client, head: str, body: bytes = b"") -> socket.socket:
    """A connection that has sent so much of a request, and no more."""
    where = urlsplit(str(site.base_url))
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=30)
    connection.sendall(f"{head}\r\nHost: {where.netloc}\r\n".encode() + body)
    return connection


def test_a_body_that_does_not_come_is_given_up(site: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    for head in ("POST /api/look HTTP/1.1\r\nContent-Length: 1000", "POST /api/head HTTP/1.1\r\nContent-Length: 20",
                 "POST /api/look HTTP/1.1\r\nTransfer-Encoding: chunked"):  # fmt: skip
        with opened(site, head, b"\r\n5\r\n{" if "chunked" in head else b"\r\n{") as connection:
            said = connection.makefile("rb").read()  # to its end: the server closes
        assert said.startswith(b"HTTP/1.1 408 "), head
        assert b'"schema_version":1' in said


@pytest.mark.parametrize("began", [b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_head_that_does_not_come_is_given_up(
    site: httpx.Client, monkeypatch: pytest.MonkeyPatch, began: bytes
) -> None:
    monkeypatch.setattr(connections, "PATIENCE_S", 0.3)
    where = urlsplit(str(site.base_url))
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=60) as connection:
        connection.sendall(began)
        said = connection.makefile("rb").read()  # to its end: the server closes
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"schema_version":1' in said


def test_a_head_that_comes_byte_by_byte_is_given_up_and_others_are_answered_meanwhile(
    site: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE_S", 1.0)
    where = urlsplit(str(site.base_url))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((where.hostname or "", where.port or 0), timeout=60))
                for _ in range(40)]  # fmt: skip
        sent = 0
        with contextlib.suppress(ConnectionError):  # the promise: it does not go on for ever
            while sent < 600:
                for connection in slow:
                    connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: aaaa"[sent : sent + 1] or b"a")
                sent += 1
                if sent == 3:
                    assert site.get("/api/library").status_code == 200
                time.sleep(0.05)
        assert sent < 600


def test_a_request_after_a_long_answer_or_a_pause_is_no_slow_one(
    site: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is the head's, not the connection's: one that is used again and again is kept."""
    monkeypatch.setattr(connections, "PATIENCE_S", 2.0)
    where = urlsplit(str(site.base_url))
    with contextlib.closing(HTTPConnection(where.hostname or "", where.port, timeout=60)) as connection:
        for _ in range(4):
            connection.request("GET", "/health")
            kept = connection.sock
            answer = connection.getresponse()
            assert (answer.status, len(answer.read()) > 0, connection.sock) == (200, True, kept)
            time.sleep(0.8)


def test_slow_bodies_keep_nobody_waiting(site: httpx.Client) -> None:
    """One more than may arrive at once: the slow one that began first makes room, also for other bodies."""
    body = json.dumps({"choice": "none such"}).encode()
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(opened(site, f"POST /api/{address} HTTP/1.1\r\nContent-Length: 50", b"\r\n{"))
            for address in ("look", "head") * (bodies.MAX_ARRIVING // 2 + 2)
        ]
        for address in ("/", "/api/library", f"/api/search?q={QUERY}"):
            assert site.get(address).status_code == 200
        for _ in range(3):
            assert is_refusal(
                site.post("/api/head", content=body), 422
            )  # it was read, and there is no such head
        assert site.post("/api/retry", headers={"origin": "null"}).status_code == 403  # it has no body
        assert slow[0].makefile("rb").read().startswith(b"HTTP/1.1 503 ")
        asked = f"POST /api/head HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        steady = stack.enter_context(opened(site, asked, b"\r\n" + body[:5]))
        time.sleep(0.1)
        steady.sendall(body[5:])
        assert b"HTTP/1.1 422 " in steady.recv(1000)
