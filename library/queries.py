"""Questions to the catalogue. Each function reads inside one session and gives plain records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from vsearch.errors import LibraryError
from vsearch.library.catalogue import EncoderRow, FrameSetRow, GenerationRow, MomentRow, VideoRow
from vsearch.library.heads import HEADS
from vsearch.library.publishing import current_frame_sets, index_files, live_row, up_to_date
from vsearch.library.recording import chunks
from vsearch.library.records import (
    PRESENT,
    FrameSetInfo,
    Moment,
    StoredFrames,
    Summary,
    Video,
)
from vsearch.library.rows import Roots, to_encoder, to_frames, to_generation, to_video


def videos(session: Session, roots: Roots, states: Sequence[str] = ()) -> list[Video]:
    query = select(VideoRow)
    if states:
        query = query.where(VideoRow.state.in_(states))
    return _in_path_order(to_video(row, roots) for row in session.scalars(query))


def stored_contents(session: Session, backbone: str, fps: float) -> set[str]:
    """Fingerprints whose current frames are of this backbone at this rate."""
    query = select(FrameSetRow.fingerprint).where(
        FrameSetRow.id.in_(current_frame_sets()), FrameSetRow.backbone == backbone, FrameSetRow.fps == fps
    )
    return set(session.scalars(query))


def pick(known: Sequence[Video], text: str) -> Video:
    """The video that `text` names: its path, or an end of it."""
    exact = Path(os.path.abspath(os.path.expanduser(text)))
    for video in known:
        if video.path == exact:
            return video
    parts = Path(text).parts
    matching = [video for video in known if parts and video.path.parts[-len(parts) :] == parts]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise LibraryError(f"No video in this library is called {text!r}: `vsearch ls` shows them all.")
    some = ", ".join(str(video.path) for video in matching[:5]) + (", …" if len(matching) > 5 else "")
    raise LibraryError(f"{len(matching)} videos are called {text!r}, give more of the path: {some}")


def moments(session: Session, roots: Roots, ids: Sequence[int]) -> list[Moment]:
    rows: dict[int, tuple[MomentRow, str]] = {}
    for some in chunks(ids):
        query = select(MomentRow, FrameSetRow.fingerprint).join(
            FrameSetRow, FrameSetRow.id == MomentRow.frame_set_id
        )
        for row, fingerprint in session.execute(query.where(MomentRow.id.in_(some))):
            rows[row.id] = (row, fingerprint)
    there = _present(session, roots, sorted({fingerprint for _, fingerprint in rows.values()}))
    found = (rows[id] for id in ids if id in rows)
    return [_moment(row, content, there[content]) for row, content in found if content in there]


def moments_of(session: Session, roots: Roots, video: Video, encoder_id: int) -> list[Moment]:
    ids = session.scalars(
        select(MomentRow.id)
        .join(FrameSetRow, FrameSetRow.id == MomentRow.frame_set_id)
        .where(
            MomentRow.encoder_id == encoder_id,
            FrameSetRow.fingerprint == video.fingerprint,
            FrameSetRow.id.in_(current_frame_sets()),
        )
        .order_by(MomentRow.start_ms, MomentRow.id)
    ).all()
    return moments(session, roots, ids)


def stored_frames(session: Session, frame_set_id: int) -> StoredFrames | None:
    row = session.get(FrameSetRow, frame_set_id)
    return None if row is None else to_frames(row)


def frame_set_of(session: Session, fingerprint: str | None, backbone: str) -> FrameSetInfo | None:
    row = session.scalars(
        select(FrameSetRow)
        .where(FrameSetRow.fingerprint == fingerprint, FrameSetRow.backbone == backbone)
        .order_by(FrameSetRow.id.desc())
        .limit(1)
    ).first()
    return None if row is None else FrameSetInfo(row.id, to_frames(row), _duration_ms(session, row))


def frame_sets_without_moments(session: Session, encoder_id: int) -> list[FrameSetInfo]:
    encoder = session.get_one(EncoderRow, encoder_id)
    has = select(MomentRow.frame_set_id).where(MomentRow.encoder_id == encoder_id)
    durations = (
        select(VideoRow.fingerprint, func.max(VideoRow.duration_ms).label("duration_ms"))
        .group_by(VideoRow.fingerprint)
        .subquery()
    )
    rows = session.execute(
        select(FrameSetRow, durations.c.duration_ms)
        .join(durations, durations.c.fingerprint == FrameSetRow.fingerprint)
        .where(
            FrameSetRow.id.in_(current_frame_sets()),
            FrameSetRow.backbone == encoder.backbone,
            FrameSetRow.id.not_in(has),
        )
        .order_by(FrameSetRow.id)
    )
    return [FrameSetInfo(row.id, to_frames(row), duration_ms or 0) for row, duration_ms in rows]


def summary(session: Session, library: Path) -> Summary:
    counted = select(VideoRow.state, func.count()).group_by(VideoRow.state).order_by(VideoRow.state)
    states = {state: count for state, count in session.execute(counted)}
    live = live_row(session)
    encoder = None if live is None else session.get_one(EncoderRow, live.encoder_id)
    catalogue = sum(path.stat().st_size for path in library.glob("catalogue.sqlite*"))
    return Summary(
        videos=states,
        duration_ms=_sum(session, select(func.sum(VideoRow.covered_ms)).where(VideoRow.state.in_(PRESENT))),
        frame_count=_sum(session, select(func.sum(FrameSetRow.count))),
        moment_count=0 if live is None else live.count,
        bytes={
            "catalogue": catalogue,
            "frames": _sum(session, select(func.sum(FrameSetRow.bytes))),
            "index": sum(_index_files(session).values()),
            "thumbs": sum(path.stat().st_size for path in (library / "thumbs").glob("??/*.jpg")),
            "heads": sum(path.stat().st_size for path in (library / HEADS).glob("*/*")),
        },
        encoder=None if encoder is None else to_encoder(encoder, library),
        generation=None if live is None else to_generation(live),
        up_to_date=live is not None and up_to_date(session, live.encoder_id),
    )


def _index_files(session: Session) -> dict[str, int]:
    """Each file of the index once, whatever number of generations share it."""
    files: dict[str, int] = {}
    for row in session.scalars(select(GenerationRow)):
        files |= index_files(row)
    return files


def _present(session: Session, roots: Roots, fingerprints: Sequence[str]) -> dict[str, tuple[Video, ...]]:
    found: dict[str, list[Video]] = {}
    for first in range(0, len(fingerprints), 10_000):
        some = fingerprints[first : first + 10_000]
        query = select(VideoRow).where(VideoRow.fingerprint.in_(some), VideoRow.state.in_(PRESENT))
        for row in session.scalars(query):
            found.setdefault(row.fingerprint or "", []).append(to_video(row, roots))
    return {content: tuple(_in_path_order(copies)) for content, copies in found.items()}


def _moment(row: MomentRow, fingerprint: str, there: tuple[Video, ...]) -> Moment:
    return Moment(
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        first_frame=row.first_frame,
        last_frame=row.last_frame,
        id=row.id,
        frame_set_id=row.frame_set_id,
        fingerprint=fingerprint,
        videos=there,
    )


def _duration_ms(session: Session, row: FrameSetRow) -> int:
    query = select(func.max(VideoRow.duration_ms)).where(VideoRow.fingerprint == row.fingerprint)
    return session.scalar(query) or 0


def _in_path_order(found: Iterable[Video]) -> list[Video]:
    return sorted(found, key=lambda video: os.fsencode(video.path))


def _sum(session: Session, query: Select[Any]) -> int:
    return int(session.scalar(query) or 0)
