"""Files that are either wholly there or not there at all, and a clear word when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vsearch.errors import LibraryError

TEMPORARY = ".part-"  # prefix of names that are not yet, and after a crash never were, part of the library
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILING = {
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ENODEV", "ENOTCONN", "ENXIO", "EREMOTEIO", "ETIMEDOUT", "EHOSTDOWN")
    if hasattr(errno, name)
}


class HashingFile:
    """A file being written whose SHA-256 is known at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._sha256.update(data)
        self.bytes += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


@contextlib.contextmanager
def new_file(folder: Path, *, sync: bool = True) -> Iterator[tuple[HashingFile, Path]]:
    """A temporary file in `folder` to write into; it is on the disk when the block is left.

    The caller then renames it with `put_in_place`. On any failure it is removed, so the folder is as before.
    """
    with disk_errors(folder):
        make_folder(folder)
        temporary = folder / f"{TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(8)}"
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode_like(folder) & 0o666)
    try:
        with disk_errors(folder), open(handle, "wb") as file:
            yield HashingFile(file), temporary
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, final: Path, *, sync: bool = True) -> None:
    """Rename within one file system, and make the new name last through a power cut."""
    try:
        with disk_errors(final):
            make_folder(final.parent)
            os.replace(temporary, final)
            if sync:
                sync_folder(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _host() -> str:
    import socket  # not for a query, which writes no file

    return socket.gethostname()


def clear(path: Path) -> None:
    """Make a name of the library free: a file goes, a folder in its place is set aside, for it is not ours."""
    if path.is_dir() and not path.is_symlink():
        set_aside(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> str:
    """Give something in a place of the library another name beside it; gives that. It is not ours to delete."""
    aside = path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}")
    os.replace(path, aside)
    return aside.name


def make_folder(folder: Path) -> None:
    """Make a folder, as private as its nearest existing parent in the library (0700 for a new library)."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=mode_like(folder.parent))
            sync_folder(folder.parent)


def mode_like(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def sync_file(path: Path) -> None:
    """What was written to a file by other hands is on the disk when this returns."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns the operating system's errors about the library's own files into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(where) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise LibraryError(
                f"The library at {where} cannot be written ({error.strerror}): "
                "check who owns the folder and whether its disk is read-only."
            ) from error
        if error.errno in _FAILING:
            raise disk_failing(where, error.strerror or "") from error
        if error.errno in (errno.EISDIR, errno.ENOTDIR):
            raise LibraryError(
                f"A folder lies where a file of the library belongs, or a file where a folder does "
                f"({error.filename2 or error.filename or where}): move it away and run the command again."
            ) from error
        raise


def disk_full(where: Path) -> LibraryError:
    return LibraryError(
        f"No room is left on the disk of {where}: free some space and run the command again; "
        "what was finished is kept."
    )


def disk_failing(where: Path, reason: str) -> LibraryError:
    return LibraryError(
        f"The disk of {where} fails or is no longer there ({reason.lower()}): check it and its connection, "
        "and run the command again."
    )


def delete(path: Path) -> None:
    """Delete a file of the library, if it is there. A folder in its place is left: it is not ours."""
    with disk_errors(path), contextlib.suppress(FileNotFoundError):
        if not path.is_dir():
            path.unlink()


def abandoned(temporary: Path) -> bool:
    """Whether nobody writes this temporary file any more, as far as one can see."""
    host, _, rest = temporary.name.removeprefix(TEMPORARY).rpartition("-")[0].rpartition("-")
    if host != _host() or not rest.isdecimal():
        return True  # of another machine, or of a vsearch that did not say whose it is
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
