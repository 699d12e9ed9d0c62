"""The frame store: one `.npy` file for the sampled frames of one video by one backbone.

A record a frame, `[("time_ms", "<i8"), ("vector", "<f2", (D,))]`, so one memory-map gives both, and NumPy
alone can read the file. Behind the records stands a line of JSON that says whose they are: what the catalogue says of
them can be checked against it, and mended from it. The file's name is the SHA-256 of its bytes: a name never changes
its meaning, and a damaged file betrays itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.library.files import TEMPORARY, abandoned, new_file, put_in_place
from vsearch.records import FrameSet, StoredFrames

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FRAMES = "frames"
_CHUNK = 8192  # records assembled at a time: 8 MB at D = 512
_CHECKED = 1024  # records checked at a time: what stays in the processor's cache is checked twice as fast
# Files of this process by row, path, inode, size and times: whether every byte is as it was written. Hashing takes 0.6 to
# 1.8 ms a megabyte, once; 200 candidates of two minutes each have 50 MB.
_checked: dict[tuple[object, ...], bool] = {}
_checking = threading.Lock()  # a file is checked once, however many ask for it
# NumPy's format 1.0, as it writes our records. NumPy itself would read it with `ast`, which fails in threads.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?s:..){'descr': \[\('time_ms', '<i8'\), \('vector', '<f2', \((\d{1,6}),\)\)\], "
    rb"'fortran_order': False, 'shape': \((\d{1,15}),\), } *\n"
)
_HEADER_BYTES = 1024  # more than it ever has


class FrameStore:
    """The folder `frames/`. Knows files, not the catalogue; safe to use in workers."""

    def __init__(self, library: Path) -> None:
        self.folder = library / FRAMES

    def path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npy"

    def put(
        self,
        fingerprint: str,
        backbone: str,
        fps: float,
        vectors: npt.NDArray[np.floating[Any]],
        times_ms: npt.NDArray[np.int64],
        about: Mapping[str, object] | None = None,
    ) -> StoredFrames:
        """Write frames and make them last; the catalogue learns of them through `Library.record_indexed`. Hold the
        writer's lock meanwhile: frames dropped before, and put again, may else be swept before they are recorded.

        vectors (T, D), stored as float16; times_ms (T,) int64, ascending; T >= 1. `about`: what else the file is to
        say of the video, for `description`. Raises LibraryError when the disk is full, ValueError for frames that
        make no sense.
        """
        import numpy as np

        count, dim = vectors.shape
        if count == 0 or times_ms.shape != (count,):
            raise ValueError(f"frames of shape {vectors.shape} with times of shape {times_ms.shape}")
        if count > 1 and not bool((np.diff(times_ms) >= 0).all()):
            raise ValueError("frame times must ascend")
        kind = _record(dim)
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, kind)) | {"shape": (count,)}
        # Fans out over 256 folders only at the end: the name is known when all is written.
        with new_file(self.folder) as (file, temporary):
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, count, _CHUNK):
                with np.errstate(over="ignore"):
                    part = vectors[first : first + _CHUNK].astype("<f2")
                if not np.isfinite(part).all():
                    raise ValueError("frame vectors must be finite in float16")
                records = np.empty(len(part), kind)
                records["time_ms"] = times_ms[first : first + _CHUNK]
                records["vector"] = part
                file.write(records.tobytes())
            whose = {"fingerprint": fingerprint, "backbone": backbone, "fps": fps, **(about or {})}
            file.write(b"\n" + json.dumps(whose).encode() + b"\n")
        put_in_place(temporary, self.path(file.sha256))
        return StoredFrames(file.sha256, fingerprint, backbone, fps, count, dim, file.bytes)

    def read(self, stored: StoredFrames) -> FrameSet:
        """Memory-map frames. Raises DamagedFramesError when the file is gone or not what was written: it is read
        whole the first time that this process asks for it, and again when its size or time has changed."""
        import numpy as np

        path = self.path(stored.name)
        try:
            # Read before it is mapped, too: where the disk fails that is an error, in mapped memory a killed process.
            found = path.stat()
            key = (stored, path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            with _checking:
                if key not in _checked:
                    _checked[key] = found.st_size == stored.bytes and self.sound(stored)
            if not _checked[key]:
                raise ValueError("content")
            with open(path, "rb") as file:
                begin = _begin(file, stored.dim, stored.count)
                records = np.memmap(file, _record(stored.dim), "r", begin, (stored.count,))
        except (OSError, ValueError) as error:
            raise DamagedFramesError(
                f"The stored frames {path.name} are missing or damaged: run `vsearch verify --repair`."
            ) from error
        return FrameSet(times_ms=records["time_ms"], vectors=records["vector"])

    def description(self, name: str) -> dict[str, Any]:
        """What a sound file says of its frames: `count`, `dim` and `bytes`, and in files of today also `fingerprint`,
        `backbone`, `fps` and what `put` was told. Raises LibraryError when it cannot be read."""
        path = self.path(name)
        try:
            with open(path, "rb") as file:
                dim, count, begin = _header(file)
                end = begin + count * _record(dim).itemsize
                size = os.stat(file.fileno()).st_size
                if size < end:
                    raise ValueError("cut short")
                file.seek(end)
                told = file.read()
            return {"count": count, "dim": dim, "bytes": size} | (json.loads(told) if told else {})
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise LibraryError(f"The stored frames {path.name} are damaged.") from error

    def told(self, name: str) -> dict[str, Any]:
        """The line behind the records, without a look at these; empty when there is none or it cannot be read."""
        try:
            with open(self.path(name), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE))
                said = json.loads(file.read().removesuffix(b"\n").rpartition(b"\n")[2])
        except (OSError, ValueError, TypeError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}

    def sound(self, stored: StoredFrames) -> bool:
        """Whether the file is there, every byte of it is as it was written, its values are finite and its times ascend.
        Reads it whole each time."""
        import numpy as np

        digest, kind = hashlib.sha256(), _record(stored.dim)
        last = np.iinfo(np.int64).min
        try:
            with open(self.path(stored.name), "rb") as file:
                digest.update(file.read(_begin(file, stored.dim, stored.count)))
                rest = stored.count
                while rest > 0 and (block := file.read(min(rest, _CHECKED) * kind.itemsize)):
                    digest.update(block)
                    records = np.frombuffer(block, kind)
                    times, bits = records["time_ms"], records["vector"].view("<u2")
                    ascends = times[0] >= last and bool((times[1:] >= times[:-1]).all())
                    if not ascends or int((bits & _EXPONENT).max()) == _EXPONENT:
                        return False
                    last = times[-1]
                    rest -= len(records)
                digest.update(file.read())
        except (OSError, ValueError, OverflowError):
            return False
        return digest.hexdigest() == stored.name

    def names(self) -> set[str]:
        """Names of all complete frame files on the disk."""
        return {path.stem for path in self.folder.glob("??/*.npy")}

    def leftovers(self) -> list[Path]:
        """Temporary files that nobody writes any more."""
        return sorted(path for path in self.folder.glob(f"{TEMPORARY}*") if abandoned(path))


_LINE = 8192  # bytes that hold what stands behind the records
_EXPONENT = 0x7C00  # all ones in float16: not finite


def _header(file: BinaryIO) -> tuple[int, int, int]:
    """Dimension, number of records, and where these begin; `file` is at its start again. Raises ValueError, OSError."""
    found = _HEADER.match(file.read(_HEADER_BYTES))
    file.seek(0)
    if found is None:
        raise ValueError("not the header of frames")
    return int(found[1]), int(found[2]), found.end()


def _begin(file: BinaryIO, dim: int, count: int) -> int:
    """Where so many records begin. Raises ValueError when the file has others, OSError."""
    *had, begin = _header(file)
    if had != [dim, count]:
        raise ValueError("other frames")
    return begin


def _record(dim: int) -> np.dtype[Any]:
    import numpy as np

    return np.dtype([("time_ms", "<i8"), ("vector", "<f2", (dim,))])
