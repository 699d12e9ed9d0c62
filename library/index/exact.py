"""The exact part of the index: one FAISS file that is read whole and searched whole.

Inner product over unit vectors in float16 (`IDMap,SQfp16`): recall@10 against float32 .999 to 1.000, half the size and
twice the speed, and a score does not depend on how many queries are asked at once, as it does with the matrix products
of float32. Ids are moment ids.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.library.files import HashingFile
from vsearch.library.index.parts import check_part, damaged, write_part
from vsearch.records import PartFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

_BLOCK = 1 << 20
CHUNK = 65_536  # vectors handled at a time


def half_precision(dim: int) -> Any:
    """An empty flat index of float16 codes. All scores come from its kernel, whatever part a vector is in."""
    import faiss

    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def add_codes(flat: Any, codes: npt.NDArray[np.uint8]) -> None:
    """Add float16 codes (N, 2 D) at hand to an empty flat index."""
    import faiss

    if hasattr(flat, "add_sa_codes"):
        flat.add_sa_codes(codes)
    else:  # FAISS 1.9
        faiss.copy_array_to_vector(codes.ravel(), flat.codes)
        flat.ntotal = len(codes)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """FAISS keeps to the calling thread. For small work beside threads that make vectors: where those hold the cores,
    its own threads wait for each other ten times as long as one would work."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class ExactPart:
    """Vectors in memory, each compared with the query."""

    def __init__(self, index: Any) -> None:
        import faiss

        self._index = index
        self.dim = int(index.d)
        self.ids: Ids = faiss.vector_to_array(index.id_map)  # (N,) int64, in storage order

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Ids]:
        """(Q, D) float32 -> scores (Q, K), ids (Q, K), K = min(k, count): best first, equal scores in id order."""
        import numpy as np

        count = len(self.ids)
        k = min(k, count)
        if k <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
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
        for first in range(0, len(self.ids), CHUNK):
            n = min(CHUNK, len(self.ids) - first)
            yield self.ids[first : first + n], flat.reconstruct_n(first, n)


def exact_over(codes: npt.NDArray[np.uint8], ids: Ids, dim: int) -> ExactPart:
    """An exact part of float16 codes (N, 2 D) at hand."""
    import faiss
    import numpy as np

    flat = half_precision(dim)
    index = faiss.IndexIDMap(flat)
    add_codes(flat, codes)
    faiss.copy_array_to_vector(np.ascontiguousarray(ids, np.int64), index.id_map)
    index.ntotal = flat.ntotal
    return ExactPart(index)


def write_exact(folder: Path, batches: Iterable[tuple[Ids, Vectors]], dim: int) -> tuple[PartFile, Ids]:
    """Write an exact part of the given vectors; gives its file and its ids in storage order.

    Raises LibraryError when the disk is full; the folder is then as it was.
    """
    import faiss

    index = faiss.IndexIDMap(half_precision(dim))
    for ids, vectors in batches:
        if len(ids):
            with one_thread():
                index.add_with_ids(vectors, ids)
    file = write_part(folder, ".faiss", lambda file: write_faiss(index, file))
    return file, faiss.vector_to_array(index.id_map)


def open_exact(folder: Path, file: PartFile, count: int, dim: int, *, full: bool) -> ExactPart:
    """Raises FileNotFoundError when the file is not there, LibraryError when it is not what was written."""
    import faiss

    index = read_faiss(check_part(folder, file, full=full))
    if not isinstance(index, faiss.IndexIDMap) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise damaged("its file is of another kind")
    if (index.ntotal, index.d) != (count, dim):
        raise damaged(f"it holds {index.ntotal} vectors instead of {count}")
    return ExactPart(index)


def write_faiss(index: Any, file: HashingFile) -> None:
    import faiss

    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _BLOCK))  # type: ignore[attr-defined]


def read_faiss(path: Path) -> Any:
    """Through Python's own file, whose names need not be valid UTF-8. Not mapped: FAISS 1.15 copies these lists all the
    same, and the file stays in memory beside the copy."""
    import faiss

    try:
        with open(path, "rb") as file:
            return faiss.read_index(faiss.PyCallbackIOReader(file.read, _BLOCK))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise damaged("FAISS cannot read its file") from error
