"""From catalogue rows to records, and from paths to roots and back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import LibraryError
from vsearch.library.records import (
    Base,
    Effort,
    EncoderInfo,
    Generation,
    MediaInfo,
    PartFile,
    StoredFrames,
    Video,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from vsearch.library.catalogue import EncoderRow, FrameSetRow, GenerationRow, VideoRow


class RootFolders:
    """The registered folders, resolved for where the library lies now."""

    def __init__(self, rows: Iterable[Any], library: Path) -> None:
        self._library = library
        self.folders: dict[int, Path] = {row.id: self._resolve(row) for row in rows}

    def path(self, row: VideoRow) -> Path:
        if row.root_id not in self.folders:
            raise LibraryError("The catalogue lacks the folder of a video: run `vsearch verify --repair`.")
        return self.folders[row.root_id] / os.fsdecode(row.rel_path)

    def _resolve(self, row: Any) -> Path:
        path = Path(os.fsdecode(row.path))
        return Path(os.path.normpath(self._library / path)) if row.relative else path


class Roots(RootFolders):
    """The registered folders, and the way to register more."""

    def __init__(self, session: Session, library: Path) -> None:
        from sqlalchemy import select

        from vsearch.library.catalogue import RootRow

        self._session = session
        # Rows of the table, no objects: each video asks.
        super().__init__(session.connection().execute(select(RootRow.__table__)), library)

    def add(self, folder: Path) -> None:
        """Register a folder, unless it is one or lies below one."""
        if self._find(folder) is not None:
            return
        relative = self._moves_along(folder)
        path = Path(os.path.relpath(folder, self._library)) if relative else folder
        from vsearch.library.catalogue import RootRow

        row = RootRow(path=os.fsencode(path), relative=relative)
        self._session.add(row)
        self._session.flush()
        self.folders[row.id] = folder

    def drop_empty(self, folders: Iterable[Path]) -> None:
        """Forget those of these roots that hold no video and are not there any more: their name is another now."""
        from sqlalchemy import select

        from vsearch.library.catalogue import RootRow, VideoRow

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
    media = None
    if row.container is not None:
        media = MediaInfo(
            container=row.container,
            codec=row.codec or "",
            width=row.width or 0,
            height=row.height or 0,
            rotation=row.rotation or 0,
            duration_ms=row.duration_ms or 0,
            avg_fps=row.avg_fps or 0.0,
            start_ms=row.start_ms,
        )
    return Video(
        id=row.id,
        path=roots.path(row),
        root=roots.folders[row.root_id],
        size=row.size,
        mtime_ns=row.mtime_ns,
        fingerprint=row.fingerprint,
        state=row.state,
        reason=row.reason,
        media=media,
        covered_ms=row.covered_ms,
        added_at=row.added_at,
        attempts=row.attempts,
    )


def to_encoder(row: EncoderRow, library: Path) -> EncoderInfo:
    """A trained head lies in the library, so its place is named relative to that and found where that lies now."""
    try:
        spec = json.loads(row.spec)
        if not isinstance(spec, dict):
            raise ValueError("no object")
    except (ValueError, TypeError) as error:
        raise LibraryError(
            f"The catalogue's description of the encoder {row.identity} is damaged: run `vsearch verify --repair`."
        ) from error
    head = spec.get("head")
    if isinstance(head, dict) and "checkpoint" in head:
        head["checkpoint"] = str(library / head["checkpoint"])
    return EncoderInfo(row.id, row.identity, row.backbone, row.head, spec)


def to_frames(row: FrameSetRow) -> StoredFrames:
    return StoredFrames(row.file, row.fingerprint, row.backbone, row.fps, row.count, row.dim, row.bytes)


def to_generation(row: GenerationRow) -> Generation:
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


def to_base(text: str) -> Base:
    """From the JSON that `asdict` gives. Raises LibraryError for anything else."""
    try:
        values = json.loads(text)
        for name in ("codes", "rows", "ids", "gone"):
            values[name] = values[name] and PartFile(**values[name])
        values["effort"] = tuple(Effort(**step) for step in values["effort"])
        return Base(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise LibraryError(
            "The search index is damaged (its description): run `vsearch verify --repair`."
        ) from error


def whole_number(text: object) -> int | None:
    """A number that the catalogue keeps as a text; None when it is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() else None
