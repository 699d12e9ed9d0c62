"""Search by picture and by clip, with the built-in model; what an upload may not be."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.site import a_browser, running, shot
from vsearch.indexer import IndexOptions, index_videos

SIZE = (192, 128)
pytestmark = pytest.mark.slow


def scene(name: str) -> Any:
    """A red disc on green, or blue stripes, as a PIL image."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, "forestgreen" if name == "disc" else "white")
    draw = ImageDraw.Draw(image)
    if name == "disc":
        draw.ellipse((60, 28, 132, 100), fill="red")
    else:
        for x in range(0, SIZE[0], 24):
            draw.rectangle((x, 0, x + 11, SIZE[1]), fill="blue")
    return image


def film(path: Path, name: str, seconds: int = 3) -> Path:
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(5 * seconds):
            out.mux(stream.encode(av.VideoFrame.from_image(scene(name))))
        out.mux(stream.encode())
    return path


def jpeg(name: str) -> bytes:
    out = io.BytesIO()
    scene(name).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for name in ("disc", "stripes"):
        film(folder / f"{name}.mp4", name)
    index_videos(folder / "library", [folder], IndexOptions(workers=1), lambda progress: None)
    return folder


@pytest.fixture(scope="module")
def address(videos: Path) -> Iterator[str]:
    with running(videos / "library") as address:
        yield address


@pytest.fixture(scope="module")
def site(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def best_for(site: httpx.Client, body: bytes) -> str:
    look = site.post("/api/look", content=body)
    assert look.status_code == 200, look.text
    return Path(site.get("/api/search", params=look.json()).json()["hits"][0]["path"]).name


def test_a_picture_finds_its_video_and_leaves_no_file(site: httpx.Client) -> None:
    before = set(Path(tempfile.gettempdir()).glob("vsearch-upload-*"))
    assert best_for(site, jpeg("disc")) == "disc.mp4"
    assert best_for(site, jpeg("stripes")) == "stripes.mp4"
    assert set(Path(tempfile.gettempdir()).glob("vsearch-upload-*")) <= before


def test_a_clip_finds_its_video_and_its_timeline(site: httpx.Client, tmp_path: Path) -> None:
    body = film(tmp_path / "mine.mp4", "stripes", seconds=1).read_bytes()
    assert best_for(site, body) == "stripes.mp4"
    look = site.post("/api/look", content=body).json()["look"]
    points = [site.get(f"/api/timeline/{i}", params={"look": look}).json()["points"] for i in (1, 2)]
    assert np.mean([p["score"] for p in points[1]]) > np.mean([p["score"] for p in points[0]])


def asked_while(waiting: Any, began: threading.Event, go: threading.Event, site: httpx.Client, sentence: str) -> Any:  # fmt: skip
    """The answer to `waiting`, which is held up until a sentence that nobody has asked before is answered."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waiting)
        try:
            assert began.wait(60)
            assert site.get("/api/search", params={"q": sentence}, timeout=30).status_code == 200
        finally:
            go.set()
        return answer.result(60)


def test_new_sentences_are_answered_while_an_upload_is_decoded(
    site: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vsearch.indexer.still as still

    began, go, read_still = threading.Event(), threading.Event(), still.read_still

    def slow(*order: Any) -> Any:
        began.set()
        go.wait(120)
        return read_still(*order)

    monkeypatch.setattr(still, "read_still", slow)
    upload = lambda: site.post("/api/look", content=jpeg("disc"), timeout=120)  # noqa: E731
    assert asked_while(upload, began, go, site, "blue lines beside one another").status_code == 200


def test_new_sentences_are_answered_while_actions_are_located(
    site: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsearch.retriever.actions import videos as actions

    began, go, localize = threading.Event(), threading.Event(), actions.localize

    def slow(*order: Any) -> Any:
        began.set()
        go.wait(120)
        return localize(*order)

    monkeypatch.setattr(actions, "localize", slow)
    ask = lambda: site.get("/api/localize", params={"video": 1, "actions": "a disc"}, timeout=120)  # noqa: E731
    assert asked_while(ask, began, go, site, "a round thing on a meadow").status_code == 200
    for format, kind in (("csv", "text/csv"), ("srt", "application/x-subrip"), ("vtt", "text/vtt")):
        saved = site.get("/api/localize", params={"video": 1, "actions": "a disc", "format": format})
        assert saved.headers["content-type"] == f"{kind}; charset=utf-8"


def test_see_through_pictures_stand_on_white() -> None:
    from vsearch.indexer import is_picture, read_still
    from vsearch.indexer.decode import FrameShape

    with tempfile.TemporaryDirectory() as folder:
        from PIL import Image

        path = Path(folder) / "clear.png"
        Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(path)
        assert is_picture(path)
        assert read_still(path, FrameShape(16)).min() >= 250


HOSTILE = {
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "script": b"<script>alert(1)</script>",
    "empty": b"",
    "half a jpeg": b"\xff\xd8\xff\xe0 not really",
    "a gif that lies": b"GIF89a\xff\xff\xff\xff\x00\x00\x00",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_picture_is_refused_in_words(site: httpx.Client, body: bytes) -> None:
    answer = site.post("/api/look", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert "/tmp" not in answer.text
    assert "root:" not in answer.text
    assert site.get("/health").status_code == 200


def test_a_picture_of_too_many_pixels_is_refused(site: httpx.Client) -> None:
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    assert site.post("/api/look", content=out.getvalue()).status_code == 422


def test_the_twin_in_python_answers_the_same(site: httpx.Client, videos: Path) -> None:
    from vsearch import Library

    with Library.open(videos / "library") as library:
        answer = library.search("a red circle on green", number=2)
        assert library.similar("disc.mp4", 1.0).hits[0].path.endswith("stripes.mp4")
    over_http = site.get("/api/search", params={"q": "a red circle on green", "n": 2}).json()
    assert [hit["path"] for hit in over_http["hits"]] == [hit.path for hit in answer.hits]
    assert over_http["hits"][0]["score"] == pytest.approx(answer.hits[0].score, abs=1e-6)


def test_upload_in_the_browser(address: str) -> None:
    with a_browser() as browser:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#vs-search[data-ready]")
        page.set_input_files(
            "#vs-file", {"name": "my <b>disc</b>.jpg", "mimeType": "image/jpeg", "buffer": jpeg("disc")}
        )
        page.wait_for_selector(".vs-hit")
        assert "disc.mp4" in page.locator(".vs-hit").first.inner_text()
        assert "my <b>disc</b>.jpg" in page.locator("#vs-note").inner_text()
        shot(page, "upload")
