"""Questions to the catalogue. Each function reads inside one session and gives plain records."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from vsearch.library.catalogue.rows import to_encoder, to_frames, to_generation
from vsearch.library.catalogue.schema import (
    EncoderRow,
    FrameSetRow,
    GenerationRow,
    MetaRow,
    MomentRow,
    VideoRow,
)
from vsearch.library.catalogue.statements import no_encoder
from vsearch.library.heads import HEADS
from vsearch.library.index import current_frame_sets, index_files, live_row, up_to_date
from vsearch.records import (
    COARSE_FPS,
    PRESENT,
    FrameSetInfo,
    LibrarySummary,
)

SAMPLING_RATE = "fps"  # in meta
RESAMPLED = " instead of "  # behind the rate: the one before, of which its frames may still be


def stored_contents(session: Session, backbone: str, fps: float) -> set[str]:
    """Fingerprints whose current frames are of this backbone at this rate."""
    query = select(FrameSetRow.fingerprint).where(
        FrameSetRow.id.in_(current_frame_sets()), FrameSetRow.backbone == backbone, FrameSetRow.fps == fps
    )
    return set(session.scalars(query))


def sampling_rate(session: Session, backbone: str) -> float | None:
    """Sampled frames a second that the library has: as noted, else that of most of its frame sets. None: of no video.

    A rate that is noted and no video has counts only where the note says that it was asked for.
    """
    row = session.get(MetaRow, SAMPLING_RATE)
    noted, resampled, _ = ("" if row is None else row.value).partition(RESAMPLED)
    rates = session.scalars(_rates(backbone)).all()
    with contextlib.suppress(ValueError):
        if 0 < float(noted) < math.inf and (resampled or not rates or float(noted) in rates):
            return float(noted)
    return rates[0] if rates else None


def rate_to_note(session: Session, backbone: str) -> MetaRow | None:
    """In place of the sampling rate that is noted, where no video has that and nobody asked for it."""
    noted, rate = session.get(MetaRow, SAMPLING_RATE), sampling_rate(session, backbone)
    if noted is None or rate is None or noted.value.partition(RESAMPLED)[0] == repr(rate):
        return None
    return MetaRow(key=SAMPLING_RATE, value=repr(rate))


def _rates(backbone: str) -> Select[Any]:
    """Those of current frame sets at full rate, the most frequent first."""
    return (
        select(FrameSetRow.fps)
        .where(
            FrameSetRow.id.in_(current_frame_sets()),
            FrameSetRow.backbone == backbone,
            FrameSetRow.fps != COARSE_FPS,
        )
        .group_by(FrameSetRow.fps)
        .order_by(func.count().desc(), func.max(FrameSetRow.id).desc())
    )


def sampled_otherwise(session: Session, backbone: str, fps: float) -> tuple[int, int]:
    """Contents that are there and have frames at another rate than `fps`: how many, how long together in ms."""
    others = select(FrameSetRow.fingerprint).where(
        FrameSetRow.id.in_(current_frame_sets()), FrameSetRow.backbone == backbone,
        FrameSetRow.fps.not_in([fps, COARSE_FPS]),
    )  # fmt: skip
    durations = (
        select(func.max(VideoRow.duration_ms).label("ms"))
        .where(VideoRow.state.in_(PRESENT), VideoRow.fingerprint.in_(others))
        .group_by(VideoRow.fingerprint)
        .subquery()
    )
    count, ms = session.execute(select(func.count(), func.sum(durations.c.ms)).select_from(durations)).one()
    return int(count), int(ms or 0)


def contents_with_frames(session: Session, backbone: str) -> set[str]:
    """Fingerprints with frames of this backbone at any rate."""
    return set(session.scalars(select(FrameSetRow.fingerprint).where(FrameSetRow.backbone == backbone)))


def frame_sets_without_moments(session: Session, encoder_id: int) -> list[FrameSetInfo]:
    """Also those of whose moments some are lost: they are entered together, so their ids have no gap, and windows
    leave no frame out."""
    encoder = session.get_one(EncoderRow, encoder_id)
    id, first, last = MomentRow.id, MomentRow.first_frame, MomentRow.last_frame
    has = (
        select(MomentRow.frame_set_id)
        .join(FrameSetRow, FrameSetRow.id == MomentRow.frame_set_id)
        .where(MomentRow.encoder_id == encoder_id)
        .group_by(MomentRow.frame_set_id)
        .having(
            func.count() == func.max(id) - func.min(id) + 1,
            func.count() == func.count(MomentRow.start_ms.distinct()),
            func.min(first) == 0,
            func.max(last) == func.max(FrameSetRow.count),
        )
    )
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


def summary(session: Session, library: Path) -> LibrarySummary:
    counted = select(VideoRow.state, func.count()).group_by(VideoRow.state).order_by(VideoRow.state)
    states = {state: count for state, count in session.execute(counted)}
    live = live_row(session)
    encoder = None if live is None else session.get(EncoderRow, live.encoder_id)
    if live is not None and encoder is None:
        raise no_encoder()
    first_look = select(FrameSetRow.fingerprint).where(
        FrameSetRow.fps == COARSE_FPS,
        FrameSetRow.id.in_(current_frame_sets()),
        *([] if encoder is None else [FrameSetRow.backbone == encoder.backbone]),
    )
    coarse = select(func.count()).where(VideoRow.state.in_(PRESENT), VideoRow.fingerprint.in_(first_look))
    catalogue = sum(path.stat().st_size for path in library.glob("catalogue.sqlite*"))
    return LibrarySummary(
        videos=states,
        duration_ms=_sum(session, select(func.sum(VideoRow.covered_ms)).where(VideoRow.state.in_(PRESENT))),
        frame_count=_sum(session, select(func.sum(FrameSetRow.count))),
        moment_count=0 if live is None else live.count,
        bytes={
            "catalogue": catalogue,
            "frames": _sum(session, select(func.sum(FrameSetRow.bytes))),
            "index": sum(size for size in _index_files(session).values() if isinstance(size, int)),
            "thumbs": sum(path.stat().st_size for path in (library / "thumbs").glob("??/*.jpg")),
            "heads": sum(path.stat().st_size for path in (library / HEADS).glob("*/*")),
        },
        coarse=_sum(session, coarse),
        encoder=None if encoder is None else to_encoder(encoder, library),
        generation=None if live is None else to_generation(live),
        up_to_date=live is not None and up_to_date(session, library, live.encoder_id),
        kept={} if encoder is None else _of_other_models(session, encoder.backbone),
    )


def _of_other_models(session: Session, backbone: str) -> dict[str, int]:
    """Bytes of frames of other backbones than that, by backbone."""
    query = select(FrameSetRow.backbone, func.sum(FrameSetRow.bytes)).where(FrameSetRow.backbone != backbone)
    return {name: int(size) for name, size in session.execute(query.group_by(FrameSetRow.backbone))}


def _index_files(session: Session) -> dict[str, int]:
    """Each file of the index once, whatever number of generations share it."""
    files: dict[str, int] = {}
    for row in session.scalars(select(GenerationRow)):
        files |= index_files(row)
    return files


def _sum(session: Session, query: Select[Any]) -> int:
    return int(session.scalar(query) or 0)
