"""The search page and the HTTP API: a Gradio page over a FastAPI application."""

from vsearch.webui.app import create_app
from vsearch.webui.server import serve

__all__ = ["create_app", "serve"]
