"""Hits as a table for people, and as TSV, CSV, JSON or bare paths for scripts."""

from __future__ import annotations

import csv as csv_module
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from vsearch.cli.common import (
    SCHEMA_VERSION,
    counted,
    note,
    print_json,
    printable,
    short_path,
    timecode,
)
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.retriever import Answer, Hit


def chosen_format(**asked: bool) -> str:
    """The one format asked for, else a table on a terminal and TSV in a pipe."""
    names = [name.removeprefix("as_") for name, on in asked.items() if on]
    if len(names) > 1:
        raise VsearchError(f"choose one output format, not {' and '.join(names)}")
    return names[0] if names else "table" if sys.stdout.isatty() else "tsv"


def print_hits(answer: Answer, fmt: str) -> None:
    if fmt == "json":
        head = {"schema_version": SCHEMA_VERSION, "query": answer.query, "model": answer.model}
        hits = [hit_record(h) for h in answer.hits]
        told = {"confident": answer.confident, "cut": answer.cut, "language": answer.language}
        print_json({**head, **told, "hits": hits})
    elif fmt == "jsonl":
        for hit in answer.hits:
            print_json(hit_record(hit))
    elif fmt in ("paths", "null"):
        there = [hit.path for hit in answer.hits if not hit.gone]  # they go to other programs
        _write_paths(there, b"\0" if fmt == "null" else b"\n")
    elif fmt == "csv":
        writer = csv_module.writer(sys.stdout)
        writer.writerow(["rank", "score", "strength", "start", "end", "path"])
        for h in answer.hits:
            row = [h.rank, f"{h.score:.4f}", h.strength or "", _seconds(h.start_ms), _seconds(h.end_ms)]
            writer.writerow([*row, spreadsheet_safe(printable(h.path))])
    elif fmt == "tsv":
        for h in answer.hits:
            print(f"{h.score:.4f}\t{_seconds(h.start_ms)}\t{_seconds(h.end_ms)}\t{printable(h.path)}")
    else:
        _print_table(answer)


def hit_record(hit: Hit) -> dict[str, Any]:
    """A hit as documented in docs/json.md: times in seconds, score a cosine."""
    return {
        "rank": hit.rank,
        "path": hit.path,
        "start": hit.start_ms / 1000,
        "end": hit.end_ms / 1000,
        "score": round(hit.score, 6),
        "strength": hit.strength,
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "more": [{"start": m.start_ms / 1000, "end": m.end_ms / 1000, "score": round(m.score, 6)} for m in hit.more],
        "also_at": list(hit.also_at),
        "coarse": hit.coarse,
        "gone": hit.gone,
    }  # fmt: skip


def note_gone(answer: Answer) -> None:
    """Say of hits whose files are not where they were that they are not."""
    gone = sum(hit.gone for hit in answer.hits)
    if gone:
        note(
            f"{counted(gone, 'of these videos is', 'of these videos are')} not there now: on a disk that is not "
            "connected, moved or deleted; `vsearch index` on the folders where they are now finds them"
        )


def recall(library: Library, rank: int) -> tuple[str, int, int]:
    """Path, start and end (ms) of a hit of the last query. Raises VsearchError."""
    from vsearch.records import LAST_HITS

    try:
        noted = json.loads(library.recall(LAST_HITS) or "[]")
        hits = [(str(path), int(start_ms), int(end_ms)) for path, start_ms, end_ms in noted]
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise VsearchError("what the last query showed cannot be read any more: ask it again") from None
    if not 1 <= rank <= len(hits):
        raise VsearchError(
            f"the last query showed no hit number {rank}; give a rank that it showed, or a video"
        )
    return hits[rank - 1]


def spreadsheet_safe(text: str) -> str:
    """A leading = + - or @ would run as a formula in a spreadsheet."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def _print_table(answer: Answer) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("score", justify="right")
    if any(h.strength for h in answer.hits):
        table.add_column("match")
    table.add_column("moment", no_wrap=True)
    table.add_column("file", overflow="fold")
    for h in answer.hits:
        file = Text(printable(short_path(h.path)))
        notes = ["not there now"] if h.gone else []
        notes += ["coarse"] if h.coarse else []
        notes += [f"{len(h.more)} more here"] if h.more else []
        notes += [f"same content in {len(h.also_at)} more files"] if h.also_at else []
        if notes:
            file.append(f"  ({', '.join(notes)})", style="dim")
        cells: list[str | Text] = [str(h.rank), f"{h.score:.3f}"]
        if len(table.columns) == 5:
            cells.append(h.strength or "")
        table.add_row(*cells, f"{timecode(h.start_ms)} - {timecode(h.end_ms)}", file)
    Console(highlight=False).print(table)


def _write_paths(paths: list[str], end: bytes) -> None:
    """Byte for byte, so that any file name survives a pipe."""
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(os.fsencode(p) + end for p in paths))
    sys.stdout.buffer.flush()


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}"
