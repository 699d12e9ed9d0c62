"""The page shows the right video at the right time, by the right name, or says why not; in a real browser."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import read_barcode, write_video
from tests.site import QUERY, a_browser, a_poster, add_clip, h264, publish, running
from tests.words import give_words
from vsearch.library import Library
from vsearch.records import MediaInfo

pytestmark = pytest.mark.slow
WIDE, TALL = (240, 120), (120, 160)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with a_browser() as opened:
        yield opened


def library_of(folder: Path, *files: Path, media: MediaInfo | None = None, poster: bytes = b"") -> Path:
    with Library.open(folder, create=True) as library:
        for file in files:
            add_clip(library, file, [0] * 20, media or h264(20), poster=poster or True)
        publish(library)
    return folder


def opened(browser: Any, address: str, rest: str = "") -> Any:
    """A page with the answer to QUERY, whose videos stand still."""
    page = browser.new_page()
    page.add_init_script("HTMLMediaElement.prototype.play = async () => {}")
    page.goto(f"{address}/?q=the+thing{rest}")
    page.wait_for_selector(".vs-hit")
    return page


def shape(page: Any, selector: str, width: str = "naturalWidth", height: str = "naturalHeight") -> float:
    page.wait_for_function(f"() => document.querySelector('{selector}').{width} > 0")
    return page.evaluate(f"(e => e.{width} / e.{height})(document.querySelector('{selector}'))")


def test_a_second_library_on_the_same_port_never_shows_the_first_ones_pictures(
    browser: Any, tmp_path: Path
) -> None:
    context, port = browser.new_context(), 0
    for name, size in (("a", WIDE), ("b", TALL)):
        file = write_video(
            tmp_path / f"{name}.mp4", frames=200, fps=10, size=size, muxer={"movflags": "faststart"}
        )
        library = library_of(tmp_path / name, file, poster=a_poster(size))
        with running(library, port=port) as address:
            port = int(address.rpartition(":")[2])
            page = opened(context, address)
            expected = pytest.approx(size[0] / size[1], rel=0.05)
            assert shape(page, ".vs-hit img") == expected
            page.wait_for_selector('.vs-hit img[alt*=" at "]')
            assert shape(page, ".vs-hit img") == expected
            page.click(".vs-hit")
            assert shape(page, "#vs-video", "videoWidth", "videoHeight") == expected
            bare = page.evaluate(
                "async () => { const i = new Image(); i.src = '/thumb/1'; await i.decode(); return i.naturalWidth / i.naturalHeight; }"
            )
            assert bare == expected
            page.close()
    context.close()


def picture_shown(page: Any) -> int:
    """The number drawn in what the player shows."""
    page.wait_for_function(
        "() => { const v = document.querySelector('#vs-video'); return v.readyState >= 2 && !v.seeking; }"
    )
    size, pixels = page.evaluate("""() => {
        const v = document.querySelector('#vs-video'), c = document.createElement('canvas');
        const side = Math.min(c.width = v.videoWidth, c.height = v.videoHeight), brush = c.getContext('2d');
        brush.drawImage(v, 0, 0);
        return [side, Array.from(brush.getImageData((c.width - side) / 2, (c.height - side) / 2, side, side).data)];
    }""")
    return read_barcode(np.array(pixels, np.uint8).reshape(size, size, 4)[..., :3])


@pytest.mark.parametrize("start_s", [0.0, 7.0])
def test_the_player_shows_the_picture_that_the_index_calls_that_time(
    browser: Any, tmp_path: Path, start_s: float
) -> None:
    file = write_video(tmp_path / "one.webm", "libvpx-vp9", frames=200, fps=10, start_s=start_s)
    media = MediaInfo("matroska,webm", "vp9", 160, 120, 0, 20_000, 10.0, round(1000 * start_s))
    with running(library_of(tmp_path / "library", file, media=media)) as address:
        for t in (5.0, 12.3):
            page = opened(browser, address, f"&v=1&t={t}&e={t + 1}")
            page.wait_for_selector("#vs-player:not([hidden])")
            assert picture_shown(page) == round(10 * t)
            page.wait_for_function(
                f"() => document.querySelector('#vs-time').textContent === '0:{int(t):02d}'"
            )
            page.close()


def test_names_are_shown_letter_by_letter(browser: Any, tmp_path: Path) -> None:
    first = write_video(tmp_path / "rtl \u202egpj.exe.mp4", frames=200, fps=10)
    second = tmp_path / "back\\slash.mp4"
    second.write_bytes(first.read_bytes() + b"\0\0\0\x08free")
    with running(library_of(tmp_path / "library", first, second)) as address:
        page = opened(browser, address)
        names = page.locator(".vs-name").all_inner_texts()
        assert sorted(names) == ["back\\slash.mp4", "rtl \\u202egpj.exe.mp4"]
        page.locator(".vs-hit", has_text="gpj").click()
        page.wait_for_selector("#vs-player:not([hidden])")
        assert "\u202e" not in page.locator("body").inner_text() + page.locator("#vs-where").inner_text()
        page.close()


def test_what_is_unlikely_is_folded_away(browser: Any, tmp_path: Path) -> None:
    shows, other = (write_video(tmp_path / f"{name}.mp4", frames=200, fps=10) for name in ("shows", "other"))
    with Library.open(tmp_path / "library", create=True) as library:
        add_clip(library, shows, [0] * 20, h264(20))
        add_clip(library, other, [3] * 20, h264(20), content="other")
        publish(library)
        give_words(library)
    with running(tmp_path / "library") as address:
        page = opened(browser, address)
        assert page.locator(".vs-name").all_inner_texts() == ["shows.mp4"]
        assert page.locator("#vs-note").inner_text().startswith("1 video for")
        page.click("#vs-more:has-text('Show 1 unlikely')")
        assert page.locator(".vs-name").all_inner_texts() == ["shows.mp4", "other.mp4"]
        assert page.locator("#vs-more").is_hidden()
        page.close()


def test_the_player_says_the_true_reason(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vsearch import indexer
    from vsearch.errors import MediaError

    file = write_video(tmp_path / "one.mp4", frames=200, fps=10)
    other = write_video(tmp_path / "two.avi", "mpeg4", frames=200, fps=10)
    with Library.open(tmp_path / "library", create=True) as library:
        add_clip(library, file, [0] * 20, h264(20))
        avi = dataclasses.replace(h264(20), container="avi", codec="mpeg4")
        add_clip(library, other, [0] * 20, avi)
        publish(library)

    def fails(*order: object) -> None:
        raise MediaError("this one cannot be cut")

    said = "text => document.querySelector('#vs-said').textContent.includes(text)"
    with running(tmp_path / "library") as address:
        page = opened(browser, address)
        with monkeypatch.context() as patched:
            patched.setattr(indexer, "export_clip", fails)
            page.locator(".vs-hit", has_text="two.avi").click()
            page.wait_for_function(said, arg="this one cannot be cut")
            page.fill("#vs-out", "3.5")
            page.fill("#vs-in", "3")
            page.click("#vs-save")
            page.wait_for_function(
                "() => document.querySelector('#vs-length').textContent.includes('cannot be cut')"
            )
        file.unlink()
        page.locator(".vs-hit", has_text="one.mp4").click()
        page.wait_for_function(said, arg="changed or gone")
        page.close()


def test_what_this_browser_cannot_play_comes_as_a_preview(browser: Any, tmp_path: Path) -> None:
    file = write_video(tmp_path / "one.mp4", "mpeg4", frames=200, fps=10)  # the catalogue says H.264
    with running(library_of(tmp_path / "library", file)) as address:
        page = opened(browser, address, "&v=1&t=12&e=13")
        page.wait_for_function("() => document.querySelector('#vs-video').src.includes('/clip/')")
        assert picture_shown(page) == 120
        page.close()


def test_sound_that_could_not_be_had_is_told_with_the_preview_and_the_clip(
    browser: Any, tmp_path: Path
) -> None:
    file = write_video(tmp_path / "one.mkv", frames=60, fps=10, audio_s=6)
    file.write_bytes(file.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    media = MediaInfo("matroska", "h264", 160, 120, 0, 6_000, 10.0)
    with Library.open(tmp_path / "library", create=True) as library:
        add_clip(library, file, [0] * 6, media)
        publish(library)
    with running(tmp_path / "library") as address:
        page = opened(browser, address, "&v=1&t=1&e=3")
        told = "id => document.querySelector(id).textContent.includes('without sound')"
        page.wait_for_function(told, arg="#vs-said")
        page.click("#vs-save")
        page.wait_for_function(told, arg="#vs-length")
        page.close()


def test_a_clip_outside_the_video_cannot_be_saved(browser: Any, tmp_path: Path) -> None:
    file = write_video(tmp_path / "one.mp4", frames=200, fps=10)
    with running(library_of(tmp_path / "library", file)) as address:
        page = opened(browser, address)
        page.click(".vs-hit")
        page.wait_for_selector("#vs-player:not([hidden])")
        for start, end, fine in (
            ("1", "2", True),
            ("-5", "2", False),
            ("1", "59", False),
            ("", "2", False),
            ("3", "2", False),
        ):
            page.fill("#vs-in", start)
            page.fill("#vs-out", end)
            assert (page.get_attribute("#vs-save", "href") is not None) == fine, (start, end)
        page.close()


@contextlib.contextmanager
def another_site() -> Iterator[str]:
    """The address of an empty page on another host, with no rules of its own."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body></body>")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def test_another_site_in_the_browser_learns_nothing(browser: Any, tmp_path: Path) -> None:
    file = write_video(tmp_path / "one.mp4", frames=200, fps=10)
    with running(library_of(tmp_path / "library", file)) as address, another_site() as other:
        page = browser.new_page()
        page.goto(other)
        for element, path, good in (
            ("img", "/thumb/1", "onload"), ("video", "/media/1", "onloadedmetadata"), ("img", "/still/1?t=1", "onload"),
            ("link", "/page/page.css", "onload"), ("script", "/page/common.js", "onload"),
        ):  # fmt: skip
            assert page.evaluate(
                """([element, address, good]) => new Promise((done) => {
                    const e = document.createElement(element);
                    e[good] = () => done('learned'); e.onerror = () => done('refused');
                    if (element === 'link') { e.rel = 'stylesheet'; e.href = address; } else e.src = address;
                    document.body.append(e);
                })""",
                [element, address + path, good],
            ) == "refused", path  # fmt: skip
        assert page.goto(f"{address}/?q={QUERY}").ok  # a link there still leads here
        page.close()
