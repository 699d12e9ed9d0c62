"""The changes an indexing run makes to the catalogue. Each function is one unit of work inside a session."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from vsearch.library.catalogue import FrameSetRow, GarbageRow, MomentRow, VideoRow
from vsearch.library.planning import Plan
from vsearch.library.records import (
    COARSE_FPS,
    FAILED,
    INDEXED,
    MISSING,
    PARTIAL,
    FoundFile,
    MediaInfo,
    NewMoment,
    Recorded,
    StoredFrames,
)
from vsearch.library.rows import Roots


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


_CONTENT = (
    "container",
    "codec",
    "width",
    "height",
    "rotation",
    "duration_ms",
    "avg_fps",
    "covered_ms",
    "reason",
)


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
    rows = [_row_at(session, roots, file) for file in files]
    for row, file in zip(rows, files, strict=True):
        row.size, row.mtime_ns = file.size, file.mtime_ns
        row.fingerprint = fingerprint
    session.flush()
    twins = session.scalars(select(VideoRow).where(VideoRow.fingerprint == fingerprint)).all()
    here = {row.id for row in rows}
    for row in twins:
        if row.id in here or row.state == FAILED:  # a copy that failed before has its frames now, too
            row.state = INDEXED if reason is None else PARTIAL
        row.attempts += 1 if row.id in here and not frames.coarse else 0
        row.reason, row.covered_ms = reason, covered_ms
        row.container, row.codec = media.container, media.codec
        row.width, row.height, row.rotation = media.width, media.height, media.rotation
        row.duration_ms, row.avg_fps = media.duration_ms, media.avg_fps

    drop_frame_sets(
        session,
        session.scalars(
            select(FrameSetRow).where(
                FrameSetRow.fingerprint == frames.fingerprint,
                FrameSetRow.backbone == frames.backbone,
                FrameSetRow.fps == frames.fps,
            )
        ),
    )
    frame_set = FrameSetRow(
        fingerprint=frames.fingerprint,
        backbone=frames.backbone,
        fps=frames.fps,
        file=frames.name,
        count=frames.count,
        dim=frames.dim,
        bytes=frames.bytes,
    )
    session.add(frame_set)
    session.flush()
    ids = add_moments(session, encoder_id, {frame_set.id: moments})[frame_set.id]
    return Recorded(tuple(row.id for row in rows), frame_set.id, ids)


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
    """Record moments of frame sets (by id) for an encoder; gives their ids, in the given order."""
    counts: dict[int, int] = {}
    for some in chunks(list(moments)):
        query = select(FrameSetRow.id, FrameSetRow.count).where(FrameSetRow.id.in_(some))
        counts.update((id, count) for id, count in session.execute(query))
    values = []
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
        session.connection().execute(insert(MomentRow.__table__), values)  # type: ignore[arg-type]
    found: dict[int, list[int]] = {frame_set_id: [] for frame_set_id in moments}
    for some in chunks(list(moments)):
        own = MomentRow.encoder_id == encoder_id, MomentRow.frame_set_id.in_(some)
        query_ids = select(MomentRow.frame_set_id, MomentRow.id).where(*own).order_by(MomentRow.id)
        for frame_set_id, moment_id in session.execute(query_ids):
            found[frame_set_id].append(moment_id)
    return {id: tuple(found[id][len(found[id]) - len(windows) :]) for id, windows in moments.items()}


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
    if row.state == MISSING:
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


def thumb_name(fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
    return str(Path("thumbs") / digest[:2] / f"{digest}.jpg")
