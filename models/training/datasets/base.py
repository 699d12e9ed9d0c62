"""The one form all data sets are read into, and the readers' common tools."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsearch.errors import VsearchError


@dataclass(frozen=True)
class Clip:
    """A video or a part of it, with what is known of it. `video` is the id or file name as annotated."""

    video: str
    captions: tuple[str, ...] = ()
    label: str | None = None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def key(self) -> str:
        """Names the clip among all clips of its set."""
        return f"{self.video}{self.span}"

    @property
    def span(self) -> str:
        """Which part of the video; empty for all of it."""
        return "" if self.start_s is None else f"#{self.start_s:g}-{self.end_s:g}"


@dataclass(frozen=True)
class Dataset:
    """Clips of one split. `query_unit`: 'sentence', or 'paragraph' where a video's sentences are joined."""

    name: str
    split: str
    clips: tuple[Clip, ...]
    query_unit: str = "sentence"

    @property
    def labels(self) -> list[str]:
        """Class names in sorted order."""
        return sorted({clip.label for clip in self.clips if clip.label is not None})

    @property
    def digest(self) -> str:
        """Hash of the list: two trainings with equal digests saw the same clips, captions and labels."""
        text = json.dumps([(c.key, c.captions, c.label) for c in self.clips])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def one(folder: Path, *names: str) -> Path:
    """The file itself, or the first of these names in the folder. Raises VsearchError."""
    if folder.is_file():
        return folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise VsearchError(f"{folder}: expected one of {', '.join(names)} in it")


def read_text(path: Path) -> str:
    """UTF-8 text of a file; of the one JSON or CSV inside when it is a zip."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                inner = [
                    n for n in archive.namelist() if n.endswith((".json", ".csv")) and "__MACOSX" not in n
                ]
                if len(inner) != 1:
                    raise VsearchError(f"{path}: expected one JSON or CSV file inside, found {len(inner)}")
                return archive.read(inner[0]).decode("utf-8-sig")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as fault:
        raise VsearchError(f"{path}: cannot be read as UTF-8 text ({fault})") from fault


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as fault:
        raise VsearchError(f"{path}, line {fault.lineno}: not JSON ({fault.msg})") from fault


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, stripped line) of lines that are not empty."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def read_table(path: Path, *needed: str, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a CSV with a header that has the `needed` columns."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    missing = [name for name in needed if name not in (reader.fieldnames or [])]
    if missing:
        raise VsearchError(
            f"{path}, line 1: expected a header with {', '.join(needed)}; {', '.join(missing)} is missing"
        )
    for row in _whole_rows(reader, path):
        if any(row[name] is None for name in needed):
            raise wrong(path, reader.line_num, f"the columns {', '.join(needed)}", "a shorter row")
        yield reader.line_num, {k: v or "" for k, v in row.items() if k is not None}


def _whole_rows(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, Any]]:
    """Raises VsearchError where a quote is not closed, or closed amid a field."""
    while True:
        begins = reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise VsearchError(
                f'{path}, line {begins}: a quote (") opens a field and does not close it; close it, or write "" for one '
                "that is part of the text"
            ) from fault


def field(item: Any, name: str, kind: type | tuple[type, ...], path: Path, where: str) -> Any:
    """item[name] of that type, or a sentence that says where it is missing or wrong."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise VsearchError(f"{path}, {where}: expected {name!r} as {names}, found {value!r:.60}")
    return value


def seconds(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise wrong(path, line, "a number of seconds", text) from None


def wrong(path: Path, line: int, expected: str, found: str) -> VsearchError:
    return VsearchError(f"{path}, line {line}: expected {expected}, found {found!r:.80}")


def split_name(split: str, path: Path, *known: str) -> str:
    if split and split not in known:
        raise VsearchError(f"{path}: no split {split!r}; known: {', '.join(known)}")
    return split


def spaced(name: str) -> str:
    """'ApplyEyeMakeup', 'apply_eye_makeup' -> 'apply eye makeup'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).strip().lower()
