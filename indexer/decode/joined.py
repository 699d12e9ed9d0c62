"""A file in which several recordings were joined byte for byte, read as one video: each begins where the one before it
ends. Most files hold one, and are read without this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from vsearch.errors import MediaError
from vsearch.indexer.decode.probe import checked_container
from vsearch.indexer.decode.pyav import PyavSource
from vsearch.indexer.decode.source import DecodeOptions, Shown, clock
from vsearch.indexer.decode.structure import Part, parts_of
from vsearch.records import MediaInfo


def open_pyav(path: Path, options: DecodeOptions) -> PyavSource | JoinedSource:
    """A video opened with PyAV. Raises MediaError when no picture can be decoded, OSError."""
    parts = parts_of(path, checked_container(path))
    return PyavSource(path, options) if len(parts) == 1 else JoinedSource(path, options, parts)


def is_joined(path: Path) -> bool:
    """Raises as `open_pyav` does."""
    return len(parts_of(path, checked_container(path))) > 1


class JoinedSource:
    """Like PyavSource; `part`: where the latest picture lies."""

    def __init__(self, path: Path, options: DecodeOptions, parts: list[Part]) -> None:
        self._path, self._options, self._parts = path, options, parts
        self._since_s = 0.0  # where the part in work begins
        self._damage: str | None = None
        self._begin = 0  # the first part of use
        while True:
            try:
                self._first = self._source = PyavSource(path, options, parts[self._begin])
                break
            except MediaError as error:
                self._note(self._begin, 0.0, str(error))
                self._begin += 1
                if self._begin == len(parts):
                    raise
        self.zero_s, self.colours = self._first.zero_s, self._first.colours

    @property
    def info(self) -> MediaInfo:
        """Its duration is an estimate, from that of the first part."""
        info = self._first.info
        rest = self._parts[-1].end - self._first.part.start
        return replace(info, duration_ms=round(info.duration_ms * rest / self._first.part.size))

    def duration_ms(self, covered_s: float) -> int:
        return round(1000 * covered_s)

    @property
    def part(self) -> Part:
        return self._source.part

    @property
    def shift_s(self) -> float:
        return self._source.shift_s + self._since_s

    def frames(self, wanted: Callable[[], float]) -> Iterator[Shown]:
        return self._through(lambda source, since_s: source.frames(lambda: wanted() - since_s))

    def keyframes(self, every_s: float) -> Iterator[Shown]:
        last_s = float("-inf")
        for shown in self._through(lambda source, _: source.keyframes(every_s)):
            if shown.start_s >= last_s + every_s:
                last_s = shown.start_s
                yield shown

    def _through(self, pictures: Callable[[PyavSource, float], Iterator[Shown]]) -> Iterator[Shown]:
        """`pictures` of every part, given when it begins."""
        since_s = 0.0
        for number in range(self._begin, len(self._parts)):
            if number > self._begin:
                self._source.close()
                try:
                    self._source = PyavSource(self._path, self._options, self._parts[number])
                except MediaError as error:
                    self._note(number, since_s, str(error))
                    continue
                self._since_s = since_s
            for shown in pictures(self._source, since_s):
                yield replace(shown, start_s=shown.start_s + since_s, end_s=shown.end_s + since_s)
            self._note(number, since_s, self._source.damage(self._source.end_s))
            since_s += self._source.end_s

    def _note(self, number: int, since_s: float, reason: str | None) -> None:
        if reason and self._damage is None:
            place = f"recording {number + 1} of the {len(self._parts)} in this file, from {clock(since_s)} on"
            self._damage = f"{place}: {reason}"

    def damage(self, covered_s: float) -> str | None:
        return self._damage

    def close(self) -> None:
        self._source.close()
