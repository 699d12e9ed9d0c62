"""The heads that a library may answer with: those it has had, and those in a folder that `vsearch serve` was given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import VsearchError
from vsearch.webui.records import HeadRecord

if TYPE_CHECKING:
    from vsearch.library import Library

CARD = "checkpoint.json"


def listed(library: Library, folder: Path | None) -> list[HeadRecord]:
    """The one at work first. No path leaves the server: a choice is a number or the name of a folder."""
    live = library.live_encoder()
    known = [
        HeadRecord(
            name=e.head, choice=f"known:{e.id}" if "checkpoint" in e.spec["head"] else None, live=False
        )
        for e in library.encoders()
        if live is not None and e.id != live.id
    ]
    found = sorted(p.parent for p in folder.glob(f"*/{CARD}")) if folder is not None else []
    fresh = [HeadRecord(name=p.name, choice=f"folder:{p.name}", live=False) for p in found]
    present = [HeadRecord(name=live.head, choice=None, live=True)] if live is not None else []
    return [*present, *known, *fresh]


def checkpoint(library: Library, folder: Path | None, choice: str) -> Path:
    """The checkpoint that a choice names. Raises VsearchError for anything that was not offered."""
    if choice not in {head.choice for head in listed(library, folder) if head.choice}:
        raise VsearchError("this head is not among those offered; refresh the page")
    kind, _, name = choice.partition(":")
    if kind == "folder" and folder is not None:
        return folder / name
    return Path(next(e for e in library.encoders() if e.id == int(name)).spec["head"]["checkpoint"])
