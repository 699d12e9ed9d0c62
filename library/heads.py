"""Trained heads in the library's folder, so that it answers when the checkpoint that was adopted is long gone.

A head is a few files in `heads/NAME/`; the name is the hash of all of them, which makes it unchangeable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vsearch.library.files import file_sha256, new_file, put_in_place

HEADS = "heads"


def keep(library: Path, files: Sequence[Path]) -> str:
    """Copy a head's files; gives their folder, relative to the library. A reader never sees half a file, and no
    encoder is entered in the catalogue before all are there."""
    place = Path(HEADS) / _name(files)
    for file in files:
        final = library / place / file.name
        if not final.is_file() or file_sha256(final) != file_sha256(file):
            with new_file(library / place) as (copy, temporary), file.open("rb") as source:
                while block := source.read(1 << 20):
                    copy.write(block)
            put_in_place(temporary, final)
    return place.as_posix()


def sound(folder: Path) -> bool:
    """Whether a head's folder still holds exactly what was put there."""
    return folder.is_dir() and folder.name == _name(
        sorted(path for path in folder.iterdir() if path.is_file())
    )


def _name(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()[:32]
