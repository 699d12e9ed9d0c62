"""What is asked of the catalogue, as SQL that SQLite's own driver and SQLAlchemy both run, and what its rows come to."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vsearch.errors import LibraryError
from vsearch.library.catalogue.connection import Ask
from vsearch.library.catalogue.rows import (
    RootFolders,
    to_encoder,
    to_frames,
    to_generation,
    to_video,
    whole_number,
)
from vsearch.library.index import damaged, is_of
from vsearch.records import (
    COARSE_FPS,
    FAILED,
    MISSING,
    PRESENT,
    EncoderInfo,
    FrameSetInfo,
    Generation,
    Moment,
    Video,
)

LIVE = "live_generation"
_SLACK_MS = 10_000  # that a moment may end behind what its video's file says is its length
_CHUNK = 10_000  # SQLite takes at most 32,766 parameters in a statement

_ROOT = namedtuple("_ROOT", "id path relative")
VIDEO = namedtuple(
    "VIDEO",
    "id root_id rel_path size mtime_ns fingerprint state reason container codec width height rotation "
    "duration_ms avg_fps covered_ms added_at attempts start_ms",
)
_ENCODER = namedtuple("_ENCODER", "id identity backbone head spec")
_ENCODER_OF = "FROM encoders t WHERE t.id = :id"
_FRAME_SET = namedtuple("_FRAME_SET", "id fingerprint backbone fps file count dim bytes")
TOLD = ("fingerprint", "backbone", "fps")  # of a frame set's row, in its file, too
_MOMENT = namedtuple("_MOMENT", "id frame_set_id start_ms end_ms first_frame last_frame")
_GENERATION = namedtuple(
    "_GENERATION", "id encoder_id file count dim sha256 sample bytes id_check created_at base"
)


def live_generation(ask: Ask) -> Generation | None:
    """None where nothing was published yet. Raises LibraryError when the catalogue does not say which one answers."""
    pointer = ask("SELECT value FROM meta WHERE key = :key", key=LIVE)
    id = whole_number(pointer[0][0]) if pointer else None
    found = id is not None and _rows(ask, _GENERATION, "FROM generations t WHERE t.id = :id", id=id)
    if found:
        generation = to_generation(found[0])
        encoders = _rows(ask, _ENCODER, _ENCODER_OF, id=generation.encoder_id)
        if any(not is_of(found[0], row.identity) for row in encoders):
            raise damaged("its row is of another encoder")
        return generation
    if pointer or ask("SELECT 1 FROM generations LIMIT 1"):
        raise LibraryError("The catalogue does not say which index answers: run `vsearch verify --repair`.")
    return None


def encoder(ask: Ask, library: Path, encoder_id: int) -> EncoderInfo:
    found = _rows(ask, _ENCODER, _ENCODER_OF, id=encoder_id)
    if not found:
        raise no_encoder()
    return to_encoder(found[0], library)


def no_encoder() -> LibraryError:
    return LibraryError("The catalogue lacks the encoder of its index: run `vsearch verify --repair`.")


def roots(ask: Ask, library: Path) -> RootFolders:
    return RootFolders(_rows(ask, _ROOT, "FROM roots t"), library)


def videos(ask: Ask, folders: RootFolders, states: Sequence[str] = ()) -> list[Video]:
    if states:
        rows = rows_in(ask, VIDEO, "FROM videos t WHERE t.state", states)
    else:
        rows = _rows(ask, VIDEO, "FROM videos t")
    return _in_path_order(to_video(row, folders) for row in rows)


def pick(known: Sequence[Video], text: str, path: Path) -> Video:
    """The video that `text` names: its path, or an end of it."""
    for video in known:
        if video.path == path:
            return video
    parts = Path(text).parts
    matching = [video for video in known if parts and video.path.parts[-len(parts) :] == parts]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise LibraryError(f"No video in this library is called {text!r}: `vsearch ls` shows them all.")
    some = ", ".join(str(video.path) for video in matching[:5]) + (", …" if len(matching) > 5 else "")
    raise LibraryError(f"{len(matching)} videos are called {text!r}, give more of the path: {some}")


def moments(
    ask: Ask, folders: RootFolders, ids: Sequence[int], theirs: Callable[[Any, Sequence[Video]], bool]
) -> tuple[list[Moment], list[Video], bool]:
    """Moments by id, in the given order, the videos of those left out because they do not fit their frames, and whether
    others are left out though no video of theirs is away or could not be read. `theirs`: whether a set is of videos."""
    rows = {row.id: row for row in rows_in(ask, _MOMENT, "FROM moments t WHERE t.id", ids)}
    sets = {
        row.id: row for row in frame_sets(ask, sorted({row.frame_set_id for row in rows.values()}, key=str))
    }
    contents = list({row.fingerprint for row in sets.values()})
    of = of_contents(ask, contents)
    copies = present(of, folders)
    away = {content for content, found in of.items() if any(is_away(row, folders) for row in found)}
    astray = len(rows) < len(set(ids))
    sound = {id for id, row in sets.items() if theirs(row, copies[row.fingerprint])}
    found: list[Moment] = []
    unfit: dict[int, Video] = {}
    for row in (rows[id] for id in ids if id in rows):
        frames = sets.get(row.frame_set_id)
        videos = () if frames is None else copies[frames.fingerprint]
        if frames is None or not videos:
            astray |= frames is None or frames.fingerprint not in away
        elif frames.id in sound and fits(row, frames.count, videos):
            coarse = frames.fps == COARSE_FPS
            found.append(_to_moment(row, frames.fingerprint, videos, coarse=coarse))
        else:
            unfit[videos[0].id] = videos[0]
    return found, list(unfit.values()), astray


def of_contents(ask: Ask, contents: Sequence[str]) -> dict[str, list[Any]]:
    """Rows of videos by content."""
    of: dict[str, list[Any]] = {content: [] for content in contents}
    for row in rows_in(ask, VIDEO, "FROM videos t WHERE t.fingerprint", contents):
        of[row.fingerprint].append(row)
    return of


def present(of: dict[str, list[Any]], folders: RootFolders) -> dict[str, tuple[Video, ...]]:
    """Those of each content that are there, in path order."""
    return {
        content: tuple(_in_path_order(to_video(row, folders) for row in found if row.state in PRESENT))
        for content, found in of.items()
    }


def is_away(video: Any, folders: RootFolders) -> bool:
    """Whether a video's row says why it is not shown, and that is true as far as it goes."""
    if video.state == MISSING:
        try:
            return folders.path(video).stat().st_size != video.size
        except OSError:
            return True
    return video.state == FAILED and bool(video.reason) and video.container is None


def fits(moment: Any, count: int, of: Sequence[Video]) -> bool:
    """Whether a moment's row can be true of `count` frames and of these videos, copies of one another."""
    values = (moment.start_ms, moment.end_ms, moment.first_frame, moment.last_frame)
    if not all(isinstance(value, int) for value in values) or not isinstance(count, int):
        return False
    # A video may be a little shorter than its last frame's time says, but never by a window.
    long_ms = max(max(video.covered_ms, video.media.duration_ms if video.media else 0) for video in of)
    frames = 0 <= moment.first_frame < moment.last_frame <= count
    return frames and 0 <= moment.start_ms <= moment.end_ms <= long_ms + _SLACK_MS


def frame_sets(ask: Ask, ids: Sequence[int]) -> list[Any]:
    return rows_in(ask, _FRAME_SET, "FROM frame_sets t WHERE t.id", ids)


def frame_set_of(ask: Ask, fingerprint: str | None, backbone: str) -> FrameSetInfo | None:
    rows = _rows(
        ask,
        _FRAME_SET,
        "FROM frame_sets t WHERE t.fingerprint = :fingerprint AND t.backbone = :backbone ORDER BY t.id DESC LIMIT 1",
        fingerprint=fingerprint,
        backbone=backbone,
    )
    if not rows:
        return None
    longest = ask("SELECT max(duration_ms) FROM videos WHERE fingerprint = :content", content=fingerprint)
    return FrameSetInfo(rows[0].id, to_frames(rows[0]), longest[0][0] or 0)


def _to_moment(row: Any, fingerprint: str, there: tuple[Video, ...], *, coarse: bool) -> Moment:
    return Moment(
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        first_frame=row.first_frame,
        last_frame=row.last_frame,
        id=row.id,
        frame_set_id=row.frame_set_id,
        fingerprint=fingerprint,
        videos=there,
        coarse=coarse,
    )


def _in_path_order(found: Iterable[Video]) -> list[Video]:
    return sorted(found, key=lambda video: os.fsencode(video.path))


def _rows(ask: Ask, kind: Any, rest: str, **values: Any) -> list[Any]:
    """Rows by name. `rest`: of the statement, after the columns; the table is called t."""
    columns = ", ".join(f"t.{name}" for name in kind._fields)
    return [kind(*row) for row in ask(f"SELECT {columns} {rest}", **values)]


def rows_in(ask: Ask, kind: Any, rest: str, values: Sequence[Any]) -> list[Any]:
    """Rows whose column, the last word of `rest`, is one of any number of values."""
    rows: list[Any] = []
    for first in range(0, len(values), _CHUNK):
        named = {f"v{i}": value for i, value in enumerate(values[first : first + _CHUNK])}
        rows += _rows(ask, kind, f"{rest} IN ({', '.join(':' + name for name in named)})", **named)
    return rows
