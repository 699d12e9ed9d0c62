"""`vsearch bench`: how fast are queries here, beside the usual way."""

from __future__ import annotations

import os
import statistics
from typing import Annotated

import typer

from vsearch.cli.common import JsonOption, LibraryOption, note, print_json, verb

MEANING = {
    "usual": "the whole model loaded through open_clip, one sentence encoded, nothing searched",
    "cold": "a new sentence, nothing loaded before",
    "warm": "a new sentence, a helper running",
    "cached": "a sentence asked before, no helper",
}


@verb
def bench(
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured.")] = 5,
    as_json: JsonOption = False,
    library: LibraryOption = None,
) -> None:
    """Time queries of this library, whole processes on the CPU, beside loading the whole model for each."""
    from vsearch.library import find_library, open_reading
    from vsearch.retriever import live_encoder
    from vsearch.retriever.bench import time_queries

    path = find_library(library).resolve()
    with open_reading(path) as opened:
        live = live_encoder(opened)
    note(
        f"{live.spec['model']}, {os.cpu_count()} cores; the figures are ratios when other programs are at work"
    )
    taken = time_queries(path, live, rounds)
    usual = statistics.median(taken["usual"])
    rows = {way: _row(seconds, usual) for way, seconds in taken.items()}
    if as_json:
        print_json({"model": live.spec["model"], "rounds": rounds, "ways": rows})
        return
    print(f"{'query':8}{'median':>9}{'min':>9}{'max':>9}{'times':>8}")
    for way, row in rows.items():
        seconds = "".join(f"{row[name]:>8.2f}s" for name in ("median_s", "min_s", "max_s"))
        print(f"{way:8}{seconds}{row['times_faster']:>7.1f}x  {MEANING[way]}")


def _row(seconds: list[float], usual: float) -> dict[str, float]:
    median = statistics.median(seconds)
    return {
        "median_s": round(median, 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "times_faster": round(usual / median, 2),
    }
