"""The Gradio page: its frame and tabs. What moves in it is assets/page.js, which asks the API.

Every name is put on the page as text by that script, never as markup.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

HEAD = (
    '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="data:,"><link rel="stylesheet" href="/page/page.css">'
    '<script type="module" src="/page/page.js"></script>'
)
TABS = ("Search", "Localize", "Library")  # assets/<name in small letters>.html


def mount_page(app: FastAPI) -> FastAPI:
    """The application with the page at its root. Gradio is told to ask nothing of the outside."""
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
    return gr.mount_gradio_app(
        app, page, path="", footer_links=[], theme=theme, head=HEAD, ssr_mode=False, max_file_size=1,
        show_error=False, allowed_paths=[], enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip
