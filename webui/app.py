"""The application: API, media and page behind one guard; run until it is interrupted."""

from __future__ import annotations

import os
import threading
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, Response

import vsearch
from vsearch.errors import VsearchError
from vsearch.retriever import Session
from vsearch.webui.api import router
from vsearch.webui.http import Access, Guard, say_no
from vsearch.webui.jobs import Jobs
from vsearch.webui.media import Previews, Stills
from vsearch.webui.questions import Visitors

ASSETS = Path(__file__).parent / "assets"
MAX_UPLOADS_AT_ONCE = 4


def create_app(library: Path, access: Access, heads: Path | None = None) -> Guard:
    """An ASGI application over the library in the folder `library`, which need not exist yet.

    `heads`: a folder of checkpoints of `vsearch train` that visitors may adopt.
    """
    from vsearch.webui.page import with_page

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.previews.close()
        app.state.jobs.close()
        app.state.session.close()

    app = FastAPI(
        title="vsearch",
        version=vsearch.__version__,
        description="Find the moment in your videos that a sentence describes. See docs/api.md.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere; /openapi.json is there
        redoc_url=None,
    )
    app.state.library = library
    app.state.session = Session.at(library)
    app.state.visitors = Visitors(app.state.session)
    app.state.previews = Previews()
    app.state.stills = Stills()
    app.state.jobs = Jobs(library)
    app.state.heads = heads
    app.state.uploads = threading.BoundedSemaphore(MAX_UPLOADS_AT_ONCE)
    say_no(app)
    app.include_router(router)

    @app.get("/page/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in os.listdir(ASSETS):
            raise HTTPException(404, "there is nothing here")
        kind = (
            "text/css" if name.endswith(".css") else "text/javascript"
        )  # whatever this machine thinks of .js
        return FileResponse(ASSETS / name, media_type=kind, headers={"cache-control": "no-cache"})

    return Guard(with_page(app), access)


def serve(
    library: Path, access: Access, port: int, *, heads: Path | None = None, open_browser: bool = False
) -> None:
    """Serve the page and the API. `heads`: a folder of checkpoints that may be adopted there.

    Raises VsearchError when the address cannot be used.
    """
    import socket

    import uvicorn

    from vsearch.webui.http import configured

    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((access.host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise VsearchError(
            f"cannot listen on {access.host}:{port} ({error}); choose another --port or --host"
        ) from None
    config = configured(
        create_app(library, access, heads), log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )
    if open_browser:
        address = f"http://{access.host}:{port}/"
        threading.Timer(1.0, webbrowser.open, [address]).start()
    uvicorn.Server(config).run([listener])
