"""What an indexing run has to do: compares the files found with the videos known.

Pure: reads nothing but what it is given. It asks for a fingerprint only of a new or changed file whose size is that of
a known video or of another new file: no other can be a move or a copy, so those are hashed when they are decoded. A
video follows its content: a renamed, moved or swapped file keeps its row and its vectors.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsearch.records import FAILED, MISSING, PARTIAL, FoundFile, Video


@dataclass(frozen=True)
class Job:
    """One content to decode and encode. `files` all have it: one decoding serves them. `fingerprint`: None where no
    other file can have it. `retry`: it has been decoded in part, and what there is counts until there is more."""

    files: tuple[FoundFile, ...]
    fingerprint: str | None
    retry: bool = False

    @property
    def path(self) -> Path:
        return self.files[0].path


@dataclass(frozen=True)
class Plan:
    """Every found file is in exactly one of: unchanged, touched, moved, duplicates, jobs, known_failed,
    unreadable; only a moved one can be in another as well. Every known video that lost its file is in missing
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
    silent: tuple[
        tuple[Path, int], ...
    ]  # none of so many videos known there is: their disk, or they, may be gone
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
    absent: Callable[[Path], bool] = lambda path: False,
    hashed: Callable[[int, int], None] = lambda done, count: None,
) -> Plan:
    """Classify every found file and every known video.

    stored: fingerprints whose newest frames are of the backbone and rate asked for.
    fingerprint: content fingerprint of a file; may raise OSError, whose text becomes the reason.
    gone: whether a known video outside the scanned folders has lost its file (so that a file moved here from
    there is a move, not a copy). empty: whether a scanned folder is absent or holds nothing, as the mount
    point of a disk that is not mounted. absent: whether there is nothing at a path. hashed: hears that so many of
    so many files are fingerprinted.
    """
    files = sorted({file.path: file for file in scan.files}.values(), key=lambda file: os.fsencode(file.path))
    found = {file.path for file in files}
    rows = {video.path: video for video in known}
    unreachable = tuple(folder for folder in scan.folders if empty(folder))
    watched = [folder for folder in scan.folders if folder not in unreachable]

    unchanged: list[Video] = []
    known_failed: list[Video] = []
    touched: list[tuple[Video, FoundFile]] = []
    again: list[
        tuple[FoundFile, str | None]
    ] = []  # at its place with the same content, but to be done (again)
    elsewhere: list[tuple[FoundFile, str | None]] = []  # content that was not here before
    unreadable: list[tuple[FoundFile, str]] = []
    vacated = {path: video for path, video in rows.items() if path not in found}

    anew = [file for file in files if not _is_as_known(file, rows.get(file.path))]
    sizes = Counter(file.size for file in anew)
    sizes.update({video.size: 2 for video in rows.values() if video.fingerprint is not None})
    shared = {file.path for file in anew if sizes[file.size] > 1}
    done = 0

    for file in files:
        video = rows.get(file.path)
        content: str | None = None
        if video is not None and _is_as_known(file, video):
            content = video.fingerprint
        elif file.path in shared:
            hashed(done, len(shared))
            done += 1
            try:
                content = fingerprint(file.path)
            except OSError as error:
                unreadable.append((file, error.strerror or str(error)))
                continue
        same_stat = video is not None and _is_as_known(file, video)
        if video is None:
            elsewhere.append((file, content))
        elif content is None or video.fingerprint != content:
            vacated[file.path] = video
            elsewhere.append((file, content))
        elif video.state == FAILED and not (video.media and video.attempts and content in stored):
            if retry_failed or video.attempts == 0 or not same_stat:
                again.append((file, content))
            else:
                known_failed.append(video)
        elif content not in stored or (retry_failed and video.state == PARTIAL):
            again.append((file, content))
        elif same_stat and video.state not in (MISSING, FAILED):  # a state that its frames contradict
            unchanged.append(video)
        else:
            touched.append((video, file))

    lost = _lost(vacated, found, watched, scan.skipped, gone)
    known_nowhere = [(file, None) for file, _ in unreadable if file.path not in rows]
    renamed = _renamed([*elsewhere, *known_nowhere], vacated, watched, absent)
    moved: list[tuple[Video, FoundFile]] = []
    duplicates: list[tuple[FoundFile, str]] = []
    described = {video.fingerprint for video in rows.values() if video.media is not None}
    for file, content in elsewhere:
        candidates = [*renamed.get(file.path, ()), *lost.get(content or "", ())]
        video = next((video for video in candidates if video.path in vacated), None)
        if video is not None:
            del vacated[video.path]
            moved.append((video, file))
        if video is not None and video.fingerprint is not None:
            ready = content in stored and not (retry_failed and video.state == PARTIAL)
            if video.state == FAILED:
                ready = video.attempts > 0 and not retry_failed
            if not ready:
                again.append((file, content))
        elif content is not None and content in stored and content in described:
            duplicates.append((file, content))
        else:
            again.append((file, content))
    for file, _ in known_nowhere:
        if video := next((video for video in renamed.get(file.path, ()) if video.path in vacated), None):
            del vacated[video.path]
            moved.append((video, file))

    landed = {file.path for _, file in moved}
    replaced = tuple(video for path, video in vacated.items() if path in landed)
    missing = [
        video
        for path, video in vacated.items()
        if path not in found and video.state != MISSING and _below(path, watched, scan.skipped)
    ]
    sighted = {path for path in rows if path in found} | landed
    silent = _silent(missing, sighted, watched, empty, absent)
    unseen = {video.path for videos in silent.values() for video in videos}
    for folder in unreachable:
        if known_there := [path for path, video in rows.items() if _below(path, [folder], ())]:
            silent[folder] = [rows[path] for path in known_there]
    return Plan(
        unchanged=tuple(unchanged),
        touched=tuple(touched),
        moved=tuple(moved),
        duplicates=tuple(duplicates),
        jobs=_jobs(again, stored),
        known_failed=tuple(known_failed),
        missing=tuple(video for video in missing if video.path not in unseen),
        replaced=replaced,
        unreadable=tuple(unreadable),
        unreachable=unreachable,
        silent=tuple((folder, len(videos)) for folder, videos in sorted(silent.items())),
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


def _is_as_known(file: FoundFile, video: Video | None) -> bool:
    """Whether size and time of a file say that it is what it was."""
    if video is None or video.fingerprint is None:
        return False
    return (video.size, video.mtime_ns) == (file.size, file.mtime_ns)


def _renamed(
    elsewhere: Sequence[tuple[FoundFile, str | None]],
    vacated: dict[Path, Video],
    watched: Sequence[Path],
    absent: Callable[[Path], bool],
) -> dict[Path, list[Video]]:
    """By new path, videos whose folder has another name now.

    The root is gone, and its contents are found under another folder at the same places below it. A copy of some files
    of a disk that is away looks the same but for their share: at least half of what this scan could have seen of the
    old folder must be in the new one. A file that could never be read has its name, size and time for a content.
    """
    roots = {video.root for video in vacated.values()}
    gone_roots = {root for root in roots if absent(root)}
    by_content: dict[object, list[Video]] = defaultdict(list)
    for path in sorted(vacated, key=os.fsencode):
        video = vacated[path]
        if video.root in gone_roots:
            by_content[video.fingerprint or (path.name, video.size, video.mtime_ns)].append(video)
    folders: dict[tuple[Path, Path], dict[Path, Video]] = defaultdict(dict)
    for file, content in elsewhere:
        unread = (file.path.name, file.size, file.mtime_ns)
        for video in [*by_content.get(content, ()), *by_content.get(unread, ())]:
            old, new = video.path, file.path
            pair = None
            while old.name == new.name and old.name and absent(old.parent):
                old, new = old.parent, new.parent
                pair = old, new
            if pair:
                folders[pair][file.path] = video
    renamed: dict[Path, list[Video]] = defaultdict(list)
    for (old, new), pairs in folders.items():
        inside = [path for path, video in vacated.items() if old in path.parents and video.state != MISSING]
        visible = sum(_below(new / path.relative_to(old), watched, ()) for path in inside)
        if 2 * len(pairs) >= visible:
            for path, video in pairs.items():
                renamed[path].append(video)
    return renamed


def _silent(
    missing: Sequence[Video],
    sighted: Collection[Path],
    watched: Sequence[Path],
    empty: Callable[[Path], bool],
    absent: Callable[[Path], bool],
) -> dict[Path, list[Video]]:
    """Folders of which one cannot say that their videos are gone, with those: scanned folders and roots where not one
    known video was found (a disk that is away, and something was put in its mount point), and empty folders that had
    some (a mount point within)."""
    alive: set[Path] = set()
    for path in sighted:
        alive.update(path.parents)
    emptiness: dict[Path, Path | None] = {}

    def nearest(folder: Path) -> Path | None:
        """The first folder upwards that is there, if it is empty."""
        if folder not in emptiness:
            if absent(folder) and folder != folder.parent:
                emptiness[folder] = nearest(folder.parent)
            else:
                emptiness[folder] = folder if empty(folder) else None
        return emptiness[folder]

    silent: dict[Path, list[Video]] = defaultdict(list)
    for video in missing:
        holders = [folder for folder in {*watched, video.root} if folder in video.path.parents]
        within = [
            folder for folder in holders if any(top == folder or top in folder.parents for top in watched)
        ]
        dark = [folder for folder in within if folder not in alive]
        if dark:
            silent[min(dark, key=lambda folder: len(folder.parts))].append(video)
        elif hollow := nearest(video.path.parent):
            silent[hollow].append(video)
    return silent


def _below(path: Path, folders: Sequence[Path], skipped: Sequence[Path]) -> bool:
    def inside(parents: Sequence[Path]) -> bool:
        return any(path == parent or parent in path.parents for parent in parents)

    return inside(folders) and not inside(skipped)


def _jobs(again: Sequence[tuple[FoundFile, str | None]], stored: Collection[str]) -> tuple[Job, ...]:
    groups: dict[str, list[FoundFile]] = defaultdict(list)
    jobs = []
    for file, content in again:
        if content is None:
            jobs.append(Job((file,), None))
        else:
            groups[content].append(file)
    jobs += [Job(tuple(files), content, content in stored) for content, files in groups.items()]
    return tuple(sorted(jobs, key=lambda job: os.fsencode(job.path)))
