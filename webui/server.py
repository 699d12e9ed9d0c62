"""Runs the application until it is interrupted."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path

from vsearch.errors import VsearchError
from vsearch.webui.http import Access


def serve(
    library: Path, access: Access, port: int, *, heads: Path | None = None, open_browser: bool = False
) -> None:
    """Serve the page and the API. `heads`: a folder of checkpoints that may be adopted there.

    Raises VsearchError when the address cannot be used.
    """
    import socket

    import uvicorn

    from vsearch.webui.app import create_app
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
