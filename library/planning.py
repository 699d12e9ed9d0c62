"""What an indexing run has to do: compares the files found with the videos known.

Pure: reads nothing but what it is given, and asks for a fingerprint only where size and time of a file do not
already say that it is the same. A video follows its content: a renamed, moved or swapped file keeps its row
and its vectors.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsearch.library.records import FAILED, MISSING, FoundFile, Video


@dataclass(frozen=True)
class Job:
    """One content to decode and encode. `files` all have it: one decoding serves them."""

    files: tuple[FoundFile, ...]
    fingerprint: str

    @property
    def path(self) -> Path:
        return self.files[0].path


@dataclass(frozen=True)
class Plan:
    """Every found file is in exactly one of: unchanged, touched, moved, duplicates, jobs, known_failed,
    unreadable; only a moved one can be in jobs as well. Every known video that lost its file is in missing
    or replaced."""

    unchanged: tuple[Video, ...]
    touched: tuple[tuple[Video, FoundFile], ...]  # same place and content: new time, or back after missing
    moved: tuple[tuple[Video, FoundFile], ...]  # same content, new place
    duplicates: tuple[tuple[FoundFile, str], ...]  # more copies of content whose frames are stored
    jobs: tuple[Job, ...]
    known_failed: tuple[Video, ...]  # tried before, not changed since
    missing: tuple[Video, ...]
    replaced: tuple[Video, ...]  # another known video was moved onto its path
    unreadable: tuple[tuple[FoundFile, str], ...]  # could not be fingerprinted, with the reason
    unreachable: tuple[Path, ...]  # scanned folders that are absent or empty: nothing below is called missing
    folders: tuple[Path, ...]  # to be registered as roots


@dataclass(frozen=True)
class Scan:
    """What the scanner did: `folders` scanned (real paths), and what below them could not be looked into.

    `skipped`: unreadable folders, and files left for next time (still growing); nothing there is missing.
    """

    folders: tuple[Path, ...]
    files: tuple[FoundFile, ...]
    skipped: tuple[Path, ...] = ()


def make_plan(
    scan: Scan,
    known: Iterable[Video],
    stored: Collection[str],
    fingerprint: Callable[[Path], str],
    *,
    retry_failed: bool = False,
    gone: Callable[[Video], bool],
    empty: Callable[[Path], bool],
) -> Plan:
    """Classify every found file and every known video.

    stored: fingerprints whose newest frames are of the backbone and rate asked for.
    fingerprint: content fingerprint of a file; may raise OSError, whose text becomes the reason.
    gone: whether a known video outside the scanned folders has lost its file (so that a file moved here from
    there is a move, not a copy). empty: whether a scanned folder is absent or holds nothing, as the mount
    point of a disk that is not mounted.
    """
    files = sorted({file.path: file for file in scan.files}.values(), key=lambda file: os.fsencode(file.path))
    found = {file.path for file in files}
    rows = {video.path: video for video in known}
    unreachable = tuple(folder for folder in scan.folders if empty(folder))
    watched = [folder for folder in scan.folders if folder not in unreachable]

    unchanged: list[Video] = []
    known_failed: list[Video] = []
    touched: list[tuple[Video, FoundFile]] = []
    again: list[tuple[FoundFile, str]] = []  # at its place with the same content, but to be done (again)
    elsewhere: list[tuple[FoundFile, str]] = []  # content that was not here before
    unreadable: list[tuple[FoundFile, str]] = []
    vacated = {path: video for path, video in rows.items() if path not in found}

    for file in files:
        video = rows.get(file.path)
        same_stat = video is not None and (video.size, video.mtime_ns) == (file.size, file.mtime_ns)
        if video is not None and same_stat and video.fingerprint is not None:
            content = video.fingerprint
        else:
            try:
                content = fingerprint(file.path)
            except OSError as error:
                unreadable.append((file, error.strerror or str(error)))
                continue
        if video is None:
            elsewhere.append((file, content))
        elif video.fingerprint != content:
            vacated[file.path] = video
            elsewhere.append((file, content))
        elif video.state == FAILED:
            if retry_failed or video.attempts == 0 or not same_stat:
                again.append((file, content))
            else:
                known_failed.append(video)
        elif content not in stored:
            again.append((file, content))
        elif same_stat and video.state != MISSING:
            unchanged.append(video)
        else:
            touched.append((video, file))

    lost = _lost(vacated, found, watched, scan.skipped, gone)
    moved: list[tuple[Video, FoundFile]] = []
    duplicates: list[tuple[FoundFile, str]] = []
    described = {video.fingerprint for video in rows.values() if video.media is not None}
    for file, content in elsewhere:
        candidates = lost.get(content)
        if candidates:
            video = candidates.pop(0)
            del vacated[video.path]
            moved.append((video, file))
            done = content in stored
            if video.state == FAILED:
                done = video.attempts > 0 and not retry_failed
            if not done:
                again.append((file, content))
        elif content in stored and content in described:
            duplicates.append((file, content))
        else:
            again.append((file, content))

    landed = {file.path for _, file in moved}
    replaced = tuple(video for path, video in vacated.items() if path in landed)
    missing = tuple(
        video
        for path, video in vacated.items()
        if path not in found and video.state != MISSING and _below(path, watched, scan.skipped)
    )
    return Plan(
        unchanged=tuple(unchanged),
        touched=tuple(touched),
        moved=tuple(moved),
        duplicates=tuple(duplicates),
        jobs=_jobs(again),
        known_failed=tuple(known_failed),
        missing=missing,
        replaced=replaced,
        unreadable=tuple(unreadable),
        unreachable=unreachable,
        folders=tuple(watched),
    )


def _lost(
    vacated: dict[Path, Video],
    found: set[Path],
    watched: Sequence[Path],
    skipped: Sequence[Path],
    gone: Callable[[Video], bool],
) -> dict[str, list[Video]]:
    """Videos whose content is no longer at their path, by fingerprint, in path order."""
    lost: dict[str, list[Video]] = defaultdict(list)
    for path in sorted(vacated, key=os.fsencode):
        video = vacated[path]
        if video.fingerprint is None:
            continue
        seen = not _below(path, skipped, ())
        known_lost = path in found or video.state == MISSING or _below(path, watched, skipped)
        if known_lost or (seen and gone(video)):
            lost[video.fingerprint].append(video)
    return lost


def _below(path: Path, folders: Sequence[Path], skipped: Sequence[Path]) -> bool:
    def inside(parents: Sequence[Path]) -> bool:
        return any(path == parent or parent in path.parents for parent in parents)

    return inside(folders) and not inside(skipped)


def _jobs(again: list[tuple[FoundFile, str]]) -> tuple[Job, ...]:
    groups: dict[str, list[FoundFile]] = defaultdict(list)
    for file, content in again:
        groups[content].append(file)
    jobs = [Job(tuple(files), content) for content, files in groups.items()]
    return tuple(sorted(jobs, key=lambda job: os.fsencode(job.path)))
