"""What chance scores here: for each encoder, a library's scores for neutral sentences, in a file with a digest.

Derived like the index, from which they can be made again at any time. A damaged one counts as none: answers then come
without words, which is better than with wrong ones.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

from vsearch.library.files import new_file, put_in_place
from vsearch.records import NeutralScores

NEUTRAL = "neutral"
_DIGEST_BYTES = 16


def neutral_file(library: Path, encoder: str) -> Path:
    """`encoder`: an identity."""
    return library / NEUTRAL / f"{hashlib.sha256(encoder.encode()).hexdigest()[:32]}.npz"


def write_neutral(library: Path, encoder: str, scores: NeutralScores) -> None:
    """Wholly or not at all. Raises LibraryError."""
    import numpy as np

    held = io.BytesIO()
    np.savez(held, **vars(scores))
    data = held.getvalue()
    final = neutral_file(library, encoder)
    with new_file(final.parent) as (file, temporary):
        file.write(data + _digest(data, encoder))
    put_in_place(temporary, final)


def read_neutral(library: Path, encoder: str) -> NeutralScores | None:
    """None when there are none. Raises ValueError when they are not what was written, or cannot be read."""
    file = neutral_file(library, encoder)
    try:
        found = file.stat()
        return _read(file, encoder, (found.st_mtime_ns, found.st_size, found.st_ino))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError("cannot be read") from error


@lru_cache(maxsize=2)
def _read(file: Path, encoder: str, stamp: tuple[int, int, int]) -> NeutralScores:
    """`stamp`: tells whether the file is still the one that was read."""
    import numpy as np

    data = file.read_bytes()
    if _digest(data[:-_DIGEST_BYTES], encoder) != data[-_DIGEST_BYTES:]:
        raise ValueError("not what was written")
    with np.load(io.BytesIO(data[:-_DIGEST_BYTES]), allow_pickle=False) as held:
        values = {each.name: held[each.name] for each in fields(NeutralScores)}
    return NeutralScores(**{name: value if value.ndim else value.item() for name, value in values.items()})


def neutral_files(library: Path) -> list[Path]:
    return sorted((library / NEUTRAL).glob("*.npz"))


def sound(file: Path, encoders: list[str]) -> bool | None:
    """Whether a file is as it was written for one of these encoders; None: it is of none of them."""
    of = [each for each in encoders if neutral_file(file.parent.parent, each) == file]
    if not of:
        return None
    try:
        return read_neutral(file.parent.parent, of[0]) is not None
    except ValueError:
        return False


def _digest(data: bytes, encoder: str) -> bytes:
    return hashlib.blake2b(data + encoder.encode(), digest_size=_DIGEST_BYTES).digest()
