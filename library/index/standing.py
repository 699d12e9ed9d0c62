"""What is kept open between questions: a library, and its index."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import LibraryError
from vsearch.library.place import CATALOGUE

if TYPE_CHECKING:
    from vsearch.library.catalogue import Reading
    from vsearch.library.index.view import IndexView
    from vsearch.library.library import Library
    from vsearch.records import Generation


class HeldIndex:
    """The index of one library, read and checked once a generation. For any number of threads."""

    def __init__(self) -> None:
        self._held: tuple[tuple[object, ...], IndexView] | None = None  # its files when it was read
        self._opening = threading.Lock()  # a generation is read once, however many ask

    def let_go(self) -> None:
        """Until it is asked for again. Does not wait for who reads one now."""
        self._held = None

    def view(self, library: Reading) -> IndexView:
        """The generation that answers now; used again while its files are untouched.

        Raises LibraryError when there is none or it is damaged.
        """
        with self._opening:
            generation = library.live_generation()
            held = self._held
            if held is None or generation is None or held[0] != _files(library, generation):
                held = self._held = None  # the next one needs the memory
                view = library.open_live()
                held = self._held = (_files(library, view.generation), view)
            return held[1]


class Standing:
    """The library that lies at a path now: another one when it was deleted and made again, with its `index`. For any
    number of threads."""

    def __init__(self, path: Path) -> None:
        self.index = HeldIndex()
        self._path = path
        self._open: tuple[tuple[int, int], Library] | None = (
            None  # the catalogue's file, and what has it open
        )
        self._mutex = threading.Lock()

    def library(self) -> Library:
        """Raises LibraryError while there is none, or when it cannot be opened."""
        with self._mutex:
            there = _file_at(self._path / CATALOGUE)
            if self._open is not None and self._open[0] != there:
                self._let_go()
            if there is None:
                raise LibraryError(f"There is no library at {self._path}: run `vsearch index FOLDER` first.")
            if self._open is None:
                from vsearch.library.library import Library

                self._open = (there, Library.open(self._path))
            return self._open[1]

    def close(self) -> None:
        with self._mutex:
            self._let_go()

    def _let_go(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self.index.let_go()
        self._open = None


def _files(library: Reading, generation: Generation) -> tuple[object, ...]:
    try:
        return library.index_stamp(generation)
    except OSError:  # opening it says so, or finds that another generation answers by now
        return ()


def _file_at(path: Path) -> tuple[int, int] | None:
    """Tells a file from one put in its place: an open library keeps its own inode from being given again."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
