"""Checks a library against itself, and mends what can be mended.

A *problem* is something that must not be: damaged or missing files, rows that contradict each other. A *note*
is what an interrupted run leaves behind, or work that waits for the next one; a library with notes is sound.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from vsearch.errors import LibraryError
from vsearch.library import heads, publishing
from vsearch.library.catalogue import (
    Catalogue,
    EncoderRow,
    FrameSetRow,
    GarbageRow,
    GenerationRow,
    MetaRow,
    MomentRow,
    VideoRow,
    integrity_problems,
)
from vsearch.library.frames import FrameStore
from vsearch.library.index import INDEX, SUFFIXES, open_index
from vsearch.library.reading import LIVE
from vsearch.library.recording import chunks, drop_frame_sets, thumb_name
from vsearch.library.records import FAILED, PRESENT, Embed
from vsearch.library.rows import to_encoder, to_frames, to_generation

REDO = "its stored frames were damaged: `vsearch index` reads it again"


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what was done about it (None: nothing yet, or nothing can be)."""

    what: str
    done: str | None = None


@dataclass(frozen=True)
class Report:
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.problems

    @property
    def mended(self) -> bool:
        return all(problem.done is not None for problem in self.problems)


def verify(
    catalogue: Catalogue,
    folder: Path,
    leftovers: Callable[[], list[Path]],
    *,
    repair: bool,
    embed: Embed | None,
) -> Report:
    """Check everything, every byte. With `repair` (under the writer's lock) mend it; `embed` is that of the
    live encoder, to rebuild a damaged index at once."""
    with catalogue.read() as session:
        broken = integrity_problems(session)
    if broken:
        why = "; ".join(broken[:3])
        return Report((Problem(f"The catalogue is damaged ({why}): restore it from a backup."),), ())
    problems = [
        *_check_frames(catalogue, FrameStore(folder), repair),
        *_check_videos(catalogue, repair),
        *_check_moments(catalogue, repair),
        *_check_generations(catalogue, folder, repair, embed),
        *_check_heads(catalogue, folder),
    ]
    if repair and problems:  # the index drops what is gone at once, and takes up what `embed` can give
        with catalogue.read() as session:
            live = publishing.live_row(session)
        if live is not None:
            publishing.publish(catalogue, folder, live.encoder_id, (), embed, carry_over=True)
    notes = [*_sweep(catalogue, folder, leftovers(), repair), *_waiting(catalogue, folder)]
    return Report(tuple(problems), tuple(notes))


def _check_frames(catalogue: Catalogue, store: FrameStore, repair: bool) -> list[Problem]:
    with catalogue.read() as session:
        rows = session.scalars(select(FrameSetRow).order_by(FrameSetRow.id)).all()
        names = session.execute(select(VideoRow.fingerprint, VideoRow.rel_path))
        videos = {fingerprint: os.fsdecode(name) for fingerprint, name in names}
    broken = [row for row in rows if not _frames_sound(store, row)]
    if repair and broken:
        with catalogue.write() as session:
            for some in chunks([row.id for row in broken]):
                sets = session.scalars(select(FrameSetRow).where(FrameSetRow.id.in_(some)))
                drop_frame_sets(session, sets)
    done = "dropped" if repair else None
    return [
        Problem(
            f"The stored frames of {videos.get(row.fingerprint, row.file)!r} are missing or damaged", done
        )
        for row in broken
    ]


def _frames_sound(store: FrameStore, row: FrameSetRow) -> bool:
    stored = to_frames(row)
    try:
        store.read(stored)  # the shape that the catalogue expects
    except LibraryError:
        return False
    return store.sound(stored)


def _check_videos(catalogue: Catalogue, repair: bool) -> list[Problem]:
    """Searchable videos have frames; those that lost theirs are queued for the next `vsearch index`."""
    bare = (
        VideoRow.state.in_(PRESENT),
        ~exists().where(FrameSetRow.fingerprint == VideoRow.fingerprint),
    )
    with catalogue.read() as session:
        count = len(session.scalars(select(VideoRow.id).where(*bare)).all())
    if count == 0:
        return []
    if repair:
        with catalogue.write() as session:
            session.execute(
                update(VideoRow).where(*bare).values(state=FAILED, attempts=0, reason=REDO, covered_ms=0),
                execution_options={"synchronize_session": False},
            )
    done = "they are read again by the next `vsearch index`" if repair else None
    return [Problem(f"{count} videos are searchable but have no stored frames", done)]


def _check_moments(catalogue: Catalogue, repair: bool) -> list[Problem]:
    query = (
        select(MomentRow.frame_set_id, MomentRow.encoder_id)
        .join(FrameSetRow, FrameSetRow.id == MomentRow.frame_set_id)
        .where(
            or_(
                MomentRow.last_frame > FrameSetRow.count,
                MomentRow.first_frame < 0,
                MomentRow.first_frame >= MomentRow.last_frame,
                MomentRow.start_ms > MomentRow.end_ms,
            )
        )
        .distinct()
    )
    with catalogue.read() as session:
        wrong = session.execute(query).all()
    if repair and wrong:
        with catalogue.write() as session:
            for frame_set_id, encoder_id in wrong:
                session.execute(
                    delete(MomentRow).where(
                        MomentRow.frame_set_id == frame_set_id, MomentRow.encoder_id == encoder_id
                    )
                )
    done = "dropped; the next `vsearch index` makes them again" if repair else None
    return [Problem(f"Moments of frame set {id} do not fit its frames", done) for id, _ in wrong]


def _check_generations(
    catalogue: Catalogue, folder: Path, repair: bool, embed: Embed | None
) -> list[Problem]:
    with catalogue.read() as session:
        live = publishing.live_row(session)
        rows = session.scalars(select(GenerationRow).order_by(GenerationRow.id)).all()
    problems: list[Problem] = []
    for row in rows:
        try:
            open_index(folder, to_generation(row), full=True)
            continue
        except FileNotFoundError:
            what = f"The file of index generation {row.id} is missing"
        except LibraryError as error:
            what = f"Index generation {row.id}: {error}"
        done = None
        if repair:
            is_live = live is not None and live.id == row.id
            done = _drop_generation(catalogue, row, is_live)
            if is_live and embed is not None:
                publishing.publish(catalogue, folder, row.encoder_id, (), embed, carry_over=False)
                done = "rebuilt from the stored frames"
        problems.append(Problem(what, done))
    return problems


def _drop_generation(catalogue: Catalogue, row: GenerationRow, is_live: bool) -> str:
    with catalogue.write() as session:
        if is_live:
            session.execute(delete(MetaRow).where(MetaRow.key == LIVE))
        kept = session.get(GenerationRow, row.id)
        if kept is not None:
            publishing.drop_generation(session, kept)
    return "dropped; `vsearch index` builds it again" if is_live else "dropped"


def _check_heads(catalogue: Catalogue, folder: Path) -> list[Problem]:
    """Trained heads of kept generations; what is lost of one is only in the checkpoint that it was copied from."""
    with catalogue.read() as session:
        used = select(GenerationRow.encoder_id).distinct()
        rows = session.scalars(select(EncoderRow).where(EncoderRow.id.in_(used))).all()
    encoders = [to_encoder(row, folder) for row in rows]
    return [
        Problem(
            f"The trained head {encoder.head} is missing or damaged: adopt its checkpoint again "
            "(vsearch adopt CHECKPOINT) or go back to the head before (vsearch adopt --rollback)"
        )
        for encoder in encoders
        if "checkpoint" in encoder.spec.get("head", {})
        and not heads.sound(Path(encoder.spec["head"]["checkpoint"]))
    ]


def _sweep(catalogue: Catalogue, folder: Path, leftovers: list[Path], repair: bool) -> list[str]:
    """Files that no row names."""
    store = FrameStore(folder)
    with catalogue.read() as session:
        named = set(session.scalars(select(FrameSetRow.file)))
        indexes = {
            folder / name
            for row in session.scalars(select(GenerationRow))
            for name in publishing.index_files(row)
        }
        thumbs = _thumbs(session)
        waiting = {folder / name for name in session.scalars(select(GarbageRow.file))}  # for the next writer
    orphans = {
        "stored frames that no video has": [store.path(name) for name in sorted(store.names() - named)],
        "index files that are no generation": [
            path
            for path in sorted((folder / INDEX).glob("*"))
            if path.suffix in SUFFIXES and path not in indexes
        ],
        "posters that no video has": [
            path
            for path in sorted((folder / "thumbs").glob("??/*.jpg"))
            if str(path.relative_to(folder)) not in thumbs
        ],
        "temporary files of an interrupted run": leftovers,
    }
    if repair:
        for paths in orphans.values():
            for path in paths:
                path.unlink(missing_ok=True)
    orphans = {what: [path for path in paths if path not in waiting] for what, paths in orphans.items()}
    verb = "deleted" if repair else "`vsearch verify --repair` deletes them"
    return [f"{len(paths)} {what}: {verb}" for what, paths in orphans.items() if paths]


def _thumbs(session: Session) -> set[str]:
    prints = session.scalars(select(VideoRow.fingerprint).distinct())
    return {thumb_name(fingerprint) for fingerprint in prints if fingerprint is not None}


def _waiting(catalogue: Catalogue, folder: Path) -> list[str]:
    with catalogue.read() as session:
        live = publishing.live_row(session)
        if live is None:
            some = session.scalars(select(MomentRow.id).limit(1)).first()
            behind = some is not None
        else:
            behind = not publishing.up_to_date(session, folder, live.encoder_id)
    return ["The search index is behind the catalogue: run `vsearch index`"] if behind else []
