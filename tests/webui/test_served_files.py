"""Videos, posters and clips by HTTP: addresses that name content, ranges, what is not there any more."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.media import write_video
from tests.site import QUERY, add_clip, h264, publish, running
from vsearch.library import Library
from vsearch.webui.http.sending import UNSATISFIABLE, parse_range

pytestmark = pytest.mark.slow  # Gradio takes seconds to import


def addresses(site: httpx.Client, id: int) -> dict[str, str]:
    content = site.get(f"/api/videos/{id}").json()["video"]["content"]
    return {
        kind: f"/{kind}/{id}?v={content}{more}"
        for kind, more in (("media", ""), ("thumb", ""), ("clip", "&start=1&end=2"))
    }


def test_hits_carry_the_content_that_addresses_name(site: httpx.Client, ids: dict[str, int]) -> None:
    hits = site.get("/api/search", params={"q": QUERY}).json()["hits"]
    for hit in hits:
        assert hit["content"] == site.get(f"/api/videos/{hit['video']}").json()["video"]["content"]
        assert (
            site.get(f"/media/{hit['video']}?v={hit['content']}", headers={"range": "bytes=0-0"}).status_code
            == 206
        )


@pytest.mark.parametrize("kind", ["media", "thumb", "clip"])
def test_an_address_names_content_and_only_such_may_be_kept(
    site: httpx.Client, ids: dict[str, int], kind: str
) -> None:
    address, other = (addresses(site, ids[name])[kind] for name in ("early", "old"))
    named = site.get(address)
    assert (named.status_code, named.headers["cache-control"]) == (200, "private, no-cache")
    assert named.headers["etag"].startswith('"')
    assert named.headers["etag"] != site.get(other).headers["etag"]
    bare = site.get(address.replace("v=", "x="))
    assert (bare.content, bare.headers["cache-control"]) == (named.content, "no-store")
    wrong = site.get(other.replace(f"/{ids['old']}?", f"/{ids['early']}?"))
    assert (wrong.status_code, "another one" in wrong.json()["error"]) == (404, True)
    assert "max-age" not in str(named.headers) + str(bare.headers)


@pytest.mark.parametrize("kind", ["media", "thumb", "clip"])
def test_what_is_known_is_not_sent_again(site: httpx.Client, ids: dict[str, int], kind: str) -> None:
    address = addresses(site, ids["early"])[kind]
    first = site.get(address)
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for header, value, status in (
        ("if-none-match", tag, 304), ("if-none-match", f'"x", W/{tag}', 304), ("if-none-match", "*", 304),
        ("if-none-match", '"x"', 200), ("if-modified-since", date, 304),
        ("if-modified-since", "Mon, 01 Jan 2001 00:00:00 GMT", 200), ("if-modified-since", "soon", 200),
        ("if-match", '"x"', 412), ("if-match", tag, 200), ("if-match", f"W/{tag}", 412),
        ("if-unmodified-since", "Mon, 01 Jan 2001 00:00:00 GMT", 412),
    ):  # fmt: skip
        answer = site.get(address, headers={header: value})
        assert answer.status_code == status, (header, value)
        assert answer.headers["etag"] == tag
        assert (answer.content == b"") == (status == 304)
    both = {"if-none-match": '"x"', "if-modified-since": date}  # the tag decides
    assert site.get(address, headers=both).status_code == 200


def test_a_still_is_the_picture_at_its_time(site: httpx.Client, ids: dict[str, int]) -> None:
    import io

    import numpy as np
    from PIL import Image

    from tests.media import read_barcode

    for name in ("early", "old"):
        address = addresses(site, ids[name])["media"].replace("/media/", "/still/")
        answer = site.get(f"{address}&t=12.3")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        assert answer.headers["cache-control"] == "private, no-cache"
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
        left = (pixels.shape[1] - pixels.shape[0]) // 2
        assert read_barcode(pixels[:, left : left + pixels.shape[0]]) == 123
        again = site.get(f"{address}&t=12.3", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert site.get(f"/still/{ids['early']}?t=12.3").headers["cache-control"] == "no-store"
    assert site.get(f"/still/{ids['early']}?t=1&v=other").status_code == 404


def test_ranges_of_a_file(site: httpx.Client, folder: Path, ids: dict[str, int]) -> None:
    content = (folder / "videos" / "early.mp4").read_bytes()
    address, size = addresses(site, ids["early"])["media"], len(content)
    tag = site.get(address).headers["etag"]

    def part(**headers: str) -> httpx.Response:
        return site.get(address, headers={name.replace("_", "-"): value for name, value in headers.items()})

    for header, first, last in (
        ("bytes=0-0", 0, 0), ("bytes=5-", 5, size - 1), ("bytes=-7", size - 7, size - 1), ("Bytes=1-2,", 1, 2),
        (f"bytes=-{size + 9}", 0, size - 1), (f"bytes=3-{'9' * 5000}", 3, size - 1),
    ):  # fmt: skip
        answer = part(range=header)
        assert (answer.status_code, answer.content) == (206, content[first : last + 1]), header[:40]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for header in ("items=0-5", "bytes=a-b", "bytes=0-1,4-5", "bytes=9-1", "bytes=-", "bytes", "", "bytes=--1", "bytes=0x1-2",
                   "bytes=" + ",".join(["0-1"] * 1000)):  # fmt: skip
        answer = part(range=header)
        assert (answer.status_code, answer.content) == (200, content), header[:40]
        assert "content-range" not in answer.headers
    for header in (f"bytes={size}-", "bytes=-0", f"bytes={'9' * 5000}-", f"bytes={size}-{size + 5}"):
        answer = part(range=header)
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}"), header[:40]
        assert answer.json()["error"]
    assert part(range="bytes=0-3", if_range=tag).status_code == 206
    for other in ('"wrong"', f"W/{tag}", "Mon, 01 Jan 2001 00:00:00 GMT"):
        answer = part(range="bytes=0-3", if_range=other)
        assert (answer.status_code, answer.content) == (200, content), other
        assert part(range=f"bytes={size}-", if_range=other).status_code == 200


def test_ranges_of_nothing() -> None:
    assert parse_range("bytes=0-", 0) == parse_range("bytes=-1", 0) == UNSATISFIABLE
    assert parse_range("lines=0-", 0) is None


def test_no_file_stays_open_when_askers_leave(site: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from vsearch.webui.http import sending

    kept: list[object] = []  # so that no garbage collector closes them for us
    init = sending._OpenFile.__init__

    def noted(self: sending._OpenFile, file: object, *rest: object) -> None:
        kept.append(file)
        init(self, file, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sending._OpenFile, "__init__", noted)
    big = tmp_path / "videos" / "big.mp4"
    big.parent.mkdir()
    write_video(big, frames=20, fps=10)
    with big.open("ab") as file:
        file.truncate(200_000_000)
    with Library.open(tmp_path / "library", create=True) as library:
        video = add_clip(library, big, [0, 1], h264(2), content="big")
        publish(library)
    with running(tmp_path / "library") as address:
        where = urlsplit(address)
        for method in ("GET", "GET", "GET", "HEAD"):
            with socket.create_connection((where.hostname or "", where.port or 0)) as asker:
                asker.sendall(f"{method} /media/{video} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
                assert asker.recv(1000).startswith(b"HTTP/1.1 200")
        until = time.monotonic() + 30
        while not all(file.closed for file in kept) and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.05)
        assert len(kept) == 4
        assert all(file.closed for file in kept)  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["a link in a parent folder", "a file of the same size and time"])
def test_other_content_of_the_same_size_and_time_is_not_served(tmp_path: Path, way: str) -> None:
    (tmp_path / "videos" / "inner").mkdir(parents=True)
    file = write_video(tmp_path / "videos" / "inner" / "one.mp4", frames=20, fps=10)
    os.utime(file, (1e9, 1e9))
    with Library.open(tmp_path / "library", create=True) as library:
        video = add_clip(library, file, [0, 1], h264(2))
        publish(library)
    time.sleep(2.1)  # the catalogue's clock counts whole seconds
    with running(tmp_path / "library") as address:
        right = file.read_bytes()
        assert httpx.get(f"{address}/media/{video}").content == right
        wrong = bytes(len(right))
        if way.startswith("a link"):
            shutil.move(file.parent, tmp_path / "moved")
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "one.mp4").write_bytes(wrong)
            os.utime(elsewhere / "one.mp4", (1e9, 1e9))
            (tmp_path / "videos" / "inner").symlink_to(elsewhere)
        else:
            file.write_bytes(wrong)
            os.utime(file, (1e9, 1e9))
        for path in (f"/media/{video}", f"/clip/{video}?start=0&end=1"):
            assert httpx.get(address + path).status_code == 404


def test_a_preview_that_makes_room_is_made_again(
    folder: Path, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsearch.webui import media

    previews = media.Previews()
    with Library.open(folder / "library") as library:
        video = library.videos_of([ids["early"]])[ids["early"]]
    asked: list[bytes] = []
    monkeypatch.setattr(media, "MAX_PREVIEWS", 0)  # whatever is made goes at the next
    threads = [
        threading.Thread(
            target=lambda i=i: asked.append(previews.get(video, 1000 * (i % 3), 5000)[0].read(8))
        )
        for i in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [head[4:] for head in asked] == [b"ftyp"] * 9
    previews.close()


def test_a_library_made_again_is_noticed_and_a_deleted_one_too(tmp_path: Path) -> None:
    def made(name: str) -> None:
        with Library.open(tmp_path / "library", create=True) as library:
            add_clip(library, write_video(tmp_path / name, frames=20, fps=10, gop=len(name)), [0, 1], h264(2))
            publish(library)

    def shown() -> list[str]:
        listed = httpx.get(f"{address}/api/videos").json()["videos"]
        found = httpx.get(f"{address}/api/search", params={"q": QUERY}).json()["hits"]
        assert [v["path"] for v in listed] == [hit["path"] for hit in found]
        assert httpx.get(f"{address}/thumb/1").content.startswith(b"\xff\xd8")
        return [Path(v["path"]).name for v in listed]

    made("first.mp4")
    with running(tmp_path / "library") as address:
        assert shown() == ["first.mp4"]
        for _ in range(2):
            shutil.rmtree(tmp_path / "library")
            for path in ("/api/videos", f"/api/search?q={QUERY}", "/api/library", "/thumb/1", "/media/1"):
                answer = httpx.get(address + path)
                assert (answer.status_code, "vsearch index" in answer.json()["error"]) == (409, True), path
            made("second.mp4")
            assert shown() == ["second.mp4"]
        shutil.rmtree(tmp_path / "library")  # nobody asks in between
        made("third.mp4")
        assert shown() == ["third.mp4"]


def test_maps_are_opened_once_a_generation_however_many_ask(
    site: httpx.Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vsearch.library.catalogue.reading as reading

    opened, inside, most = [], [], []
    open_index = reading.open_index

    def slow(path: Path, generation: object) -> object:
        opened.append(generation)
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return open_index(path, generation)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "open_index", slow)
    with running(folder / "library") as address:
        threads = [
            threading.Thread(target=httpx.get, args=(f"{address}/api/search?q={QUERY}",)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(opened), max(most)) == (1, 1)
