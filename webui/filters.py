"""Which videos may answer: by folder, by the file's date, by duration."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vsearch.records import Video

DAY_S = 86_400


@dataclass(frozen=True)
class Filters:
    """Dates are whole days, both included, of the file's last change; durations in seconds."""

    folder: str | None = None
    after: datetime.date | None = None
    before: datetime.date | None = None
    shortest_s: float | None = None
    longest_s: float | None = None

    def predicate(self) -> Callable[[Video], bool] | None:
        """None when nothing is left out."""
        if self == Filters():
            return None
        folder = Path(self.folder) if self.folder else None
        begin = _start_of(self.after) if self.after else 0.0
        end = _start_of(self.before) + DAY_S if self.before else float("inf")
        low, high = self.shortest_s or 0.0, self.longest_s if self.longest_s is not None else float("inf")

        def fits(video: Video) -> bool:
            duration_s = video.media.duration_ms / 1000 if video.media else 0.0
            inside = folder is None or video.path.is_relative_to(folder)
            return inside and begin <= video.mtime_ns / 1e9 < end and low <= duration_s <= high

        return fits


def _start_of(day: datetime.date) -> float:
    """Unix seconds; of the first and the last days of all dates, which no clock here reaches, ±infinity."""
    try:
        return datetime.datetime.combine(day, datetime.time()).timestamp()
    except (ValueError, OverflowError, OSError):
        return float("-inf") if day.year < 1970 else float("inf")
