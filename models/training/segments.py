"""Labelled time segments of videos, and the annotation files that hold them.

ActivityNet JSON, THUMOS14 in ActionFormer's form and the flat form of STALE/T3AL (numbers may be strings), class lists
with one name a line. Nothing is fetched.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsearch.errors import VsearchError


@dataclass(frozen=True)
class Segment:
    """An action instance: seconds of a video, and its class."""

    video: str
    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Prediction(Segment):
    """A predicted instance. Only the order of scores matters."""

    score: float


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video's length and instances; `subset` is in lower case, '' where the file says none."""

    id: str
    duration_s: float
    subset: str
    segments: tuple[Segment, ...]


def read_annotations(path: Path) -> list[AnnotatedVideo]:
    """Videos of an ActivityNet, THUMOS14 or flat JSON file (`.gz` allowed), in file order.

    Segments labelled `Ambiguous` (THUMOS14) and those of no length are left out. Raises VsearchError.
    """
    try:
        root = json.loads(_text(path))
        database = root.get("database", root)
        return [_video(str(name), entry) for name, entry in database.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise VsearchError(
            f"{path} is not an annotation file of ActivityNet or THUMOS14 ({type(fault).__name__}: {fault})"
        ) from fault


def read_names(path: Path) -> list[str]:
    """Class names, one a line; empty lines and those that begin with # are left out, repeats too."""
    lines = (line.strip() for line in _text(path).splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _video(name: str, entry: dict[str, Any]) -> AnnotatedVideo:
    duration = float(entry["duration_second"] if "duration_second" in entry else entry["duration"])
    return AnnotatedVideo(name, duration, str(entry.get("subset", "")).lower(), tuple(_segments(name, entry)))


def _segments(name: str, entry: dict[str, Any]) -> Iterator[Segment]:
    for annotation in entry.get("annotations", []):
        start, end = (float(t) for t in annotation["segment"])
        label = str(annotation["label"])
        if label.startswith("Ambiguous") or not math.isfinite(end - start) or end <= start:
            continue
        yield Segment(name, start, end, label)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as fault:
        raise VsearchError(f"cannot read {path}: {fault}") from fault
