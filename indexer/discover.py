"""Finding videos below folders: by content, in a stable order, without harm from what else lies there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import VsearchError
from vsearch.indexer.shared_progress import Progress, Report
from vsearch.indexer.sniff import container_of, is_animated_webp, is_audio_only, is_text, read_head
from vsearch.records import FoundFile

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

    from vsearch.library import Scan


def not_there(library_path: Path, absent: Path) -> VsearchError:
    """The sentence for a path that does not exist, with the way out for one that the library knows."""
    from vsearch.library import Library

    known = 0
    if Library.exists(library_path):
        with Library.open(library_path) as library:
            real = Path(os.path.realpath(absent))
            known = sum(real == video.path or real in video.path.parents for video in library.videos())
    if not known:
        return VsearchError(f"there is no file or folder {absent}")
    return VsearchError(
        f"there is no file or folder {absent}, where the library knows {known} videos: on a disk that is away they "
        "wait for it; under another name or place, index it there, and they are known; "
        f"to give them up: vsearch forget {absent}"
    )


def scan(paths: Sequence[Path], report: Report) -> Scan:
    """All videos in and below `paths`; what could not be looked into is reported."""
    from vsearch.library import Scan

    report(Progress("looking for videos"))
    skipped: list[Path] = []

    def on_skip(path: Path, reason: str) -> None:
        skipped.append(path)
        report(Progress("looking for videos", warning=f"{path}: {reason}"))

    found = find_videos(paths, on_skip)
    return Scan(
        folders=tuple(Path(os.path.realpath(path)) for path in paths),
        files=tuple(found),
        skipped=tuple(skipped),
    )


IGNORE_FILE = ".vsearchignore"
SETTLE_S = 2.0  # a file changed more recently than this may still be growing

_SYSTEM_FOLDERS = {
    "lost+found",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "__macosx",
    "#recycle",
}
_UNFINISHED = (
    ".part",
    ".crdownload",
    ".tmp",
    ".partial",
    ".download",
    ".opdownload",
    ".!ut",
    ".!qb",
    ".aria2",
)
# Names that promise a video: when the content is none, that is worth a word. All others are passed over.
_VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".flv", ".f4v", ".ts", ".m2ts", ".mts",
    ".m2t", ".mpg", ".mpeg", ".mpe", ".vob", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogm", ".mxf", ".rm",
    ".rmvb", ".y4m", ".ivf", ".dv", ".dif", ".nut", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".m2v", ".m1v",
    ".mpv", ".m4e", ".vc1", ".obu", ".wtv", ".bik", ".mjpeg", ".mjpg",
)  # fmt: skip
_SOURCE_CODE_SUFFIXES = (".ts", ".mts")  # TypeScript
# Sound in containers that could hold pictures, too, which the first bytes do not tell.
_AUDIO_SUFFIXES = (
    ".m4a",
    ".m4b",
    ".m4r",
    ".mka",
    ".oga",
    ".opus",
    ".spx",
    ".wma",
    ".mp3",
    ".aac",
    ".flac",
    ".wav",
)

Warn = Callable[[Path, str], None]


def find_videos(paths: Sequence[Path], on_warning: Warn, settle_s: float = SETTLE_S) -> list[FoundFile]:
    """All videos in and below `paths`, ordered by the bytes of their paths.

    Skipped in silence: hidden and system folders and files, what `.vsearchignore` files (gitignore rules, in
    any folder) exclude, and files whose content is no video unless their name promises one or they were named
    themselves. Each file is listed once, however many links lead to it; of several, the one that is no
    symbolic link. Reported through `on_warning`: folders and files that cannot be read, and files still
    growing, which are left for next time. Files changed in the last `settle_s` seconds are watched until they
    are older than that.
    """
    walker = _Walker(on_warning)
    for given in paths:
        real = Path(os.path.realpath(given))
        if real.is_dir():
            walker.walk(os.fspath(real), real)
        else:
            walker.take(real)
    found = walker.finish()
    settled = _settled(found, on_warning, settle_s)
    return sorted(settled, key=lambda file: os.fsencode(file.path))


class _Walker:
    """Walks folders, each once by (device, inode), so that loops of links end.

    Links are followed last: a file's real place has precedence, whatever the order of roots.
    """

    def __init__(self, on_warning: Warn) -> None:
        self._warn = on_warning
        self._seen: set[tuple[int, int]] = set()
        self._found: dict[str, FoundFile] = {}  # by real path
        self._linked_folders: list[tuple[str, Path]] = []  # with the root that they were found under
        self._linked_files: list[FoundFile] = []

    def take(self, path: Path) -> None:
        """A file that was named itself, whatever it is."""
        try:
            status = os.stat(path)
        except OSError as error:
            return self._warn(path, f"cannot be read: {error.strerror}")
        if not stat.S_ISREG(status.st_mode):
            return self._warn(path, "neither a file nor a folder")
        self._add(FoundFile(path, status.st_size, status.st_mtime_ns))

    def walk(self, top: str, root: Path, by_link: bool = False) -> None:
        """All candidates below a folder."""
        folders = [(top, _Rules())]
        while folders:
            folder, rules = folders.pop()
            entries = self._list(folder)
            if any(entry.name == IGNORE_FILE for entry in entries):
                rules = rules.extended(folder, self._warn)
            for entry in entries:
                kind = _kind(entry)
                if kind == "other" or _is_hidden(entry.name) or rules.exclude(entry.path, kind == "folder"):
                    continue
                linked = entry.is_symlink()
                if kind == "folder":
                    if linked:
                        self._linked_folders.append((entry.path, root))
                    else:
                        folders.append((entry.path, rules))
                elif file := self._candidate(entry, root):
                    if linked or by_link:
                        self._linked_files.append(file)
                    else:
                        self._add(file)

    def finish(self) -> list[FoundFile]:
        """Follow the links; everything found."""
        while self._linked_folders:
            self.walk(*self._linked_folders.pop(0), by_link=True)
        for file in self._linked_files:
            self._found.setdefault(os.path.realpath(file.path), file)
        return list(self._found.values())

    def _add(self, file: FoundFile) -> None:
        self._found.setdefault(os.fspath(file.path), file)

    def _list(self, folder: str) -> list[os.DirEntry[str]]:
        """Its entries in order; none if it was listed before or cannot be."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self._seen:
                return []
            self._seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                return sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._warn(Path(folder), f"folder cannot be read: {error.strerror}")
            return []

    def _candidate(self, entry: os.DirEntry[str], root: Path) -> FoundFile | None:
        name = entry.name.lower()
        path = Path(entry.path)
        try:
            head = read_head(entry.path)
            status = entry.stat()
        except OSError as error:
            if not name.endswith(_VIDEO_SUFFIXES):
                self._warn(path, f"cannot be read: {error.strerror}")
                return None
            try:
                status = entry.stat()
            except OSError:
                return None
            return FoundFile(path, status.st_size, status.st_mtime_ns)
        if name.endswith(_UNFINISHED):
            if container_of(head) or name.rpartition(".")[0].endswith(_VIDEO_SUFFIXES):
                self._warn(path, "download not finished; left for next time")
            return None
        if not _is_wanted(name, head):
            return None
        return FoundFile(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class _Rules:
    """The `.vsearchignore` files from a root down to a folder: (folder, rules), outermost first."""

    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def extended(self, folder: str, warn: Warn) -> _Rules:
        from pathspec import GitIgnoreSpec

        path = Path(folder, IGNORE_FILE)
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            return _Rules((*self.specs, (folder, GitIgnoreSpec.from_lines(lines))))
        except (OSError, ValueError) as error:
            warn(path, f"cannot be used: {error}")
            return self

    def exclude(self, path: str, is_folder: bool) -> bool:
        # As in git, the innermost file that says anything about a path decides.
        for folder, spec in reversed(self.specs):
            relative = os.path.relpath(path, folder) + ("/" if is_folder else "")
            verdict = spec.check_file(relative).include
            if verdict is not None:
                return verdict
        return False


def _kind(entry: os.DirEntry[str]) -> str:
    """'folder', 'file' or 'other' (pipes, devices, broken links), links followed."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "other"
    except OSError:  # a loop of links
        return "other"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _is_wanted(name: str, head: bytes) -> bool:
    """Whether a file with this (lower-case) name and these first bytes is a video, or promises to be one."""
    if name.endswith(_VIDEO_SUFFIXES):
        return not (name.endswith(_SOURCE_CODE_SUFFIXES) and head and is_text(head))
    if is_animated_webp(head):
        return True
    return container_of(head) is not None and not is_audio_only(head) and not name.endswith(_AUDIO_SUFFIXES)


def _settled(files: list[FoundFile], warn: Warn, settle_s: float) -> list[FoundFile]:
    """Without the files that change while one waits for the freshest to be `settle_s` seconds old."""
    now = time.time()
    fresh = [file for file in files if abs(now - file.mtime_ns / 1e9) < settle_s]
    if not fresh:
        return files
    time.sleep(max(0.0, min(settle_s, max(file.mtime_ns for file in fresh) / 1e9 + settle_s - now)))
    growing = set()
    for file in fresh:
        try:
            status = os.stat(file.path)
        except OSError:
            growing.add(file)
            warn(file.path, "disappeared while looking at it")
            continue
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            growing.add(file)
            warn(file.path, "still growing; left for next time")
    return [file for file in files if file not in growing]
