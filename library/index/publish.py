"""Generations in the catalogue: which moments belong in the index, which generation answers, what to keep.

Under the writer's lock: build a file beside the live one, then switch the pointer, drop what is superseded
and name the garbage, all in one transaction. Killed before, the old one answers; killed after, the new.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, String, cast, delete, exists, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.library.catalogue import (
    LIVE,
    Catalogue,
    EncoderRow,
    FrameSetRow,
    GenerationRow,
    MetaRow,
    MomentRow,
    TextVectorRow,
    VideoRow,
    chunks,
    discard,
    drop_frame_sets,
    no_encoder,
    to_frames,
    to_generation,
    whole_number,
)
from vsearch.library.files import put_in_place
from vsearch.library.frames import FrameStore
from vsearch.library.index.parts import INDEX, MEND, damaged, remove
from vsearch.library.index.view import (
    IndexView,
    check_index,
    generation_row,
    id_check_of,
    is_of,
    open_index,
    part_files,
    sealed,
    write_index,
    write_update,
)
from vsearch.library.posters import thumb_name
from vsearch.library.sentences import unpacked
from vsearch.records import PRESENT, Each, Embed, Generation, NewMoment, StoredFrames

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


_log = logging.getLogger(__name__)


def live_row(session: Session) -> GenerationRow | None:
    """The generation that answers; None also when what the catalogue says is none of them."""
    pointer = session.get(MetaRow, LIVE)
    id = None if pointer is None else whole_number(pointer.value)
    return None if id is None else session.get(GenerationRow, id)


def current_frame_sets() -> Select[Any]:
    """Ids of the frame sets that count: the newest of each content and backbone."""
    return select(func.max(FrameSetRow.id)).group_by(FrameSetRow.fingerprint, FrameSetRow.backbone)


def valid_moments(encoder_id: int) -> Select[Any]:
    """Ids of the moments that belong in the index: of current frame sets, of videos that are there."""
    present = exists().where(VideoRow.fingerprint == FrameSetRow.fingerprint, VideoRow.state.in_(PRESENT))
    return (
        select(MomentRow.id)
        .join(FrameSetRow, FrameSetRow.id == MomentRow.frame_set_id)
        .join(EncoderRow, EncoderRow.id == MomentRow.encoder_id)
        .where(FrameSetRow.backbone == EncoderRow.backbone)
        .where(MomentRow.encoder_id == encoder_id, FrameSetRow.id.in_(current_frame_sets()), present)
        .order_by(MomentRow.id)
    )


def up_to_date(session: Session, folder: Path, encoder_id: int, *, full: bool = False) -> bool:
    """Whether the live index is the encoder's, whole on the disk, and has exactly the moments that it should have.

    `full`: every byte of a large one is looked at, too.
    """
    live = live_row(session)
    if live is None or live.encoder_id != encoder_id:
        return False
    ids = func.aggregate_strings(cast(valid_moments(encoder_id).subquery().c.id, String), ",")
    encoder = session.get(EncoderRow, encoder_id)
    now = id_check_of(session.scalar(select(ids)) or "")
    if encoder is None or live.id_check != sealed(now, encoder.identity, live.sha256, live.base):
        return False
    try:
        check_index(folder, to_generation(live), full=full)
    except (OSError, LibraryError):  # gone, or not to be read: either way it is made anew
        return False
    return True


def encoder_of(session: Session, row: GenerationRow) -> int:
    """The id of the encoder whose index this is: the row's own may have been changed."""
    encoders = session.scalars(select(EncoderRow)).all()
    fit = [each.id for each in encoders if is_of(row, each.identity)]
    return row.encoder_id if row.encoder_id in fit or not fit else fit[0]


def put_right(catalogue: Catalogue, *, repair: bool = True) -> list[int]:
    """Generations that stand under another encoder than their own, by id; with `repair` they no longer do."""
    with catalogue.read() as session:
        rows = session.scalars(select(GenerationRow).order_by(GenerationRow.id)).all()
        owners = {row.id: encoder_of(session, row) for row in rows}
    wrong = [row.id for row in rows if owners[row.id] != row.encoder_id]
    if wrong and repair:
        with catalogue.write() as session:
            for id in wrong:
                session.get_one(GenerationRow, id).encoder_id = owners[id]
    return wrong


def publish(
    catalogue: Catalogue,
    folder: Path,
    encoder_id: int,
    new_vectors: Iterable[Batch],
    embed: Embed | None,
    *,
    carry_over: bool,
    each: Each = map,
) -> Generation:
    """Build and switch to a new generation: given vectors, then those of the encoder's newest generation
    (`carry_over`), then `embed` for moments that have none. Without `embed` those wait for the next time."""
    import numpy as np

    put_right(catalogue)
    with catalogue.read() as session:
        encoder = session.get(EncoderRow, encoder_id)
        if encoder is None:
            raise no_encoder()
        valid = np.fromiter(session.scalars(valid_moments(encoder_id)), np.int64)
        former = session.scalars(
            select(GenerationRow)
            .where(GenerationRow.encoder_id == encoder_id)
            .order_by(GenerationRow.id.desc())
            .limit(1)
        ).first()
        live = live_row(session)

    view = _open_former(folder, to_generation(former), embed) if carry_over and former is not None else None
    update = view is not None and view.takes_update(valid)
    written: list[npt.NDArray[np.int64]] = []

    def batches() -> Iterator[Batch]:
        for ids, vectors in new_vectors:
            written.append(np.asarray(ids, np.int64))
            yield written[-1], vectors
        if view is not None:
            for ids, vectors in view.exact.vectors() if update else view.vectors():
                written.append(ids)
                yield ids, vectors
        if embed is not None:
            if update and view is not None and view.base is not None:
                written.append(view.base.ids)
            bare = np.setdiff1d(valid, np.concatenate([*written, np.empty(0, np.int64)]))
            yield from embed_moments(catalogue, FrameStore(folder), bare.tolist(), embed, each)

    if update and view is not None:
        new = write_update(folder, view, batches(), valid)
    else:
        new = write_index(folder, batches(), valid, lambda: _sentences(catalogue, encoder_id))
    row = GenerationRow(**generation_row(new, encoder_id, encoder.identity))
    try:
        with catalogue.write() as session:
            if (
                live is not None
                and live.encoder_id == encoder_id
                and (live.sha256, live.base) == (row.sha256, row.base)
                and not (folder / INDEX / live.file).is_dir()
            ):
                # Nothing changed. The new file takes the old one's place, which may have been damaged.
                put_in_place(folder / INDEX / row.file, folder / INDEX / live.file)
                kept = session.get_one(GenerationRow, live.id)
                kept.id_check = row.id_check
                return to_generation(kept)
            session.add(row)
            session.flush()
            _point_to(session, row.id)
            _keep(session, row.id, None if live is None else live.id)
            prune(session)
            return to_generation(row)
    except BaseException:
        if not _entered(catalogue, row.file):
            remove(folder, *new.new)
        raise


def _entered(catalogue: Catalogue, file: str) -> bool:
    """Whether the catalogue names an index file, or may: a commit can be on the disk though it ended in an error."""
    try:
        with catalogue.read() as session:
            return bool(session.scalar(select(exists().where(GenerationRow.file == file))))
    except (LibraryError, SQLAlchemyError):
        return True


def switch(catalogue: Catalogue, folder: Path, generation_id: int) -> Generation:
    """Make a kept generation the one that answers, after checking its file."""
    with catalogue.read() as session:
        row = session.get(GenerationRow, generation_id)
        encoder = None if row is None else session.get(EncoderRow, row.encoder_id)
    if row is None:
        raise LibraryError(f"There is no generation {generation_id} in this library: see `vsearch status`.")
    if encoder is not None and not is_of(row, encoder.identity):
        raise damaged("its row is of another encoder")
    try:
        open_index(folder, to_generation(row), full=True)
    except FileNotFoundError as error:
        raise damaged("its file is missing") from error
    with catalogue.write() as session:
        _point_to(session, generation_id)
    return to_generation(row)


def embed_moments(
    catalogue: Catalogue, store: FrameStore, ids: list[int], embed: Embed, each: Each = map
) -> Iterator[Batch]:
    """Vectors of moments from their stored frames, a frame set at a time; `each` may work on several at once."""
    import numpy as np

    def embedded(stored: tuple[StoredFrames, tuple[int, ...], list[NewMoment]]) -> Batch | None:
        frame_set, moment_ids, moments = stored
        try:
            frames = store.read(frame_set)
        except DamagedFramesError:  # costs that video alone; the index is behind until it is mended
            _log.warning("%s", _bare(catalogue, frame_set))
            return None
        vectors = embed(frames.vectors, frames.times_ms, moments)
        return np.array(moment_ids, np.int64), np.asarray(vectors, np.float32)

    yield from (batch for batch in each(embedded, _stored_moments(catalogue, ids)) if batch is not None)


def _bare(catalogue: Catalogue, frames: StoredFrames) -> str:
    named = select(VideoRow.rel_path).where(VideoRow.fingerprint == frames.fingerprint).order_by(VideoRow.id)
    with catalogue.read() as session:
        name = os.fsdecode(session.scalars(named).first() or b"a video")
    return f"The stored frames of {name} are missing or damaged; it is left out of the index: {MEND}."


def _stored_moments(
    catalogue: Catalogue, ids: list[int]
) -> Iterator[tuple[StoredFrames, tuple[int, ...], list[NewMoment]]]:
    """Frame sets with the ids of their moments and the moments."""
    kept = MomentRow.start_ms, MomentRow.end_ms, MomentRow.first_frame, MomentRow.last_frame
    for some in chunks(ids):
        with catalogue.read() as session:
            chosen = select(MomentRow.frame_set_id, MomentRow.id, *kept).where(MomentRow.id.in_(some))
            rows = session.execute(chosen.order_by(MomentRow.frame_set_id, MomentRow.id)).all()
            owners = select(FrameSetRow).where(FrameSetRow.id.in_({row[0] for row in rows}))
            sets = {row.id: to_frames(row) for row in session.scalars(owners)}
        for frame_set_id, moments in itertools.groupby(rows, lambda row: row[0]):
            _, moment_ids, *columns = zip(*moments, strict=True)
            yield sets[frame_set_id], moment_ids, list(map(NewMoment, *columns))


def prune(session: Session) -> None:
    """Drop frame sets that are superseded or that no video has any more, and moments of encoders that no
    kept generation uses (their frames stay, so they can be had again without decoding)."""
    newest = set(session.scalars(current_frame_sets()))
    used = set(session.scalars(select(VideoRow.fingerprint).distinct()))
    rows = session.execute(select(FrameSetRow.id, FrameSetRow.fingerprint)).all()
    stale = [id for id, fingerprint in rows if id not in newest or fingerprint not in used]
    for fingerprint in {fingerprint for _, fingerprint in rows if fingerprint not in used}:
        discard(session, thumb_name(fingerprint))
    for some in chunks(stale):
        drop_frame_sets(session, session.scalars(select(FrameSetRow).where(FrameSetRow.id.in_(some))))
    session.execute(
        delete(MomentRow).where(MomentRow.encoder_id.not_in(select(GenerationRow.encoder_id).distinct()))
    )


def index_files(row: GenerationRow) -> dict[str, int]:
    """The files of a generation below the library, with their sizes in bytes."""
    try:
        base = to_generation(row).base
    except LibraryError:  # damaged: which these are, nobody knows
        base = None
    parts = () if base is None else part_files(base)
    return {f"{INDEX}/{row.file}": row.bytes} | {f"{INDEX}/{part.file}": part.bytes for part in parts}


def drop_generation(session: Session, row: GenerationRow) -> None:
    """Remove a generation; its files become garbage, but for those that it shares with others."""
    session.delete(row)
    session.flush()
    others: set[str] = set()
    for other in session.scalars(select(GenerationRow)):
        others |= index_files(other).keys()
    for name in index_files(row).keys() - others:
        discard(session, name)


def forget_backbones(session: Session, backbones: Collection[str]) -> None:
    """Drop everything of these: their encoders' generations, moments and sentences, and their frame sets."""
    encoders = session.scalars(select(EncoderRow).where(EncoderRow.backbone.in_(backbones))).all()
    ids = [encoder.id for encoder in encoders]
    for row in session.scalars(select(GenerationRow).where(GenerationRow.encoder_id.in_(ids))).all():
        drop_generation(session, row)
    drop_frame_sets(session, session.scalars(select(FrameSetRow).where(FrameSetRow.backbone.in_(backbones))))
    for encoder in encoders:
        session.delete(encoder)


def _open_former(folder: Path, former: Generation, embed: Embed | None) -> IndexView | None:
    try:
        return open_index(folder, former, full=True)
    except (OSError, LibraryError) as error:
        if embed is None:
            raise LibraryError(f"The former search index is missing or damaged: {MEND}.") from error
        return None  # everything is embedded anew


def _sentences(catalogue: Catalogue, encoder_id: int) -> npt.NDArray[np.float32] | None:
    """Vectors (S, D) of the sentences last asked, oldest first: what queries of this library look like."""
    import numpy as np

    newest = select(TextVectorRow.text, TextVectorRow.vector).where(TextVectorRow.encoder_id == encoder_id)
    with catalogue.read() as session:
        found = session.execute(newest.order_by(TextVectorRow.id.desc()).limit(1_000)).all()
    sound = (unpacked(encoder_id, text, vector) for text, vector in reversed(found))
    vectors = [vector for vector in sound if vector is not None]
    return np.stack(vectors) if vectors else None


def _point_to(session: Session, generation_id: int) -> None:
    session.merge(MetaRow(key=LIVE, value=str(generation_id)))


def _keep(session: Session, live: int, former: int | None) -> None:
    """Keep the new generation, the one it replaces, and the newest of the encoder in use before (so that an
    adopted head can be taken back after further indexing); name the other files garbage."""
    rows = session.scalars(select(GenerationRow).order_by(GenerationRow.id.desc())).all()
    encoder_id = next(row.encoder_id for row in rows if row.id == live)
    other = next((row.id for row in rows if row.encoder_id != encoder_id), None)
    for row in rows:
        if row.id not in {live, former, other}:
            drop_generation(session, row)
