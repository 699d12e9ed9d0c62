"""The Gradio page: its frame and tabs. What moves in it is assets/page.js, which asks the API.

Every name is put on the page as text by that script, never as markup.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from vsearch.webui.http import Asgi, Receive, Scope, Send, refusal

HEAD = (
    '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="data:,"><link rel="stylesheet" href="/page/page.css">'
    '<script type="module" src="/page/page.js"></script>'
)
PAGE, PARTS = ("/", "/theme.css"), ("/assets/", "/static/")  # what of Gradio the page needs
TABS = ("Search", "Localize", "Library")  # assets/<name in small letters>.html


def with_page(api: FastAPI) -> Asgi:
    """The application with the page at its root. Gradio is told to ask nothing of the outside, and gets to see no
    request but those for the page and its parts."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gradio as gr

    assets = Path(__file__).parent / "assets"
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    with gr.Blocks(analytics_enabled=False, title="vsearch", fill_width=True) as page, gr.Tabs():
        for name in TABS:
            with gr.Tab(name):
                gr.HTML((assets / f"{name.lower()}.html").read_text(encoding="utf-8"), js_on_load=None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with api.router.lifespan_context(api):
            yield

    site = FastAPI(lifespan=lifespan, openapi_url=None)
    gr.mount_gradio_app(
        site, page, path="", footer_links=[], theme=theme, head=HEAD, ssr_mode=False, max_file_size=1,
        show_error=False, allowed_paths=[], enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, ours = scope["path"], site
            if path not in PAGE and not path.startswith(PARTS):
                ours = api
            elif scope["method"] != "GET":
                no = refusal(405, "ask this address with GET, HEAD", {"allow": "GET, HEAD"})
                return await no(scope, receive, send)
            return await ours(scope, receive, send)
        await site(scope, receive, send)

    return either
