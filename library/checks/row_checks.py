"""The rows of the catalogue: each value of the kind that its column has, and true to the files. See verify.py."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import (
    Integer,
    LargeBinary,
    cast,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import Session

from vsearch.errors import LibraryError
from vsearch.library.catalogue import (
    Base,
    EncoderRow,
    FrameSetRow,
    GenerationRow,
    MetaRow,
    MomentRow,
    Roots,
    TextVectorRow,
    VideoRow,
    add_moments,
    chunks,
    to_encoder,
    to_frames,
)
from vsearch.library.checks.check import Check, Problem
from vsearch.library.checks.restore import backups, spec_in
from vsearch.library.index import publish as publishing
from vsearch.library.sentences import unpacked
from vsearch.records import FAILED, INDEXED, MEDIA, MISSING, PARTIAL, PRESENT, NewMoment

REDO = "its stored frames were damaged: `vsearch index` reads it again"
_WAIT = {"state": FAILED, "attempts": 0, "reason": REDO, "covered_ms": 0}
_KINDS = {
    int: ("integer",), float: ("real", "integer"), str: ("text",), bytes: ("blob",), bool: ("integer",),
}  # fmt: skip
_ROW = literal_column("rowid", Integer)
_LONGEST_MS = 1 << 36  # two years: as many windows as can be held in memory
_DERIVED = ("moments", "text_vectors", "generations", "garbage")  # rows that can be had again


def check_kinds(check: Check) -> list[Problem]:
    """SQLite keeps a text in a column of numbers, and a text that is none. Such rows cannot even be read."""
    with check.catalogue.read() as session:
        if session.get_bind().dialect.name != "sqlite":
            return []
        wrong = {name: found for name in Base.metadata.tables if (found := dict(_unreadable(session, name)))}
    problems = []
    for table, rows in wrong.items():
        done = None
        if check.repair and table in _REPAIRS:
            with check.catalogue.write() as session:
                done = _REPAIRS[table](check, session, table, rows)
        problems.append(Problem(f"{len(rows)} rows of {table} hold what cannot be read", done))
    return problems


def _unreadable(session: Session, table: str) -> Iterator[tuple[int, list[str]]]:
    """Row ids, and the columns that are wrong in them."""
    wrong: dict[int, list[str]] = {}
    for column in Base.metadata.tables[table].columns:
        kinds = _KINDS[column.type.python_type] + (("null",) if column.nullable else ())
        for row in session.scalars(select(_ROW).where(func.typeof(column).not_in(kinds))):
            wrong.setdefault(row, []).append(column.name)
        if column.type.python_type is str:
            words = select(_ROW, cast(column, LargeBinary)).where(func.typeof(column) == "text")
            for row, raw in session.execute(words):
                try:
                    raw.decode()
                except UnicodeDecodeError:
                    wrong.setdefault(row, []).append(column.name)
    yield from wrong.items()


def _drop_rows(check: Check, session: Session, table: str, rows: dict[int, list[str]]) -> str:
    for row in rows:
        _drop(session, table, row)
    return "dropped; the next `vsearch index` makes what is needed again"


def _mend_frame_rows(check: Check, session: Session, table: str, rows: dict[int, list[str]]) -> str:
    """What is unreadable gets a value that the check of the files corrects."""
    for row, columns in rows.items():
        if "file" in columns:
            _drop(session, table, row)
        else:
            _neutral(session, table, row, columns)
    return "corrected from their files, or dropped"


def _mend_video_rows(check: Check, session: Session, table: str, rows: dict[int, list[str]]) -> str:
    for row, columns in rows.items():
        if {"rel_path", "root_id"} & set(columns):
            _drop(session, table, row)
        else:
            _neutral(session, table, row, columns)
    return "corrected from the frames' files; `vsearch index` looks at them again"


def _mend_meta_rows(check: Check, session: Session, table: str, rows: dict[int, list[str]]) -> str | None:
    schema = session.scalar(select(_ROW).select_from(MetaRow).where(MetaRow.key == "schema"))
    for row in rows.keys() - {schema}:
        _drop(session, table, row)
    return None if schema in rows else "dropped"


def _mend_encoder_rows(check: Check, session: Session, table: str, rows: dict[int, list[str]]) -> str | None:
    if any(columns != ["spec"] for columns in rows.values()):
        return None  # without its name nothing tells whose vectors these are
    for row, columns in rows.items():
        _neutral(session, table, row, columns)
    return "left to the check of encoders"


_REPAIRS = {
    **dict.fromkeys(_DERIVED, _drop_rows),
    "frame_sets": _mend_frame_rows,
    "videos": _mend_video_rows,
    "meta": _mend_meta_rows,
    "encoders": _mend_encoder_rows,
}


def _neutral(session: Session, table: str, row: int, columns: list[str]) -> None:
    """Values that can be read, and that no sound row has where one is needed."""
    found = Base.metadata.tables[table]
    values: dict[str, object] = {}
    for name in columns:
        kind = found.columns[name].type.python_type
        values[name] = None if found.columns[name].nullable else f"\0lost {row}" if kind is str else kind()
    session.execute(update(found).where(_ROW.in_([row])).values(**values))


def _drop(session: Session, table: str, row: int) -> None:
    session.execute(delete(Base.metadata.tables[table]).where(_ROW.in_([row])))


def check_specs(check: Check) -> list[Problem]:
    """Descriptions of encoders, as far as an index or moments use them."""
    with check.catalogue.read() as session:
        used = session.scalars(select(EncoderRow).order_by(EncoderRow.id)).all()
    problems = []
    for row in used:
        try:
            encoder = to_encoder(row, check.folder)
            if check.makers.sound_spec is None or check.makers.sound_spec(encoder):
                continue
        except LibraryError:
            pass
        done = _spec_again(check, row) if check.repair else None
        problems.append(Problem(f"The description of encoder {row.identity} is damaged", done))
    return problems


def _spec_again(check: Check, row: EncoderRow) -> str | None:
    backbone, head = row.backbone, row.head
    if row.identity.endswith(f"+{head}"):
        backbone = row.identity.removesuffix(f"+{head}")
    elif "+" in row.identity:
        backbone, _, head = row.identity.partition("+")
    for spec, done in (
        (_json(row.spec), "corrected from its name"),
        *((spec_in(backup, row.identity), "taken from a backup") for backup in backups(check.folder)),
        (check.makers.spec and check.makers.spec(backbone, head), "made again"),
    ):
        if spec is None:
            continue
        values = {"backbone": backbone, "head": head, "spec": json.dumps(spec)}
        try:
            trial = to_encoder(EncoderRow(id=row.id, identity=row.identity, **values), check.folder)
        except LibraryError:
            continue
        if check.makers.sound_spec is None or check.makers.sound_spec(trial):
            with check.catalogue.write() as session:
                session.execute(update(EncoderRow).where(EncoderRow.id == row.id).values(**values))
            return done
    return None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def check_videos(check: Check) -> list[Problem]:
    """Searchable videos have frames, and every video is what its frames' file says; the others are queued."""
    with check.catalogue.read() as session:
        roots = Roots(session, check.folder)
        rows = session.scalars(select(VideoRow).order_by(VideoRow.id)).all()
        stored = set(session.scalars(select(FrameSetRow.fingerprint)))
    problems = []
    changes: dict[int, dict[str, Any] | None] = {}  # by id; None: the row goes
    bare: list[int] = []
    for row in rows:
        name = os.fsdecode(row.rel_path)
        if _odd_path(name) or row.root_id not in roots.folders:
            changes[row.id] = None
            problems.append(Problem(f"A video has the impossible name {name!r}", "dropped"))
            continue
        found = _contradictions(check, row)
        if found:
            changes[row.id] = _true_values(check, row, roots)
            problems.append(
                Problem(f"The catalogue has {name!r} wrong ({', '.join(found)})", "corrected from its frames")
            )
        elif row.state in PRESENT and row.fingerprint not in stored:
            bare.append(row.id)
    if bare:
        problems.append(
            Problem(
                f"{len(bare)} videos are searchable but have no stored frames",
                "they are read again by the next `vsearch index`",
            )
        )
    if not check.repair:
        return [Problem(problem.what) for problem in problems]
    changes |= {id: _WAIT for id in bare}
    with check.catalogue.write() as session:
        for id, values in changes.items():
            if values is None:
                session.execute(delete(VideoRow).where(VideoRow.id == id))
            elif values:
                session.execute(update(VideoRow).where(VideoRow.id == id).values(**values))
    return problems


def _odd_path(name: str) -> bool:
    path = PurePosixPath(name)
    return not name or "\0" in name or path.is_absolute() or ".." in path.parts


def _contradictions(check: Check, row: VideoRow) -> list[str]:
    """Names of what cannot be true of a video."""
    found = []
    if row.state not in (INDEXED, PARTIAL, FAILED, MISSING):
        found.append("state")
    if row.state in PRESENT and row.fingerprint is None:
        found.append("content")
    if row.state == FAILED and not row.reason:
        found.append("reason")
    numbers = {name: getattr(row, name) for name in ("size", "covered_ms", "attempts", *MEDIA[2:-1])}
    found += [name for name, number in numbers.items() if number is not None and not _plausible(number)]
    said = check.told.get(row.fingerprint or "")
    if row.state == FAILED and row.container is not None and said is not None and "state" not in found:
        found.append("state")  # what failed has no media
    if row.state == FAILED or said is None:
        return found
    if row.container is None and row.state in PRESENT:
        found.append("media")
    else:
        true = {name: said[name] for name in ("size", "covered_ms", *MEDIA) if said.get(name) is not None}
        found += [name for name, value in true.items() if getattr(row, name) != value and name not in found]
    return found


def _plausible(number: float) -> bool:
    return math.isfinite(number) and number >= 0


def _true_values(check: Check, row: VideoRow, roots: Roots) -> dict[str, Any]:
    """Which content the file has tells the file, where it is; the rest is in the frames' file of that content."""
    content = row.fingerprint
    size, mtime_ns = row.size, row.mtime_ns
    path = roots.path(row)
    if check.makers.fingerprint is not None:
        try:
            status = path.stat()
            content = check.makers.fingerprint(path)
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            pass
    said = check.told.get(content or "")
    if said is None or said.get("size", size) != size:
        return {**_WAIT, "size": max(0, row.size), **dict.fromkeys(MEDIA), "fingerprint": content}
    values = {name: said[name] for name in ("covered_ms", *MEDIA) if name in said}
    state = row.state
    if state not in (PARTIAL, MISSING):
        state = INDEXED if row.reason is None else PARTIAL
    return {
        **values, "fingerprint": content, "size": size, "mtime_ns": mtime_ns, "state": state,
        "attempts": max(row.attempts, 1),
    }  # fmt: skip


def check_moments(check: Check) -> list[Problem]:
    """Windows that fit their frames, and with `windows` exactly those that the head plans."""
    with check.catalogue.read() as session:
        encoders = {row.id: row for row in session.scalars(select(EncoderRow))}
        longest = select(VideoRow.fingerprint, func.max(VideoRow.duration_ms)).where(VideoRow.state != FAILED)
        durations = {content: ms for content, ms in session.execute(longest.group_by(VideoRow.fingerprint))}
        sets = session.scalars(
            select(FrameSetRow)
            .where(FrameSetRow.id.in_(publishing.current_frame_sets()))
            .order_by(FrameSetRow.id)
        ).all()
        of = session.execute(select(VideoRow.fingerprint, VideoRow.rel_path))
        names = {content: os.fsdecode(name) for content, name in of}
    problems = []
    for first in range(0, len(sets), 1_000):
        some = sets[first : first + 1_000]
        with check.catalogue.read() as session:
            columns = (MomentRow.start_ms, MomentRow.end_ms, MomentRow.first_frame, MomentRow.last_frame)
            rows = session.execute(
                select(MomentRow.frame_set_id, MomentRow.encoder_id, *columns)
                .where(MomentRow.frame_set_id.in_([each.id for each in some]))
                .order_by(MomentRow.id)
            ).all()
        kept: dict[tuple[int, int], list[NewMoment]] = {}
        for frame_set_id, encoder_id, *window in rows:
            kept.setdefault((frame_set_id, encoder_id), []).append(NewMoment(*window))
        by_id = {each.id: each for each in some}
        again: dict[tuple[int, int], list[NewMoment]] = {}
        for (frame_set_id, encoder_id), moments in kept.items():
            row = by_id[frame_set_id]
            planned = _planned(check, row, encoders[encoder_id], durations)
            if (
                sorted(moments, key=_begin) == sorted(planned, key=_begin)
                if planned is not None
                else all(_fits(each, row.count) for each in moments)
            ):
                continue
            again[frame_set_id, encoder_id] = planned or []
            name = names.get(row.fingerprint, row.file)
            problems.append(Problem(f"Moments of {name!r} do not fit its frames", "made again"))
        if again and check.repair:
            _replace_moments(check, again)
    return problems if check.repair else [Problem(problem.what) for problem in problems]


def _begin(moment: NewMoment) -> tuple[int, int]:
    return moment.start_ms, moment.end_ms


def _fits(moment: NewMoment, count: int) -> bool:
    return 0 <= moment.first_frame < moment.last_frame <= count and 0 <= moment.start_ms <= moment.end_ms


def _planned(
    check: Check, row: FrameSetRow, encoder: EncoderRow, durations: dict[str | None, int | None]
) -> list[NewMoment] | None:
    """None where nobody can say: without `windows`, or for a content that no video has."""
    longest = durations.get(row.fingerprint)
    if check.makers.windows is None or longest is None:
        return None
    duration_ms = int(check.told.get(row.fingerprint, {}).get("duration_ms", longest))
    if duration_ms > _LONGEST_MS:
        return None
    try:
        frames = check.store.read(to_frames(row))
        return check.makers.windows(to_encoder(encoder, check.folder), frames.times_ms, duration_ms)
    except (LibraryError, LookupError, TypeError, ValueError):  # told already: frames, or the description
        return None


def _replace_moments(check: Check, again: dict[tuple[int, int], list[NewMoment]]) -> None:
    with check.catalogue.write() as session:
        for (frame_set_id, encoder_id), moments in again.items():
            add_moments(session, encoder_id, {frame_set_id: moments})


def check_sentences(check: Check) -> list[Problem]:
    """Cached query vectors against their digests, and the dimension of the index: an action's name has several."""
    with check.catalogue.read() as session:
        rows = session.execute(
            select(TextVectorRow.id, TextVectorRow.encoder_id, TextVectorRow.text, TextVectorRow.vector)
        ).all()
        widths = session.execute(select(GenerationRow.encoder_id, GenerationRow.dim))
        dims = {encoder_id: dim for encoder_id, dim in widths}
    wrong = []
    for id, encoder_id, sentence, stored in rows:
        vector = unpacked(encoder_id, sentence, stored)
        if vector is None or len(vector) % max(1, dims.get(encoder_id, 1)):  # 1: an empty index
            wrong.append(id)
    if not wrong:
        return []
    if check.repair:
        with check.catalogue.write() as session:
            for some in chunks(wrong):
                session.execute(delete(TextVectorRow).where(TextVectorRow.id.in_(some)))
    done = "dropped; they are made again when asked for" if check.repair else None
    return [Problem(f"{len(wrong)} remembered sentences have damaged vectors", done)]
