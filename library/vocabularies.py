"""Vocabularies that were learned from examples: safetensors files in the library's folder, with a digest of what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import LibraryError
from vsearch.library.files import disk_errors, new_file, put_in_place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

VOCABULARIES = "vocabularies"
_ABOUT, _DIGEST, _VECTORS = "vocabulary", "digest", "vectors"


def vocabulary_file(library: Path, name: str) -> Path:
    return library / VOCABULARIES / f"{name}.safetensors"


def write_vocabulary(
    library: Path, name: str, about: Mapping[str, Any], vectors: npt.NDArray[np.float32]
) -> Path:
    """Keep unit vectors (C, D) and what is to be known of them, wholly or not at all. Raises LibraryError."""
    import numpy as np
    from safetensors.numpy import save

    told = json.dumps(about)
    whole = np.ascontiguousarray(vectors)
    data = save({_VECTORS: whole}, {_ABOUT: told, _DIGEST: _digest(told, whole)})
    final = vocabulary_file(library, name)
    with new_file(final.parent) as (file, temporary):
        file.write(data)
    put_in_place(temporary, final)
    return final


def read_vocabulary(library: Path, name: str) -> tuple[dict[str, Any], npt.NDArray[np.float32]] | None:
    """None when there is none of that name. Raises LibraryError when it is not as it was written; one by an older
    vsearch has no digest."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = vocabulary_file(library, name)
    try:
        with disk_errors(file):
            data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        about, vectors = json.loads(metadata[_ABOUT]), load(data)[_VECTORS]
        digest = metadata.get(_DIGEST)
        if digest not in (None, _digest(metadata[_ABOUT], vectors)) or not np.isfinite(vectors).all():
            raise ValueError("not what was written")
        return dict(about), vectors
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise LibraryError(f"The vocabulary {name!r} is damaged: learn it again from examples.") from error


def _digest(about: str, vectors: npt.NDArray[np.float32]) -> str:
    return hashlib.blake2b(about.encode() + vectors.tobytes(), digest_size=8).hexdigest()
