"""`vsearch serve`: the search page and the HTTP API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import LibraryOption, note, printable, verb
from vsearch.errors import VsearchError


@verb
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    token: Annotated[
        str | None,
        typer.Option(envvar="VSEARCH_TOKEN", help="What visitors must give; at least 32 characters.", show_default=False),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of `vsearch train` runs that the Library tab offers to adopt.", show_default=False),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
    library: LibraryOption = None,
) -> None:  # fmt: skip
    """Open the search page, and the HTTP API beside it (docs/api.md)."""
    from vsearch.library import ENVIRONMENT, Library, find_library
    from vsearch.webui import serve as run
    from vsearch.webui.http import Access

    access = Access(host, token)
    path = find_library(library)
    asked_for = library is not None or bool(os.environ.get(ENVIRONMENT))
    if asked_for and not Library.exists(path):  # a typo in a unit file must not listen for ever
        raise VsearchError(
            f"there is no library at {path}: run `vsearch index FOLDER` with the same --library first"
        )
    note(f"http://{host}:{port}/  (library {printable(str(path))}; Ctrl-C ends)")
    run(path, access, port, heads=heads, open_browser=open_browser)
