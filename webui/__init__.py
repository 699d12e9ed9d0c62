"""The search page and the HTTP API: a Gradio page over a FastAPI application."""

from vsearch.webui.app import create_app, serve

__all__ = ["create_app", "serve"]
