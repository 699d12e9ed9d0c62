"""The page in a real browser, doing what a person does. Skipped where there is no Chromium."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site import QUERY, a_browser, add_clip, h264, make_library, publish, running, shot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with a_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("site")
    return {**make_library(folder), "library": folder / "library"}


@pytest.fixture(scope="module")
def site(ids: dict[str, Any]) -> Iterator[str]:
    with running(ids["library"]) as address:
        yield address


@pytest.fixture
def page(browser: Any, site: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page at desktop size; what it asks of the outside, and its script errors, fail the test."""
    context = browser.new_context(**getattr(request, "param", {"viewport": {"width": 1280, "height": 860}}))
    opened = context.new_page()
    outside: list[str] = []
    faults: list[str] = []
    opened.on(
        "request", lambda r: None if r.url.startswith((site, "data:", "blob:")) else outside.append(r.url)
    )
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(site)
    opened.wait_for_selector("#vs-search[data-ready]")
    yield opened
    context.close()
    assert not outside
    assert not faults


def ask(page: Any, text: str = QUERY) -> None:
    page.fill("#vs-box", text)
    page.press("#vs-box", "Enter")
    page.wait_for_selector(".vs-hit")


def card(page: Any, name: str) -> Any:
    return page.locator(".vs-hit", has_text=name)


def player_time(page: Any) -> float:
    page.wait_for_function(
        "() => { const v = document.querySelector('#vs-video'); return v.readyState >= 2 && !v.seeking; }"
    )
    return page.evaluate("document.querySelector('#vs-video').currentTime")


def keeps_playing(page: Any) -> bool:
    before = player_time(page)
    page.wait_for_function("t => document.querySelector('#vs-video').currentTime > t + 0.3", arg=before)
    return True


def test_search_and_play_at_the_moment(page: Any) -> None:
    ask(page)
    assert "29" in card(page, "late.webm").inner_text()
    shot(page, "search")
    page.evaluate("document.querySelector('#vs-video').play = async () => {}")  # so that it stands still
    card(page, "late.webm").click()
    assert abs(player_time(page) - 29.5) <= 0.5
    page.evaluate("delete document.querySelector('#vs-video').play")
    page.evaluate("document.querySelector('#vs-video').play()")
    assert keeps_playing(page)
    page.wait_for_selector("#vs-curve polygon", state="attached")
    shot(page, "playing")


def test_a_hit_shows_its_own_moment(page: Any) -> None:
    ask(page)
    for name in ("late.webm", "old.avi"):  # no browser plays the second
        picture = card(page, name).locator("img")
        picture.scroll_into_view_if_needed()
        page.wait_for_selector(f'.vs-hit:has-text("{name}") img[alt^="{name} at 0:"]')
        assert picture.get_attribute("src").startswith("/still/")


def test_a_click_on_the_timeline_goes_there(page: Any) -> None:
    ask(page)
    card(page, "late.webm").click()
    player_time(page)
    page.wait_for_selector("#vs-curve polygon", state="attached")
    box = page.locator("#vs-timeline").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 10 / 42, box["y"] + 20)
    page.wait_for_function("() => Math.abs(document.querySelector('#vs-video').currentTime - 10) < 1.5")


def test_a_peak_and_another_moment_can_be_clicked(page: Any) -> None:
    ask(page)
    card(page, "late.webm").click()
    page.wait_for_selector(".vs-peak")
    page.locator(".vs-peak").last.click()
    page.wait_for_function("() => document.querySelector('#vs-video').currentTime >= 29")
    marks = page.locator(".vs-mark").all()
    assert marks[0].get_attribute("aria-label").startswith("Best moment 0:29")


def test_filters_leave_videos_out(page: Any) -> None:
    ask(page)
    every = page.locator(".vs-hit").count()
    page.click("#vs-filters summary")
    page.fill("#vs-longest", "30")
    page.press("#vs-longest", "Tab")
    only = "() => [...document.querySelectorAll('.vs-hit')].map(hit => hit.textContent).join('|')"
    page.wait_for_function(
        f"() => {{ const t = ({only})(); return t.includes('old.avi') && !t.includes('|'); }}"
    )
    other = page.context.new_page()
    other.goto(page.url)  # a link keeps them
    other.wait_for_selector(".vs-hit")
    assert (other.locator(".vs-hit").count(), other.input_value("#vs-longest")) == (1, "30")
    page.click("#vs-clear")
    page.wait_for_function("n => document.querySelectorAll('.vs-hit').length === n", arg=every)


def test_what_no_browser_plays_comes_as_a_preview(page: Any) -> None:
    ask(page)
    card(page, "old.avi").click()
    assert keeps_playing(page)
    assert "/clip/" in page.get_attribute("#vs-video", "src")
    assert 11 <= float(page.input_value("#vs-in")) <= 13


def test_more_like_this(page: Any) -> None:
    ask(page)
    card(page, "early.mp4").click()
    player_time(page)
    page.click("#vs-like")
    page.wait_for_function("() => document.querySelector('#vs-note').textContent.includes('pictures like')")
    assert page.locator(".vs-hit").count() >= 3


def test_similar_from_a_hit(page: Any) -> None:
    ask(page)
    page.locator("li", has_text="early.mp4").locator(".vs-sim").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#vs-note').textContent.includes('like early.mp4')")
    assert "like=" in page.url


def test_a_share_link_gives_the_same_answer_and_moment(page: Any, site: str) -> None:
    ask(page)
    card(page, "late.webm").click()
    player_time(page)
    page.click("#vs-share")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#vs-player:not([hidden])")
    assert 29 <= player_time(other) <= 33
    assert other.locator(".vs-hit").count() == page.locator(".vs-hit").count()


def test_a_clip_can_be_saved(page: Any) -> None:
    ask(page)
    card(page, "early.mp4").click()
    page.fill("#vs-in", "1")
    page.fill("#vs-out", "2.5")
    page.press("#vs-out", "Tab")
    with page.expect_download() as saved:
        page.click("#vs-save")
    assert saved.value.path().read_bytes()[4:8] == b"ftyp"


def test_keyboard_alone(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".vs-hit")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("[...document.querySelectorAll('.vs-hit')].indexOf(document.activeElement)") == 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#vs-player:not([hidden])")
    page.keyboard.press("Escape")
    assert page.locator("#vs-player").is_hidden()


def test_names_are_text_never_markup(page: Any) -> None:
    ask(page)
    name = '"><img src=x onerror=document.title="owned">.mp4'
    hostile = card(page, "onerror")
    assert name in hostile.inner_text()
    hostile.click()
    player_time(page)
    assert name in page.locator("#vs-title").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "vsearch"


@pytest.mark.parametrize("page", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_phone_width(page: Any) -> None:
    ask(page)
    card(page, "late.webm").click()
    player_time(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, "phone")


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"}], indirect=True
)
def test_dark(page: Any) -> None:
    ask(page)
    dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every((c) => c < 80)"
    light = "getComputedStyle(document.querySelector('.vs-name')).color.match(/\\d+/g).slice(0, 3).every((c) => c > 180)"
    assert page.evaluate(dark)
    assert page.evaluate(light)
    shot(page, "dark")


def test_library_tab_tells_its_state(page: Any) -> None:
    page.get_by_role("tab", name="Library").click()
    page.wait_for_selector("#vs-state dd")
    assert "4 indexed, 1 failed" in page.locator("#vs-state").inner_text()
    assert "no known container" in page.locator("#vs-troubled").inner_text()
    assert page.locator("#vs-retry").is_visible()
    shot(page, "library")


def test_localize_tab_shows_bars(page: Any, ids: dict[str, Any]) -> None:
    import numpy as np

    from tests.site import AXES
    from vsearch.library import Library
    from vsearch.retriever.actions.videos import TEMPLATES, cache_key

    with Library.open(ids["library"]) as library:
        (encoder,) = library.encoders()
        for name, axis in (("starting", 0), ("waiting", 2)):
            library.cache_text(encoder.id, cache_key(TEMPLATES, name), np.tile(AXES[axis], len(TEMPLATES)))
    page.get_by_role("tab", name="Localize").click()
    page.wait_for_selector("#vs-lvideo option", state="attached")
    page.select_option("#vs-lvideo", str(ids["early"]))
    page.fill("#vs-lactions", "starting, waiting")
    page.press("#vs-lactions", "Enter")
    page.wait_for_selector(".vs-track button")
    assert page.locator(".vs-row").all_inner_texts()
    shot(page, "localize")
    page.locator(".vs-track button").first.click(position={"x": 2, "y": 8})
    page.wait_for_selector("#vs-player:not([hidden])")


def test_a_thousand_hits_are_paged(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.media import write_video
    from vsearch.library import Library

    monkeypatch.setattr(os, "fsync", lambda fd: None)  # half of the time that a thousand small files take
    first = write_video(tmp_path / "0000.mp4", frames=20, fps=10)
    with Library.open(tmp_path / "library", create=True) as library, library.writing():
        for i in range(1000):
            file = tmp_path / f"{i:04d}.mp4"
            if i:
                os.link(first, file)
            add_clip(library, file, [0, 1], h264(2), content=f"c{i}", poster=False)
        publish(library)
    with running(tmp_path / "library") as address:
        page = browser.new_page()
        page.goto(f"{address}/?q=the+thing&n=1000")
        page.wait_for_selector(".vs-hit", timeout=60_000)
        assert page.locator("#vs-note").inner_text().startswith("1000 videos")
        assert page.locator(".vs-hit").count() == 60
        page.click("#vs-more")
        assert page.locator(".vs-hit").count() == 120
        page.close()
