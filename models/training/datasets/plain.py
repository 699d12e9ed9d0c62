"""The user's own files: CSV, TSV or JSONL with video, and caption or label, and perhaps start and end in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vsearch.errors import VsearchError
from vsearch.models.training.datasets.base import Clip, Dataset, read_lines, read_table, seconds, wrong


def read(path: Path, split: str) -> Dataset:
    """Rows of one video (and the same start and end) are one clip with several captions.

    A column `split` chooses rows when a split is asked for.
    """
    clips: dict[tuple[str, float | None, float | None], tuple[list[str], str | None]] = {}
    for line, row in _rows(path):
        if split and str(row.get("split", split)) != split:
            continue
        video, caption, label = (str(row.get(k) or "").strip() for k in ("video", "caption", "label"))
        if not video or not (caption or label):
            raise wrong(path, line, "a video and a caption or label", json.dumps(row, ensure_ascii=False))
        start, end = (_time(row.get(k), path, line) for k in ("start", "end"))
        if (start is None) != (end is None) or (start is not None and end is not None and end <= start):
            raise wrong(path, line, "both start and end, end later than start", f"{start} {end}")
        captions, known = clips.setdefault((video, start, end), ([], label or None))
        if known != (label or None):
            raise wrong(path, line, f"the label {known!r} that this clip has above", label)
        if caption:
            captions.append(caption)
    found = (Clip(v, tuple(texts), label, s, e) for (v, s, e), (texts, label) in clips.items())
    return Dataset("plain", split, tuple(found))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix in (".csv", ".tsv"):
        yield from read_table(path, "video", delimiter="\t" if path.suffix == ".tsv" else ",")
        return
    if path.suffix != ".jsonl":
        raise VsearchError(f"{path}: expected .csv, .tsv or .jsonl with video and caption or label")
    for line, text in read_lines(path):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise wrong(path, line, "a JSON object", text)
        yield line, row


def _time(value: Any, path: Path, line: int) -> float | None:
    return None if value in (None, "") else seconds(str(value), path, line)
