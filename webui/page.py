"""The Gradio page: its frame and tabs. What moves in it is assets/page.js, which asks the API.

Every name is put on the page as text by that script, never as markup.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

HEAD = (
    '<meta name="referrer" content="no-referrer">'
    '<link rel="stylesheet" href="/page/page.css"><script src="/page/page.js" defer></script>'
)
SEARCH = """
<section id="vs-search" aria-label="Search">
  <form id="vs-form" role="search">
    <label class="vs-hidden" for="vs-box">What should be seen?</label>
    <input id="vs-box" type="search" maxlength="500" autocomplete="off" placeholder="Describe what is to be seen: a dog running on grass">
    <label class="vs-hidden" for="vs-number">Number of videos</label>
    <select id="vs-number"><option>24</option><option>100</option><option>300</option><option>1000</option></select>
    <button type="submit">Search</button>
  </form>
  <p id="vs-note" role="status" aria-live="polite"></p>
  <div id="vs-player" hidden>
    <video id="vs-video" controls playsinline preload="metadata"></video>
    <svg id="vs-timeline" viewBox="0 0 1000 60" preserveAspectRatio="none" role="img" aria-label="How well each part of the video fits"></svg>
    <div class="vs-bar"><strong id="vs-title"></strong>
      <label>in <input id="vs-in" type="number" min="0" step="0.1"></label>
      <label>out <input id="vs-out" type="number" min="0" step="0.1"></label>
      <a id="vs-save" download>Save clip</a>
      <button id="vs-like" type="button">More like this</button>
      <button id="vs-share" type="button">Copy link</button>
      <button id="vs-close" type="button">Close</button>
    </div>
  </div>
  <ol id="vs-hits"></ol>
  <button id="vs-more" type="button" hidden>Show more</button>
</section>
"""
LOCALIZE = """
<section id="vs-localize" aria-label="Localize">
  <form id="vs-lform">
    <label>Video <select id="vs-lvideo"></select></label>
    <label>Actions <input id="vs-lactions" maxlength="500" placeholder="archery, playing piano"></label>
    <button type="submit">Find</button>
  </form>
  <p id="vs-lnote" role="status" aria-live="polite"></p>
  <div id="vs-lbars"></div>
  <p id="vs-lsave"></p>
</section>
"""
LIBRARY = """
<section id="vs-library" aria-label="Library"><button id="vs-refresh" type="button">Refresh</button>
<dl id="vs-state"></dl><table id="vs-troubled"></table></section>
"""


def mount_page(app: FastAPI) -> FastAPI:
    """The application with the page at its root. Gradio is told to ask nothing of the outside."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gradio as gr

    system = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(font=system, font_mono=["ui-monospace", "monospace"])
    with gr.Blocks(analytics_enabled=False, title="vsearch", fill_width=True) as page, gr.Tabs():
        for name, markup in (("Search", SEARCH), ("Localize", LOCALIZE), ("Library", LIBRARY)):
            with gr.Tab(name):
                gr.HTML(markup, js_on_load=None)
    return gr.mount_gradio_app(
        app, page, path="", footer_links=[], theme=theme, head=HEAD, ssr_mode=False, max_file_size=1,
        show_error=False, allowed_paths=[], enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip
