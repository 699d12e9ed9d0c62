"""The changes an indexing run makes to the catalogue. Each function is one unit of work inside a session."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import Connection, Insert, Table, bindparam, case, delete, insert, select, update
from sqlalchemy.orm import Session

from vsearch.library.catalogue.rows import Roots
from vsearch.library.catalogue.schema import FrameSetRow, GarbageRow, MomentRow, VideoRow
from vsearch.library.plan import Plan
from vsearch.library.posters import thumb_name
from vsearch.records import (
    COARSE_FPS,
    FAILED,
    INDEXED,
    MEDIA,
    MISSING,
    PARTIAL,
    FoundFile,
    MediaInfo,
    NewMoment,
    Recorded,
    StoredFrames,
)


def apply_plan(session: Session, roots: Roots, plan: Plan) -> None:
    """Everything of a plan that needs no decoding."""
    for folder in plan.folders:
        roots.add(folder if folder.is_dir() else folder.parent)
    for some in chunks([video.id for video in plan.replaced]):
        session.execute(delete(VideoRow).where(VideoRow.id.in_(some)))
    for some in chunks([video.id for video in plan.missing]):
        session.execute(update(VideoRow).where(VideoRow.id.in_(some)).values(state=MISSING))
    moving = {video.id: file for video, file in plan.moved}
    rows = _videos(session, list(moving))
    for row in rows.values():  # two files may have changed places: clear the names before setting them
        row.rel_path = b"\0moving %d" % row.id
    session.flush()
    for video_id, file in moving.items():
        rows[video_id].root_id, rows[video_id].rel_path = roots.place(file.path)
        _back(rows[video_id], file)
    session.flush()
    roots.drop_empty({video.root for video, _ in plan.moved}.difference(plan.folders))
    rows = _videos(session, [video.id for video, _ in plan.touched])
    for video, file in plan.touched:
        _back(rows[video.id], file)
    for file, fingerprint in plan.duplicates:
        twin = session.scalars(
            select(VideoRow)
            .where(VideoRow.fingerprint == fingerprint, VideoRow.container.is_not(None))
            .order_by(VideoRow.id)
        ).first()
        assert twin is not None
        row = _row_at(session, roots, file)
        row.fingerprint, row.attempts = fingerprint, 1
        for name in _CONTENT:
            setattr(row, name, getattr(twin, name))
        row.state = MISSING
        _back(row, file)
    session.flush()


_CONTENT = (*MEDIA, "covered_ms", "reason")


def record_indexed(
    session: Session,
    roots: Roots,
    *,
    files: Sequence[FoundFile],
    fingerprint: str,
    media: MediaInfo,
    covered_ms: int,
    reason: str | None,
    frames: StoredFrames,
    encoder_id: int,
    moments: Sequence[NewMoment],
) -> Recorded:
    """A decoded content with its frames and moments. A reason makes it `partial`.

    Coarse frames are superseded by any recorded later, and leave the catalogue with the next generation.
    """
    connection = session.connection()
    state = INDEXED if reason is None else PARTIAL
    content = {**asdict(media), "covered_ms": covered_ms, "reason": reason}
    attempts = 0 if frames.coarse else 1
    video_ids = []
    for file in files:
        root_id, rel_path = roots.place(file.path)
        seen = {"size": file.size, "mtime_ns": file.mtime_ns, "fingerprint": fingerprint, "state": state}
        known = connection.scalar(_VIDEO_AT, {"root": root_id, "name": rel_path})
        if known is None:
            new = {
                "root_id": root_id,
                "rel_path": rel_path,
                "added_at": int(time.time()),
                "attempts": attempts,
            }
            known = _insert(connection, _NEW_VIDEO, {**new, **seen, **content})
        else:
            connection.execute(_SEEN_VIDEO, {**seen, "known": known, "more": attempts})
        video_ids.append(known)
    connection.execute(_CONTENT_OF, {**content, "print": fingerprint, "now": state})
    same = {"print": frames.fingerprint, "of": frames.backbone, "rate": frames.fps}
    if old := connection.scalars(_SAME_FRAMES, same).all():
        drop_frame_sets(session, session.scalars(select(FrameSetRow).where(FrameSetRow.id.in_(old))))
    stored = {"file": frames.name, "count": frames.count, "dim": frames.dim, "bytes": frames.bytes}
    kind = {"fingerprint": frames.fingerprint, "backbone": frames.backbone, "fps": frames.fps}
    frame_set_id = _insert(connection, _NEW_FRAMES, {**kind, **stored})
    ids = _enter_moments(connection, encoder_id, {frame_set_id: moments}, {frame_set_id: frames.count})
    return Recorded(tuple(video_ids), frame_set_id, ids[frame_set_id])


def _insert(connection: Connection, statement: Insert, values: dict[str, Any]) -> int:
    """The new row's id."""
    key = connection.execute(statement, values).inserted_primary_key
    assert key is not None
    return int(key[0])


# Made once, and of tables instead of objects: recording a video takes half the time.
_VIDEOS, _FRAME_SETS = cast(Table, VideoRow.__table__), cast(Table, FrameSetRow.__table__)
_MOMENTS = cast(Table, MomentRow.__table__)
_VIDEO_AT = select(_VIDEOS.c.id).where(
    _VIDEOS.c.root_id == bindparam("root"), _VIDEOS.c.rel_path == bindparam("name")
)
_NEW_VIDEO = insert(_VIDEOS)
_SEEN_VIDEO = (
    update(_VIDEOS)
    .where(_VIDEOS.c.id == bindparam("known"))
    .values(
        attempts=_VIDEOS.c.attempts + bindparam("more"),
        **{name: bindparam(name) for name in ("size", "mtime_ns", "fingerprint", "state")},
    )
)
_CONTENT_OF = (  # of all its copies; one that failed before has its frames now, too
    update(_VIDEOS)
    .where(_VIDEOS.c.fingerprint == bindparam("print"))
    .values(
        state=case((_VIDEOS.c.state != MISSING, bindparam("now")), else_=_VIDEOS.c.state),
        **{name: bindparam(name) for name in _CONTENT},
    )
)
_SAME_FRAMES = select(_FRAME_SETS.c.id).where(
    _FRAME_SETS.c.fingerprint == bindparam("print"),
    _FRAME_SETS.c.backbone == bindparam("of"),
    _FRAME_SETS.c.fps == bindparam("rate"),
)
_NEW_FRAMES = insert(_FRAME_SETS)


def record_failed(
    session: Session, roots: Roots, files: Iterable[FoundFile], fingerprint: str | None, reason: str
) -> None:
    for file in files:
        row = _row_at(session, roots, file)
        if fingerprint is None and row.container is not None:
            continue  # a known video that just now cannot be read stays as it was
        row.size, row.mtime_ns, row.fingerprint = file.size, file.mtime_ns, fingerprint
        for name in _CONTENT:
            setattr(row, name, 0 if name == "covered_ms" else None)
        row.state, row.reason = FAILED, reason
        row.attempts += 1
        coarse = FrameSetRow.fingerprint == fingerprint, FrameSetRow.fps == COARSE_FPS
        drop_frame_sets(session, session.scalars(select(FrameSetRow).where(*coarse)))
    session.flush()


def add_moments(
    session: Session, encoder_id: int, moments: Mapping[int, Sequence[NewMoment]]
) -> dict[int, tuple[int, ...]]:
    """Record moments of frame sets (by id) for an encoder, in place of any before; gives their ids, in the given
    order."""
    counts: dict[int, int] = {}
    for some in chunks(list(moments)):
        former = MomentRow.encoder_id == encoder_id, MomentRow.frame_set_id.in_(some)
        session.execute(delete(MomentRow).where(*former))
        query = select(FrameSetRow.id, FrameSetRow.count).where(FrameSetRow.id.in_(some))
        counts.update((id, count) for id, count in session.execute(query))
    return _enter_moments(session.connection(), encoder_id, moments, counts)


def _enter_moments(
    connection: Connection,
    encoder_id: int,
    moments: Mapping[int, Sequence[NewMoment]],
    counts: Mapping[int, int],
) -> dict[int, tuple[int, ...]]:
    values: list[dict[str, Any]] = []
    for frame_set_id, windows in moments.items():
        for moment in windows:
            if not 0 <= moment.first_frame < moment.last_frame <= counts[frame_set_id]:
                raise ValueError(f"{moment} does not fit {counts[frame_set_id]} frames")
            values.append(
                {
                    "frame_set_id": frame_set_id,
                    "encoder_id": encoder_id,
                    "start_ms": moment.start_ms,
                    "end_ms": moment.end_ms,
                    "first_frame": moment.first_frame,
                    "last_frame": moment.last_frame,
                }
            )
    if values:  # asking for the ids afterwards takes a fifth of the time of having each row's returned
        connection.execute(_NEW_MOMENTS, values)
    found: dict[int, list[int]] = {frame_set_id: [] for frame_set_id in moments}
    for some in chunks(list(moments)):
        for frame_set_id, moment_id in connection.execute(_MOMENTS_OF, {"by": encoder_id, "sets": some}):
            found[frame_set_id].append(moment_id)
    return {id: tuple(found[id][len(found[id]) - len(windows) :]) for id, windows in moments.items()}


_NEW_MOMENTS = insert(_MOMENTS)
_MOMENTS_OF = (
    select(_MOMENTS.c.frame_set_id, _MOMENTS.c.id)
    .where(
        _MOMENTS.c.encoder_id == bindparam("by"),
        _MOMENTS.c.frame_set_id.in_(bindparam("sets", expanding=True)),
    )
    .order_by(_MOMENTS.c.id)
)


def forget(session: Session, video_ids: Sequence[int]) -> int:
    """Drop videos, then the posters and frame sets whose content no video has any more."""
    fingerprints: set[str] = set()
    count = 0
    for row in _videos(session, video_ids).values():
        if row.fingerprint is not None:
            fingerprints.add(row.fingerprint)
        session.delete(row)
        count += 1
    session.flush()
    for fingerprint in fingerprints:
        if session.scalars(select(VideoRow.id).where(VideoRow.fingerprint == fingerprint)).first() is None:
            sets = session.scalars(select(FrameSetRow).where(FrameSetRow.fingerprint == fingerprint))
            drop_frame_sets(session, sets)
            discard(session, thumb_name(fingerprint))
    return count


def drop_frame_sets(session: Session, rows: Iterable[FrameSetRow]) -> int:
    """Remove frame sets and, through the foreign key, their moments; their files become garbage."""
    count = 0
    for row in list(rows):
        discard(session, f"frames/{row.file[:2]}/{row.file}.npy")
        session.delete(row)
        count += 1
    session.flush()
    return count


def discard(session: Session, file: str) -> None:
    session.merge(GarbageRow(file=file))


def _row_at(session: Session, roots: Roots, file: FoundFile) -> VideoRow:
    root_id, rel_path = roots.place(file.path)
    row = session.scalars(
        select(VideoRow).where(VideoRow.root_id == root_id, VideoRow.rel_path == rel_path)
    ).first()
    if row is None:
        row = VideoRow(
            root_id=root_id, rel_path=rel_path, size=file.size, mtime_ns=file.mtime_ns, state=FAILED,
            covered_ms=0, added_at=int(time.time()), attempts=0,
        )  # fmt: skip
        session.add(row)
    return row


def _back(row: VideoRow, file: FoundFile) -> None:
    """The file is (again) at the row's place, with the row's content."""
    row.size, row.mtime_ns = file.size, file.mtime_ns
    if row.state == MISSING or (row.state == FAILED and row.container is not None and row.attempts > 0):
        if row.container is None:
            row.state = FAILED
        else:
            row.state = INDEXED if row.reason is None else PARTIAL


def chunks(ids: Sequence[int], size: int = 10_000) -> Iterator[Sequence[int]]:
    """SQLite takes at most 32,766 parameters in a statement."""
    for first in range(0, len(ids), size):
        yield ids[first : first + size]


def _videos(session: Session, ids: Sequence[int]) -> dict[int, VideoRow]:
    return {
        row.id: row
        for some in chunks(ids)
        for row in session.scalars(select(VideoRow).where(VideoRow.id.in_(some)))
    }
