"""The API and the security list, against a live server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.media import write_video
from tests.site import QUERY, add_clip, h264, make_library, publish, running
from vsearch.errors import VsearchError
from vsearch.indexer.fingerprint import fingerprint
from vsearch.library import Library
from vsearch.webui.http import Access
from vsearch.webui.http.bodies import MAX_BODY

TOKEN = "0123456789abcdef0123456789abcdef"
pytestmark = pytest.mark.slow  # Gradio takes seconds to import


@pytest.fixture(scope="module")
def guarded(folder: Path, ids: dict[str, int]) -> Iterator[httpx.Client]:
    access = Access(token=TOKEN)
    with running(folder / "library", access) as address, httpx.Client(base_url=address) as client:
        yield client


def raw(site: httpx.Client, request: str) -> str:
    """The answer to bytes that a well-behaved client would never send."""
    where = urlsplit(str(site.base_url))
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.settimeout(20)
        return connection.recv(65536).decode("latin-1")


def test_search_gives_documented_records(site: httpx.Client, ids: dict[str, int]) -> None:
    from vsearch.cli.output import hit_record
    from vsearch.retriever import Hit

    answer = site.get("/api/search", params={"q": QUERY}).json()
    assert answer["schema_version"] == 1
    hits = {hit["video"]: hit for hit in answer["hits"]}
    assert hits[ids["late"]]["start"] == pytest.approx(29.5)
    documented = hit_record(Hit(1, "a", 1, 0, 1, 0.5, None, None, (), ()))
    assert hits[ids["late"]].keys() == documented.keys() | {"video", "content", "playable"}


def test_similar_timeline_videos_library(site: httpx.Client, ids: dict[str, int]) -> None:
    similar = site.get("/api/similar", params={"video": ids["early"], "t": 2}).json()
    assert similar["hits"][0]["video"] in {ids["late"], ids["old"], ids["hostile"]}
    points = site.get(f"/api/timeline/{ids['late']}", params={"q": QUERY}).json()["points"]
    assert max(points, key=lambda p: p["score"])["time"] >= 29
    assert site.get(f"/api/videos/{ids['old']}").json()["video"]["playable"] is False
    assert site.get(f"/api/videos/{ids['late']}").json()["video"]["playable"] is True
    assert site.get("/api/library").json()["videos"] == {"indexed": 4, "failed": 1}
    assert site.get("/health").json() == {"schema_version": 1, "status": "ok", "library": True}
    assert site.get(f"/thumb/{ids['late']}").content.startswith(b"\xff\xd8")


def test_wrong_use_is_answered_in_words(site: httpx.Client, ids: dict[str, int]) -> None:
    assert site.get("/api/search", params={"q": " "}).json()["error"].startswith("the query is empty")
    assert "ends before" in site.get("/api/similar", params={"video": ids["early"], "t": 999}).json()["error"]
    for address in (
        "/api/search",
        "/api/search?q=a&n=0",
        "/api/search?q=a&n=1001",
        f"/api/search?q={'a' * 501}",
    ):
        assert site.get(address).status_code == 422, address
    for address in ("/api/videos/999", "/media/999", "/thumb/999", "/clip/999?start=0&end=1"):
        assert site.get(address).status_code == 404, address
    for range_ in ("start=5&end=5", "start=39&end=3", "start=900&end=901", "start=nan&end=2"):
        assert site.get(f"/clip/{ids['early']}?{range_}").status_code == 422, range_


def test_openapi_names_every_endpoint(site: httpx.Client) -> None:
    paths = site.get("/openapi.json").json()["paths"]
    assert {"/health", "/api/search", "/api/similar", "/api/look", "/api/timeline/{id}", "/api/localize", "/api/videos/{id}", "/api/library",
            "/media/{id}", "/thumb/{id}", "/clip/{id}"} <= paths.keys()  # fmt: skip


def test_media_ranges(site: httpx.Client, folder: Path, ids: dict[str, int]) -> None:
    content = (folder / "videos" / "early.mp4").read_bytes()
    address, size = f"/media/{ids['early']}", len(content)
    whole = site.get(address)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, content, "bytes")
    part = site.get(address, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{size}"
    assert site.get(address, headers={"range": "bytes=-7"}).content == content[-7:]
    assert site.get(address, headers={"range": f"bytes={size - 3}-{size + 99}"}).content == content[-3:]


def test_a_preview_is_made_once_and_plays_anywhere(
    site: httpx.Client, ids: dict[str, int], tmp_path: Path
) -> None:
    import av

    address = f"/clip/{ids['old']}?start=12&end=15"
    made = site.get(address)
    assert (made.status_code, made.headers["content-type"]) == (200, "video/mp4")
    (tmp_path / "made.mp4").write_bytes(made.content)
    with av.open(str(tmp_path / "made.mp4")) as clip:
        assert clip.streams.video[0].codec_context.name == "h264"
        assert clip.duration == pytest.approx(3e6, abs=2e5)
    assert site.get(address, headers={"range": "bytes=0-99"}).content == made.content[:100]
    assert "attachment" in site.get(f"{address}&download=true").headers["content-disposition"]


@pytest.mark.parametrize("path", [
    "/media/../../../etc/passwd", "/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/media//etc/passwd", "/thumb/..%2f..%2fx",
    "/page/../app.py", "/page/%2e%2e%2fapp.py", "/page//etc/passwd", "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=library/catalogue.sqlite", "/file=/etc/passwd", "/static/%2e%2e/%2e%2e/app.py", "/media/1/../2",
])  # fmt: skip
def test_traversal_finds_nothing(site: httpx.Client, path: str) -> None:
    host = urlsplit(str(site.base_url)).netloc
    answer = raw(site, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert answer.split(" ")[1] in ("400", "403", "404", "405", "422"), answer[:200]
    assert "root:" not in answer
    assert site.get("/health").status_code == 200


def test_a_file_put_in_the_place_of_a_video_is_not_served(
    folder: Path, ids: dict[str, int], site: httpx.Client
) -> None:
    video = folder / "videos" / "old.avi"
    kept = video.with_suffix(".kept")
    video.rename(kept)
    try:
        secret = folder / "secret"
        secret.write_bytes(bytes(kept.stat().st_size))
        os.utime(secret, ns=(kept.stat().st_atime_ns, kept.stat().st_mtime_ns))
        video.symlink_to(secret)
        assert (
            site.get(f"/media/{ids['old']}").status_code == 404
        )  # a link to other content of equal size and age
        video.unlink()
        video.write_bytes(b"another file")
        assert site.get(f"/media/{ids['old']}").status_code == 404
        assert site.get(f"/clip/{ids['old']}?start=1&end=2").status_code == 404
    finally:
        video.unlink()
        kept.rename(video)
    assert site.get(f"/media/{ids['old']}").status_code == 200


def test_a_video_behind_a_link_is_served_while_it_is_that_video(tmp_path: Path) -> None:
    real, link = write_video(tmp_path / "real.mp4", frames=50, fps=10), tmp_path / "videos" / "link.mp4"
    link.parent.mkdir()
    link.symlink_to(real)
    with Library.open(tmp_path / "library", create=True) as library:
        video = add_clip(library, link, [0] * 5, h264(5), content=fingerprint(real))
        publish(library)
    other = tmp_path / "other"
    other.write_bytes(bytes(real.stat().st_size))
    os.utime(other, ns=(real.stat().st_atime_ns, real.stat().st_mtime_ns))
    with running(tmp_path / "library") as address:
        assert httpx.get(f"{address}/media/{video}").content == real.read_bytes()
        link.unlink()
        link.symlink_to(other)
        assert httpx.get(f"{address}/media/{video}").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:7860", "", "[::"])
def test_host_rebinding_is_refused(site: httpx.Client, host: str) -> None:
    assert site.get("/api/library", headers={"host": host}).status_code == 400


def test_another_site_may_not_post(site: httpx.Client) -> None:
    foreign = site.post("/gradio_api/queue/join", json={}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403


def test_long_bodies_are_refused(site: httpx.Client) -> None:
    assert site.post("/gradio_api/upload", files={"files": ("evil.mp4", b"x")}).status_code == 404
    assert site.post("/api/search", content=b"x" * (MAX_BODY + 1)).status_code == 413
    host = urlsplit(str(site.base_url)).netloc
    for path, length in (
        ("search", "-1"),
        ("search", "1e9"),
        ("search", "65000"),
        ("look", "64000001"),
        ("look", "9" * 30),
    ):
        sent = f"POST /api/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        assert raw(site, sent).split(" ")[1] in ("400", "413"), (path, length)
    assert site.get("/health").status_code == 200


def test_an_upload_that_never_says_its_length_is_cut_off(site: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(80):
            yield bytes(1_000_000)

    with contextlib.suppress(httpx.WriteError):  # the server may have hung up already
        assert site.post("/api/look", content=endless()).status_code == 413
    assert site.get("/health").status_code == 200


def test_a_guessed_upload_is_nobodys(site: httpx.Client) -> None:
    answer = site.get("/api/search", params={"look": "A" * 24})
    assert (answer.status_code, "no longer kept" in answer.json()["error"]) == (422, True)


def test_answers_go_on_while_the_library_is_being_indexed(tmp_path: Path) -> None:
    ids = make_library(tmp_path)
    with (
        running(tmp_path / "library") as address,
        Library.open(tmp_path / "library") as library,
        library.writing(),
    ):
        asked = {"q": QUERY, "n": 100}
        before = httpx.get(f"{address}/api/search", params=asked).json()["hits"]
        new = tmp_path / "videos" / "new.mp4"
        new.write_bytes((tmp_path / "videos" / "early.mp4").read_bytes())
        added = add_clip(library, new, [0] * 40, h264(40), content="new")
        publish(library)
        after = httpx.get(f"{address}/api/search", params=asked).json()["hits"]
    assert {hit["video"] for hit in before} == {id for name, id in ids.items()}
    assert {hit["video"] for hit in after} - {hit["video"] for hit in before} == {added}


def test_filters(site: httpx.Client, ids: dict[str, int], folder: Path) -> None:
    def found(**filters: str | float) -> set[int]:
        answer = site.get("/api/search", params={"q": QUERY, **filters})
        return {hit["video"] for hit in answer.json()["hits"]}

    every = {ids[name] for name in ("early", "late", "old", "hostile")}
    assert found() == found(folder=str(folder / "videos")) == found(after="2000-01-01") == every
    assert found(folder=str(folder / "vid")) == found(before="2000-01-01") == found(longest=1) == set()
    assert found(shortest=41) == {ids["late"]}
    assert found(longest=30, n=1) == {ids["old"]}
    assert site.get("/api/search", params={"q": QUERY, "after": "soon"}).status_code == 422


def test_one_question_at_a_time(site: httpx.Client, ids: dict[str, int]) -> None:
    assert "one of q" in site.get("/api/search").json()["error"]
    assert site.get("/api/search", params={"q": QUERY, "video": ids["early"]}).status_code == 422


def test_localize_as_files(site: httpx.Client, ids: dict[str, int]) -> None:
    assert site.get("/api/localize", params={"video": ids["early"], "actions": " , "}).status_code == 422
    assert (
        site.get("/api/localize", params={"video": ids["early"], "actions": "a", "format": "exe"}).status_code
        == 422
    )


def test_only_offered_heads_are_adopted(site: httpx.Client) -> None:
    assert [head["live"] for head in site.get("/api/library").json()["heads"]] == [True]
    for choice in ("folder:/etc", "folder:../x", "known:1", "known:x", ""):
        assert "not among" in site.post("/api/head", json={"choice": choice}).json()["error"], choice
    assert "no head to go back to" in site.post("/api/head", json={"choice": None}).json()["error"]


def test_retry_runs_and_tells(site: httpx.Client, folder: Path) -> None:
    assert site.post("/api/retry", headers={"origin": "https://evil.example"}).status_code == 403
    started = site.post("/api/retry").json()
    assert started["job"]["name"] == "retry"
    until = time.monotonic() + 60
    while site.get("/api/library").json()["job"]["running"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    after = site.get("/api/library").json()
    assert after["videos"] == {"indexed": 4, "failed": 1}
    assert [v["reason"] for v in after["troubled"] if v["state"] == "failed"]


def test_the_progress_of_a_run_is_told(site: httpx.Client, folder: Path) -> None:
    from vsearch.indexer import Progress
    from vsearch.indexer.shared_progress import shared

    with shared(folder / "library", lambda progress: None) as report:
        report(Progress("indexing", 10, 4, 100, 25.0, 12.0))
        running = site.get("/api/library").json()["running"]
    assert (running["videos"], running["videos_done"], running["eta_s"]) == (10, 4, 12.0)
    assert site.get("/api/library").json()["running"] is None


def test_pages_forbid_outside_sources(site: httpx.Client) -> None:
    page = site.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_the_token_opens(guarded: httpx.Client) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": "vsearch_token=wrong"},
        {"cookie": "\x01=;"},
    ):
        for path in ("/", "/api/library", "/media/1", "/openapi.json", "/health"):
            assert guarded.get(path, headers=headers).status_code == 401, (path, headers)
    assert guarded.get("/api/library?token=wrong").status_code == 401
    assert guarded.get("/api/library", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    host = urlsplit(str(guarded.base_url)).netloc
    entered = raw(
        guarded, f"GET //evil.example/?token={TOKEN} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    assert "location: /evil.example/\r\n" in entered  # never to another site
    entry = guarded.get(f"/?q=a&token={TOKEN}")
    assert (entry.status_code, entry.headers["location"]) == (303, "/?q=a")
    assert "HttpOnly" in entry.headers["set-cookie"]
    guarded.cookies.clear()
    cookie = {"cookie": f"vsearch_token={TOKEN}"}
    assert guarded.get("/api/library", headers=cookie).status_code == 200


@pytest.mark.parametrize(
    ("host", "token"), [("0.0.0.0", None), ("example.org", None), ("::", None), ("127.0.0.1", "short")]
)
def test_an_open_door_is_refused(host: str, token: str | None) -> None:
    with pytest.raises(VsearchError, match="token"):
        Access(host, token)


def test_the_command_refuses_an_open_door(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vsearch", "serve", "--host", "0.0.0.0", "--library", str(tmp_path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "give a --token" in done.stderr) == (2, True)


def test_without_a_library_the_page_says_what_to_run(tmp_path: Path) -> None:
    with running(tmp_path / "none") as address:
        assert httpx.get(f"{address}/health").json()["library"] is False
        answer = httpx.get(f"{address}/api/search", params={"q": "a"})
        assert (answer.status_code, "vsearch index" in answer.json()["error"]) == (409, True)
        assert httpx.get(f"{address}/").status_code == 200
    assert not (tmp_path / "none").exists()


def test_the_python_twin_costs_nothing_before_its_use() -> None:
    code = "import sys, vsearch; print(sorted({'torch', 'numpy', 'sqlalchemy', 'gradio'} & set(sys.modules)), vsearch.Library.open)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("[] <bound method Library.open"), done.stdout + done.stderr
