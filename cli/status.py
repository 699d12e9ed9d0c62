"""`vsearch status`: what is in the library, and what went wrong."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING

from vsearch.cli.common import (
    SCHEMA_VERSION,
    JsonOption,
    LibraryOption,
    human_size,
    print_json,
    printable,
    timecode,
    verb,
)

if TYPE_CHECKING:
    from vsearch.records import LibrarySummary


@verb
def status(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Show the library's videos by state, failures with reasons, size, model and index."""
    from vsearch.library import Library, find_library

    with Library.open(find_library(library)) as opened:
        state = opened.summary()
        troubled = {name: opened.videos(name) for name in ("partial", "failed", "missing")}
    if as_json:
        listed = {
            name: [{"path": str(v.path), "reason": v.reason} for v in rows] for name, rows in troubled.items()
        }
        print_json({"schema_version": SCHEMA_VERSION, "library": str(opened.path), **asdict(state), **listed})
        return
    counts = ", ".join(f"{n} {name}" for name, n in state.videos.items() if n) or "none yet"
    print(f"library   {printable(str(opened.path))}")
    if state.coarse:
        counts += f"; {state.coarse} of them coarse (keyframes alone; `vsearch index` goes on with them)"
    print(f"videos    {counts}")
    print(
        f"footage   {timecode(state.duration_ms)}, {state.frame_count} frames, {state.moment_count} moments"
    )
    print(f"on disk   {human_size(sum(state.bytes.values()))}")
    if state.encoder is None or state.generation is None:
        print("index     none yet; run `vsearch index FOLDER`")
    else:
        print(f"model     {state.encoder.identity}")
        print(f"index     generation {state.generation.id}, {state.generation.count} moments, {_age(state)}")
    for name, size in state.kept.items():
        print(f"kept      {printable(name)}, {human_size(size)} of frames; `vsearch forget-model` frees them")
    for name, rows in troubled.items():
        if rows:
            print(f"\n{name}:")
        for v in rows:
            print(f"  {printable(str(v.path))}" + (f": {printable(v.reason)}" if v.reason else ""))


def _age(state: LibrarySummary) -> str:
    assert state.generation is not None
    made = datetime.datetime.fromtimestamp(state.generation.created_at).strftime("%Y-%m-%d %H:%M")
    return f"made {made}" + ("" if state.up_to_date else "; not up to date, run `vsearch index` again")
