"""From catalogue rows to records, and from paths to roots and back."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.records import (
    Effort,
    EncoderInfo,
    Generation,
    IndexBase,
    MediaInfo,
    PartFile,
    StoredFrames,
    Video,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from vsearch.library.catalogue.schema import EncoderRow, FrameSetRow, GenerationRow, VideoRow

_DAY_S = 86_400
_YEAR_5000_S = 95_617_584_000
_MOST = 1 << 47  # no size, count or time is as large


class RootFolders:
    """The registered folders, resolved for where the library lies now."""

    def __init__(self, rows: Iterable[Any], library: Path) -> None:
        self._library = library
        self.folders: dict[int, Path] = {row.id: self._resolve(row) for row in rows}

    def path(self, row: VideoRow) -> Path:
        if row.root_id not in self.folders or not isinstance(row.rel_path, bytes | str):
            raise LibraryError("The catalogue lacks the place of a video: run `vsearch verify --repair`.")
        return self.folders[row.root_id] / os.fsdecode(row.rel_path)

    def _resolve(self, row: Any) -> Path:
        if not isinstance(row.path, bytes | str):
            raise LibraryError("The catalogue has no name for a folder: restore it from its backup.")
        path = Path(os.fsdecode(row.path))
        return Path(os.path.normpath(self._library / path)) if row.relative else path


class Roots(RootFolders):
    """The registered folders, and the way to register more."""

    def __init__(self, session: Session, library: Path) -> None:
        from sqlalchemy import select

        from vsearch.library.catalogue.schema import RootRow

        self._session = session
        # Rows of the table, no objects: each video asks.
        super().__init__(session.connection().execute(select(RootRow.__table__)), library)

    def add(self, folder: Path) -> None:
        """Register a folder, unless it is one or lies below one."""
        if self._find(folder) is not None:
            return
        relative = self._moves_along(folder)
        path = Path(os.path.relpath(folder, self._library)) if relative else folder
        from vsearch.library.catalogue.schema import RootRow

        row = RootRow(path=os.fsencode(path), relative=relative)
        self._session.add(row)
        self._session.flush()
        self.folders[row.id] = folder

    def drop_empty(self, folders: Iterable[Path]) -> None:
        """Forget those of these roots that hold no video and are not there any more: their name is another now."""
        from sqlalchemy import select

        from vsearch.library.catalogue.schema import RootRow, VideoRow

        for folder in folders:
            for id in [id for id, root in self.folders.items() if root == folder]:
                used = self._session.scalars(select(VideoRow.id).where(VideoRow.root_id == id)).first()
                if used is None and not os.path.lexists(folder):
                    self._session.delete(self._session.get_one(RootRow, id))
                    self._session.flush()
                    del self.folders[id]

    def place(self, path: Path) -> tuple[int, bytes]:
        """The root of a file (its own folder becomes one when it is below none) and its name below that."""
        if (root_id := self._find(path)) is None:
            self.add(path.parent)
            root_id = self._find(path)
            assert root_id is not None
        return root_id, os.fsencode(path.relative_to(self.folders[root_id]))

    def _find(self, path: Path) -> int | None:
        """The oldest root that holds `path`: a known video's place never changes when roots are added."""
        holders = (id for id, folder in self.folders.items() if path == folder or folder in path.parents)
        return min(holders, default=None)

    def _moves_along(self, folder: Path) -> bool:
        """Whether the library lies in the folder or beside it, so that a copy of the disk holds both."""
        beside = self._library.parent
        if folder == beside or folder in beside.parents:
            return folder != Path(folder.anchor)
        return beside in folder.parents and beside != Path(beside.anchor)


def to_video(row: VideoRow, roots: RootFolders) -> Video:
    """Values of another kind than their column's count as nothing; `verify` finds them."""
    media = None
    if row.container is not None:
        media = MediaInfo(
            container=_text(row.container) or "",
            codec=_text(row.codec) or "",
            width=_whole(row.width),
            height=_whole(row.height),
            rotation=_whole(row.rotation),
            duration_ms=_whole(row.duration_ms),
            avg_fps=row.avg_fps if isinstance(row.avg_fps, float | int) else 0.0,
            start_ms=None if row.start_ms is None else _whole(row.start_ms),
        )
    return Video(
        id=row.id,
        path=roots.path(row),
        root=roots.folders[row.root_id],
        size=_whole(row.size),
        mtime_ns=_whole(row.mtime_ns),
        fingerprint=_text(row.fingerprint),
        state=_text(row.state) or "",
        reason=_text(row.reason),
        media=media,
        covered_ms=_whole(row.covered_ms),
        added_at=_whole(row.added_at),
        attempts=_whole(row.attempts),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def to_encoder(row: EncoderRow, library: Path) -> EncoderInfo:
    """A trained head lies in the library, so its place is named relative to that and found where that lies now.

    Raises LibraryError for a description that is none, or not that of this encoder.
    """
    try:
        spec = json.loads(row.spec)
        if "+" in row.identity and row.identity != f"{row.backbone}+{row.head}":
            raise ValueError("another's parts")
        if not _describes(spec, row.head):
            raise ValueError("not an encoder")
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise LibraryError(
            f"The catalogue's description of the encoder {row.identity} is damaged: run `vsearch verify --repair`."
        ) from error
    head = spec["head"]
    if "checkpoint" in head:
        head["checkpoint"] = str(library / head["checkpoint"])
    return EncoderInfo(row.id, row.identity, row.backbone, row.head, spec)


def _describes(spec: Any, name: str) -> bool:
    """Whether a description has what every use of an encoder needs. May raise what `to_encoder` catches."""
    head, calibration = spec["head"], spec.get("calibration")
    if not isinstance(spec["model"], str) or not isinstance(head, dict):
        return False
    if calibration is not None:
        shares, scores = calibration["unrelated"]["q"], calibration["unrelated"]["score"]
        if len(shares) != len(scores) or not shares or not all(map(math.isfinite, [*shares, *scores])):
            return False
    if "checkpoint" in head:
        texts = head["checkpoint"], head["identity"], head["model"]
        plausible = 0 < head["window_s"] <= _DAY_S and 0 <= head["overlap"] < 1
        return plausible and all(isinstance(text, str) for text in texts)
    kind, _, digest = name.partition("@")
    told = json.dumps(head, sort_keys=True).encode()  # as ZeroShotHead names itself
    return kind != "zero-shot" or hashlib.blake2b(told, digest_size=8).hexdigest() == digest


def to_frames(row: FrameSetRow) -> StoredFrames:
    """Raises DamagedFramesError when its row names no file."""
    if not isinstance(row.file, str) or not isinstance(row.fingerprint, str):
        raise DamagedFramesError(
            "The catalogue has stored frames without a name: run `vsearch verify --repair`."
        )
    return StoredFrames(row.file, row.fingerprint, row.backbone, row.fps, row.count, row.dim, row.bytes)


def to_generation(row: GenerationRow) -> Generation:
    """Raises LibraryError when its row or its base is damaged."""
    numbers = row.encoder_id, row.count, row.dim, row.bytes, row.created_at
    texts = row.file, row.sha256, row.sample, row.id_check
    sound = all(type(number) is int and 0 <= number < _MOST for number in numbers)
    sound = sound and row.created_at < _YEAR_5000_S
    if not sound or not all(isinstance(text, str) for text in texts):
        raise LibraryError("The search index is damaged (its row): run `vsearch verify --repair`.")
    return Generation(
        row.id,
        row.encoder_id,
        row.file,
        row.count,
        row.dim,
        row.sha256,
        row.sample,
        row.bytes,
        row.id_check,
        row.created_at,
        None if row.base is None else to_base(row.base),
    )


def to_base(text: str) -> IndexBase:
    """From the JSON that `asdict` gives. Raises LibraryError for anything else."""
    try:
        values = json.loads(text)
        for name in ("codes", "rows", "ids", "gone"):
            values[name] = values[name] and PartFile(**values[name])
        values["effort"] = tuple(Effort(**step) for step in values["effort"])
        base = IndexBase(**values)
        if not _possible(base):
            raise ValueError("not a base")
        return base
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise LibraryError(
            "The search index is damaged (its description): run `vsearch verify --repair`."
        ) from error


def _possible(base: IndexBase) -> bool:
    parts = [base.codes, base.rows, base.ids, *([] if base.gone is None else [base.gone])]
    texts = (text for part in parts for text in (part.file, part.sha256, part.sample))
    counts = [base.count, base.gone_count, *(part.bytes for part in parts)]
    counts += [number for step in base.effort for number in (step.probes, step.candidates)]
    scores = (base.recall, *(step.above for step in base.effort))
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and 0 <= number < _MOST for number in counts)
        and all(isinstance(score, int | float) for score in scores)
        and len(base.effort) > 0
    )


def whole_number(text: object) -> int | None:
    """A number that the catalogue keeps as a text; None when it is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() else None
