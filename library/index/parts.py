"""Files of the index: written under a temporary name and hashed on the way, checked before they are used."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from vsearch.errors import LibraryError
from vsearch.library.files import HashingFile, file_sha256, new_file, put_in_place
from vsearch.records import PartFile

INDEX = "index"
MEND = "run `vsearch verify --repair`"
SUFFIXES = (".faiss", ".rows", ".ids", ".gone")
_WHOLE = 64 << 20  # files up to this size are hashed whole when opened, larger ones by samples


def write_part(folder: Path, suffix: str, fill: Callable[[HashingFile], None]) -> PartFile:
    """A new file of the library's index, filled by `fill`. Raises LibraryError when the disk is full; the folder is
    then as it was."""
    name = secrets.token_hex(8) + suffix
    with new_file(folder / INDEX) as (file, temporary):
        fill(file)
    try:
        sample = _sample_hash(temporary, file.bytes)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    put_in_place(temporary, folder / INDEX / name)
    return PartFile(name, file.bytes, file.sha256, sample)


def check_part(folder: Path, part: PartFile, *, full: bool = False) -> Path:
    """The path of a file that is what was written, by size and hash: of the whole file up to 64 MiB or when `full`,
    else of 64 blocks of it. Raises FileNotFoundError when it is not there, LibraryError when it has changed."""
    path = folder / INDEX / part.file
    size = path.stat().st_size
    if size != part.bytes:
        raise damaged(f"its file has {size} bytes instead of {part.bytes}")
    if full or size <= _WHOLE:
        same = file_sha256(path) == part.sha256
    else:
        same = _sample_hash(path, size) == part.sample
    if not same:
        raise damaged("its file has changed since it was written")
    return path


@contextlib.contextmanager
def all_or_none(folder: Path) -> Iterator[Callable[[PartFile], PartFile]]:
    """Of the files noted in the block all stay, or on any error none."""
    noted: list[PartFile] = []

    def note(part: PartFile) -> PartFile:
        noted.append(part)
        return part

    try:
        yield note
    except BaseException:
        remove(folder, *noted)
        raise


def remove(folder: Path, *parts: PartFile) -> None:
    for part in parts:
        (folder / INDEX / part.file).unlink(missing_ok=True)


def damaged(why: str) -> LibraryError:
    return LibraryError(f"The search index is damaged ({why}): {MEND}.")


def _sample_hash(path: Path, size: int, blocks: int = 64, block: int = 65_536) -> str:
    """Hash of the size and of evenly spread blocks, first and last included."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for i in range(blocks):
            file.seek(max(0, size - block) * i // (blocks - 1))
            digest.update(file.read(block))
    return digest.hexdigest()
