"""The Library tab with a real head to adopt, and the way back."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.indexer.test_adopt import checkpoint, fill
from tests.site import a_browser, running, shot
from tests.towers import write_model
from vsearch.library import Library

pytestmark = pytest.mark.slow


def test_a_head_is_adopted_and_taken_back_on_the_page(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    checkpoint(tmp_path / "heads" / "my run", model, "clip4clip")
    with Library.open(tmp_path / "library", create=True) as library:
        fill(library, model, 3)
        former = library.encoder(library.encoders()[0].id).head
    with running(tmp_path / "library", heads=tmp_path / "heads") as address, a_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(address)
        page.get_by_role("tab", name="Library").click()
        page.wait_for_selector("#vs-heads option", state="attached")
        assert page.locator("#vs-heads").inner_text() == "my run"
        page.click("#vs-adopt")
        page.wait_for_selector("#vs-rollback:visible", timeout=60_000)
        shot(page, "heads")
        page.wait_for_function("() => document.querySelector('#vs-work').textContent.includes('done')")
        assert httpx.get(f"{address}/api/library").json()["head"].startswith("clip4clip")
        page.click("#vs-rollback")
        page.wait_for_function(
            "head => document.querySelector('#vs-state').textContent.includes(head)", arg=former
        )
        assert httpx.get(f"{address}/api/library").json()["head"] == former
