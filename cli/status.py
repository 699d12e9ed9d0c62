"""`vsearch status`: what is in the library, and what went wrong."""

from __future__ import annotations

from dataclasses import asdict

from vsearch.cli.common import SCHEMA_VERSION, JsonOption, LibraryOption, human_size, print_json, printable, verb


@verb
def status(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Show the library's videos by state, failures with reasons, size, model and index."""
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        state = opened.status()
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(state)})
        return
    counts = ", ".join(f"{n} {name}" for name, n in state.videos.items() if n) or "none yet"
    print(f"library   {printable(state.path)}")
    print(f"videos    {counts}")
    print(f"footage   {state.duration_ms / 3_600_000:.2f} h, {state.frames} frames, {state.moments} moments")
    print(f"on disk   {human_size(state.bytes)}")
    print(f"model     {state.encoder or 'none yet'}")
    print(f"index     {state.index or 'none yet; run `vsearch index FOLDER`'}")
    for heading, rows in (("partial", state.partial), ("failed", state.failed)):
        if rows:
            print(f"\n{heading}:")
            for path, reason in rows:
                print(f"  {printable(path)}: {printable(reason)}")
