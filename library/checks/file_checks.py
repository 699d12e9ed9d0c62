"""The files of the library: frames, index, heads, posters, and what no row names. See verify.py."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from vsearch.errors import LibraryError
from vsearch.library import chance, heads, posters
from vsearch.library.catalogue import (
    LIVE,
    Catalogue,
    EncoderRow,
    FrameSetRow,
    GarbageRow,
    GenerationRow,
    MetaRow,
    Roots,
    VideoRow,
    chunks,
    drop_frame_sets,
    to_encoder,
    to_frames,
    to_generation,
)
from vsearch.library.checks.check import Check, Problem
from vsearch.library.files import clear, set_aside
from vsearch.library.frames import FRAMES, FrameStore
from vsearch.library.index import INDEX, SUFFIXES, open_index
from vsearch.library.index import publish as publishing
from vsearch.library.vocabularies import VOCABULARIES, read_vocabulary
from vsearch.records import PRESENT


def check_folders(check: Check) -> list[Problem]:
    """What lies where a folder of the library belongs: nothing could be read or written below it."""
    tops = [
        check.folder / name
        for name in (FRAMES, INDEX, posters.THUMBS, heads.HEADS, VOCABULARIES, chance.NEUTRAL)
    ]
    below = [
        path
        for name in (FRAMES, posters.THUMBS)
        for path in sorted((check.folder / name).glob("[0-9a-f][0-9a-f]"))
    ]
    problems = []
    for path in (*tops, *below):
        if os.path.lexists(path) and not path.is_dir():
            done = f"it is now called {set_aside(path)}" if check.repair else None
            problems.append(
                Problem(f"A file lies where the folder {path.relative_to(check.folder)!s} belongs", done)
            )
    return problems


def check_frames(check: Check) -> list[Problem]:
    """Files against their names, rows against files."""
    with check.catalogue.read() as session:
        sets = session.scalars(select(FrameSetRow).order_by(FrameSetRow.id)).all()
        names = session.execute(select(VideoRow.fingerprint, VideoRow.rel_path))
        videos = {fingerprint: repr(name.decode(errors="replace")) for fingerprint, name in names}
    problems: list[Problem] = []
    broken: list[int] = []
    wrong: dict[int, dict[str, Any]] = {}
    for done, row in enumerate(sets, 1):
        if check.makers.progress is not None:
            check.makers.progress(done, len(sets))
        name = videos.get(row.fingerprint, row.file)
        try:
            said = check.store.description(row.file)
            has = {key: said[key] for key in _OF_FRAMES if key in said}
            stored = to_frames(row)
            if any(getattr(row, key) != value for key, value in has.items()):
                wrong[row.id] = has
                stored = type(stored)(stored.name, *({**vars(stored), **has}[key] for key in _OF_FRAMES))
            if not check.store.sound(stored):
                raise LibraryError("its bytes are not what was written")
        except LibraryError:
            wrong.pop(row.id, None)
            broken.append(row.id)
            if check.repair and check.store.path(row.file).is_dir():
                clear(check.store.path(row.file))
            what = f"The stored frames of {name} are missing or damaged"
            problems.append(Problem(what, "dropped" if check.repair else None))
            continue
        if row.id in wrong:
            what = f"The catalogue has the stored frames of {name} wrong"
            problems.append(Problem(what, "corrected from their file" if check.repair else None))
        check.told[said.get("fingerprint", row.fingerprint)] = said  # of the newest
    if check.repair and (broken or wrong):
        with check.catalogue.write() as session:
            for some in chunks(broken):
                drop_frame_sets(session, session.scalars(select(FrameSetRow).where(FrameSetRow.id.in_(some))))
            _correct(session, wrong)
    return problems


_OF_FRAMES = ("fingerprint", "backbone", "fps", "count", "dim", "bytes")  # in the order of StoredFrames


def _correct(session: Session, wrong: dict[int, dict[str, Any]]) -> None:
    """Rows may have changed places: their names are cleared before they are set."""
    rows = [session.get_one(FrameSetRow, id) for id in wrong]
    for row in rows:
        row.fingerprint = f"\0correcting {row.id}"
    session.flush()
    for row in rows:
        values = wrong[row.id]
        key = {name: values[name] for name in ("fingerprint", "backbone", "fps") if name in values}
        twin = session.scalars(select(FrameSetRow).filter_by(**key)).first() if key else None
        if twin is not None:
            drop_frame_sets(session, [row])
            continue
        for name, value in values.items():
            setattr(row, name, value)
        session.flush()


def check_generations(check: Check) -> list[Problem]:
    problems = [
        Problem(f"Index generation {id} stands under another encoder", "corrected" if check.repair else None)
        for id in publishing.put_right(check.catalogue, repair=check.repair)
    ]
    with check.catalogue.read() as session:
        live = publishing.live_row(session)
        rows = session.scalars(select(GenerationRow).order_by(GenerationRow.id)).all()
    sound: list[GenerationRow] = []
    for row in rows:
        try:
            open_index(check.folder, to_generation(row), full=True)
            sound.append(row)
            continue
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            what = f"The file of index generation {row.id} is missing"
        except LibraryError as error:
            what = f"Index generation {row.id}: {error}"
        except (ValueError, TypeError, KeyError, OSError):
            what = f"Index generation {row.id} is described wrongly"
        done = None
        if check.repair:
            is_live = live is not None and live.id == row.id
            done = "dropped"
            if is_live and check.makers.embed is not None:  # first the new one, then away with the old
                publishing.publish(
                    check.catalogue, check.folder, row.encoder_id, (), check.makers.embed, carry_over=False
                )
                done = "rebuilt from the stored frames"
            elif is_live:
                done = "dropped; `vsearch index` builds it again"
            _drop_generation(check, row)
        problems.append(Problem(what, done))
    if live is None and rows:
        done = None
        if check.repair and sound:
            with check.catalogue.write() as session:
                session.merge(MetaRow(key=LIVE, value=str(sound[-1].id)))
            done = "the newest sound one does"
        elif check.repair and check.makers.embed is not None:
            publishing.publish(
                check.catalogue, check.folder, rows[-1].encoder_id, (), check.makers.embed, carry_over=False
            )
            done = "rebuilt from the stored frames"
        elif check.repair:
            with check.catalogue.write() as session:
                session.execute(delete(MetaRow).where(MetaRow.key == LIVE))
            done = "`vsearch index` builds it again"
        problems.append(Problem("The catalogue does not say which index answers", done))
    return problems


def _drop_generation(check: Check, row: GenerationRow) -> None:
    """Unless the new one has taken the place of its file."""
    with check.catalogue.write() as session:
        kept = session.get(GenerationRow, row.id)
        if kept is None:
            return
        live = publishing.live_row(session)
        if live is not None and live.id == row.id:
            try:
                open_index(check.folder, to_generation(kept))
                return
            except (LibraryError, OSError, ValueError, TypeError, KeyError):
                session.execute(delete(MetaRow).where(MetaRow.key == LIVE))
        publishing.drop_generation(session, kept)


def check_heads(check: Check) -> list[Problem]:
    """Trained heads of kept generations; what is lost of one is only in the checkpoint that it was copied from."""
    with check.catalogue.read() as session:
        used = select(GenerationRow.encoder_id).distinct()
        rows = session.scalars(select(EncoderRow).where(EncoderRow.id.in_(used))).all()
    problems = []
    for row in rows:
        try:
            encoder = to_encoder(row, check.folder)
        except LibraryError:  # told already
            continue
        head = encoder.spec.get("head")
        place = head.get("checkpoint") if isinstance(head, dict) else None
        if place is not None and not heads.sound(Path(place)):
            problems.append(
                Problem(
                    f"The trained head {encoder.head} is missing or damaged: adopt its checkpoint again "
                    "(vsearch adopt CHECKPOINT) or go back to the head before (vsearch adopt --rollback)"
                )
            )
    return problems


def check_vocabularies(check: Check) -> list[Problem]:
    """What is lost of one is only in the examples that it was learned from."""
    problems = []
    for file in sorted((check.folder / VOCABULARIES).glob("*.safetensors")):
        try:
            read_vocabulary(check.folder, file.stem)
        except LibraryError:
            done = None
            if check.repair:
                os.replace(file, file.with_name(f"{file.name}.damaged-{secrets.token_hex(4)}"))
                done = "set aside; learn it again from examples"
            problems.append(Problem(f"The vocabulary {file.stem!r} is damaged", done))
    return problems


def check_neutral(check: Check) -> list[Problem]:
    """What words are judged by is derived: a damaged one is dropped, and made again by the next run."""
    with check.catalogue.read() as session:
        encoders = list(session.scalars(select(EncoderRow.identity)))
    problems = []
    for file in chance.neutral_files(check.folder):
        if chance.sound(file, encoders) is False:
            if check.repair:
                clear(file)
            done = "dropped; the next `vsearch index` makes it again" if check.repair else None
            problems.append(Problem("What says how likely an answer is, is damaged", done))
    return problems


def check_posters(check: Check) -> list[Problem]:
    """Damaged ones, and those that were made and are gone."""
    with check.catalogue.read() as session:
        roots = Roots(session, check.folder)
        paths: dict[str, list[Path]] = {}
        for row in session.scalars(select(VideoRow).where(VideoRow.state.in_(PRESENT)).order_by(VideoRow.id)):
            if row.fingerprint is not None:
                paths.setdefault(row.fingerprint, []).append(roots.path(row))
    problems = []
    for fingerprint, copies in paths.items():
        file = check.folder / posters.thumb_name(fingerprint)
        try:
            if posters.sound(file):
                continue
            what = "damaged"
        except FileNotFoundError:
            there = next((path for path in copies if path.is_file()), None)
            if not check.told.get(fingerprint, {}).get("poster") or there is None:
                continue
            what = "missing"
        done = _poster_again(check, fingerprint, copies, file) if check.repair else None
        problems.append(Problem(f"The poster of {copies[0].name!r} is {what}", done))
    return problems


def _poster_again(check: Check, fingerprint: str, copies: Iterable[Path], file: Path) -> str:
    clear(file)
    for path in copies:
        jpeg = check.makers.poster(path) if check.makers.poster is not None and path.is_file() else None
        if jpeg is not None:
            posters.write_poster(check.folder, fingerprint, jpeg)
            return "made again from the video"
    return "dropped"


def sweep(catalogue: Catalogue, folder: Path, leftovers: list[Path], repair: bool) -> list[str]:
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
        encoders = list(session.scalars(select(EncoderRow.identity)))
        waiting = {folder / name for name in session.scalars(select(GarbageRow.file))}  # for the next writer
    orphans: dict[str, Sequence[Path]] = {
        "stored frames that no video has": [store.path(name) for name in sorted(store.names() - named)],
        "index files that are no generation": [
            path
            for path in sorted((folder / INDEX).glob("*"))
            if path.suffix in SUFFIXES and path not in indexes
        ],
        "posters that no video has": [
            path
            for path in sorted((folder / posters.THUMBS).glob("??/*.jpg"))
            if str(path.relative_to(folder)) not in thumbs
        ],
        "scores of encoders that are no more": [
            path for path in chance.neutral_files(folder) if chance.sound(path, encoders) is None
        ],
        "temporary files of an interrupted run": leftovers,
    }
    if repair:
        for paths in orphans.values():
            for path in paths:
                clear(path)
    orphans = {what: [path for path in paths if path not in waiting] for what, paths in orphans.items()}
    verb = "deleted" if repair else "`vsearch verify --repair` deletes them"
    return [f"{len(paths)} {what}: {verb}" for what, paths in orphans.items() if paths]


def _thumbs(session: Session) -> set[str]:
    prints = session.scalars(select(VideoRow.fingerprint).distinct())
    return {posters.thumb_name(fingerprint) for fingerprint in prints if fingerprint is not None}
