"""Posters: JPEG files with a digest behind their end, where no picture program looks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vsearch.library.files import new_file, put_in_place

THUMBS = "thumbs"
_MARK, _DIGEST_BYTES = b"\nvs:", 8


def thumb_name(fingerprint: str) -> str:
    """The poster's place below the library."""
    digest = hashlib.sha256(fingerprint.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return str(Path(THUMBS) / digest[:2] / f"{digest}.jpg")


def write_poster(library: Path, fingerprint: str, jpeg: bytes) -> None:
    final = library / thumb_name(fingerprint)
    with new_file(final.parent, sync=False) as (file, temporary):
        file.write(jpeg + _MARK + _digest(jpeg))
    put_in_place(temporary, final, sync=False)


def sound(file: Path) -> bool:
    """Whether a poster is as it was written; of one without a digest, by an older vsearch, whether it ends as it begins:
    as a JPEG. Raises FileNotFoundError."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError:  # a folder in its place, a failing disk
        return False
    jpeg, mark, digest = (
        data[: -_DIGEST_BYTES - len(_MARK)],
        data[-_DIGEST_BYTES - len(_MARK) : -_DIGEST_BYTES],
        data[-_DIGEST_BYTES:],
    )
    if mark == _MARK:
        return digest == _digest(jpeg)
    return data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")


def _digest(jpeg: bytes) -> bytes:
    return hashlib.blake2b(jpeg, digest_size=_DIGEST_BYTES).digest()
