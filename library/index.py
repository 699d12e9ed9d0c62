"""The vector index: immutable FAISS files, one a generation.

Exact inner product over unit vectors in float16 (`IDMap,SQfp16`): recall@10 against float32 .999 to 1.000,
half the size and twice the speed, and a score does not depend on how many queries are asked at once, as it
does with the matrix products of float32. Ids are moment ids. The file is derived: it is checked before it is
used, and never trusted beyond that.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import LibraryError
from vsearch.library.disk import file_sha256, new_file, put_in_place
from vsearch.library.records import Generation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

INDEX = "index"
MEND = "run `vsearch verify --repair`"
_BLOCK = 1 << 20
_WHOLE = 64 << 20  # files up to this size are hashed whole when opened, larger ones by samples
_CHUNK = 65_536  # vectors carried over at a time


@dataclass(frozen=True)
class IndexFile:
    """A written index that no catalogue row names yet."""

    file: str
    count: int
    dim: int
    sha256: str
    sample: str
    bytes: int
    id_check: str


class IndexView:
    """An open generation. Searching is safe from several threads; the file may be replaced meanwhile."""

    def __init__(self, generation: Generation, index: Any) -> None:
        import faiss

        self.generation = generation
        self._index = index
        self.ids: Ids = faiss.vector_to_array(index.id_map)  # (N,) int64, in storage order

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, Ids]:
        """The k best moments of each query: (Q, D) float32 -> scores (Q, K), ids (Q, K), K = min(k, count).

        Best first; equal scores in id order, also where k cuts through them.
        """
        import numpy as np

        count = self.generation.count
        k = min(k, count)
        if k <= 0:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        if vectors.ndim != 2 or vectors.shape[1] != self.generation.dim or not np.isfinite(vectors).all():
            raise ValueError(f"queries of shape {vectors.shape} for {self.generation.dim}-d, or not finite")
        queries = np.ascontiguousarray(vectors, np.float32)
        fetch = min(k + 1, count)
        while True:
            scores, ids = self._index.search(queries, fetch)
            if fetch == count or not (scores[:, k - 1] == scores[:, -1]).any():
                break
            fetch = min(fetch * 2, count)  # a tie across the cut: see all of it
        order = np.lexsort((ids, -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def vectors(self) -> Iterator[tuple[Ids, Vectors]]:
        """All ids with their vectors, in chunks: (n,) int64, (n, D) float32."""
        import faiss

        flat = faiss.downcast_index(self._index.index)
        for first in range(0, len(self.ids), _CHUNK):
            n = min(_CHUNK, len(self.ids) - first)
            yield self.ids[first : first + n], flat.reconstruct_n(first, n)


def write_index(folder: Path, batches: Iterable[tuple[Ids, Vectors]], valid: Ids) -> IndexFile:
    """Build an index of the given vectors whose ids are valid (each once, the first counts) and write it.

    Raises LibraryError when the disk is full; the folder is then as it was.
    """
    import faiss
    import numpy as np

    index: Any = None
    seen = np.zeros(len(valid), bool)
    for ids, vectors in batches:
        if vectors.ndim != 2 or len(ids) != len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(f"{len(ids)} ids with vectors of shape {vectors.shape}, or not finite")
        places = np.searchsorted(valid, ids)
        places[places == len(valid)] = 0
        chosen = np.flatnonzero(valid[places] == ids) if len(valid) else places[:0]
        _, first = np.unique(places[chosen], return_index=True)
        chosen = chosen[np.sort(first)]
        chosen = chosen[~seen[places[chosen]]]
        seen[places[chosen]] = True
        if index is None:
            index = _empty_index(vectors.shape[1])
        if len(chosen):
            index.add_with_ids(
                np.ascontiguousarray(vectors[chosen], np.float32),
                np.ascontiguousarray(ids[chosen], np.int64),
            )
    if index is None:
        index = _empty_index(1)
    name = f"{secrets.token_hex(8)}.faiss"
    with new_file(folder / INDEX) as (file, temporary):
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _BLOCK))  # type: ignore[attr-defined]
    sample = _sample_hash(temporary, file.bytes)
    put_in_place(temporary, folder / INDEX / name)
    check = id_check(int(seen.sum()), int(valid[seen].max(initial=0)), int(valid[seen].sum()))
    return IndexFile(name, int(index.ntotal), int(index.d), file.sha256, sample, file.bytes, check)


def open_index(folder: Path, generation: Generation, *, full: bool = False) -> IndexView:
    """Open and check a generation: size, hash, dimension, count, metric.

    The hash covers the whole file up to 64 MiB or when `full`, else 64 blocks of it. Raises
    FileNotFoundError when the file is not there, LibraryError when it is not what was written.
    """
    import faiss

    path = folder / INDEX / generation.file
    size = path.stat().st_size
    if size != generation.bytes:
        raise damaged(f"its file has {size} bytes instead of {generation.bytes}")
    if full or size <= _WHOLE:
        same = file_sha256(path) == generation.sha256
    else:
        same = _sample_hash(path, size) == generation.sample
    if not same:
        raise damaged("its file has changed since it was written")
    try:
        with open(path, "rb") as file:
            index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _BLOCK))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise damaged("FAISS cannot read its file") from error
    if not isinstance(index, faiss.IndexIDMap) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise damaged("its file is of another kind")
    if (index.ntotal, index.d) != (generation.count, generation.dim):
        raise damaged(f"it holds {index.ntotal} vectors instead of {generation.count}")
    return IndexView(generation, index)


def id_check(count: int, largest: int, total: int) -> str:
    """Tells sets of ids apart well enough to see that the index is behind; SQL can compute it."""
    return f"{count}:{largest}:{total}"


def damaged(why: str) -> LibraryError:
    return LibraryError(f"The search index is damaged ({why}): {MEND}.")


def generation_row(written: IndexFile, encoder_id: int) -> dict[str, Any]:
    return {
        "encoder_id": encoder_id,
        "file": written.file,
        "count": written.count,
        "dim": written.dim,
        "sha256": written.sha256,
        "sample": written.sample,
        "bytes": written.bytes,
        "id_check": written.id_check,
        "created_at": int(time.time()),
    }


def _empty_index(dim: int) -> Any:
    import faiss

    flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexIDMap(flat)


def _sample_hash(path: Path, size: int, blocks: int = 64, block: int = 65_536) -> str:
    """Hash of the size and of evenly spread blocks, first and last included."""
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for i in range(blocks):
            file.seek(max(0, size - block) * i // (blocks - 1))
            digest.update(file.read(block))
    return digest.hexdigest()
