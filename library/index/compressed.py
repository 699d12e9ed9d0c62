"""The compressed part of the index, for large libraries: approximate candidates, compared again exactly.

Three immutable files: `codes` (codes.py) find candidates in memory, 1/16 of float32 or less; `rows` (float16,
memory-mapped) are what candidates are compared with, by the same kernel as in the exact part; `ids` are the moment ids,
memory-mapped. A place is a row's number in all three. Rows that left the
library are passed over by their places (`gone`): FAISS's own remove-then-add silently loses recall with fast scan.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.library.files import HashingFile
from vsearch.library.index.codes import Codes, gpus, read_codes, train_codes
from vsearch.library.index.effort import MOST, QUERIES, K, measure_effort, sample_queries
from vsearch.library.index.exact import CHUNK, add_codes, exact_over, half_precision, one_thread
from vsearch.library.index.parts import all_or_none, check_part, damaged, write_part
from vsearch.records import IndexBase, PartFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)

LISTS = 2.0  # inverted lists a square root of the number of rows
TRAINING = 40  # rows a list that k-means sees
_SPARE = 4  # candidates for each answer asked for, where more than ten are


class Rows:
    """float16 rows of a file, memory-mapped. They stay readable when the file's name is gone."""

    def __init__(self, path: Path, count: int, dim: int) -> None:
        import numpy as np

        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_RANDOM)  # candidates lie far apart: reading ahead would read in vain
        self.codes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8).reshape(count, 2 * dim)
        self._flat = half_precision(dim)

    def __len__(self) -> int:
        return len(self.codes)

    def decoded(self, places: Any) -> Vectors:
        """(n, D) float32."""
        import numpy as np

        decoded: Vectors = self._flat.sa_decode(np.ascontiguousarray(self.codes[places]))
        return decoded

    def chunks(self) -> Iterator[slice]:
        """Slices in order; each is asked for from the disk at once."""
        width = self.codes.shape[1]
        for first in range(0, len(self), CHUNK):
            last = min(first + CHUNK, len(self))
            if hasattr(self._map, "madvise"):
                begin = first * width // mmap.PAGESIZE * mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, begin, last * width - begin)
            yield slice(first, last)


class BasePart:
    """An open base. Searching is safe from several threads."""

    def __init__(self, base: IndexBase, dim: int, codes: Codes, rows: Rows, places: Ids, gone: Ids) -> None:
        import numpy as np

        self.base = base
        self.dim = dim
        self.count = len(rows) - len(gone)
        self.gone: Ids = gone  # places, ascending
        self.all_ids: Ids = places  # by place
        self._codes = codes
        self._rows = rows
        self._here = np.ones(len(rows), bool)
        self._here[gone] = False

    @property
    def ids(self) -> Ids:
        """Ids of the rows that are in the library, by place."""
        import numpy as np

        return np.asarray(self.all_ids[self._here])

    def search(self, query: Vectors, k: int) -> tuple[Vectors, Ids]:
        """(1, D) float32 -> scores (K,), ids (K,), K = min(k, count): best first, equal scores in id order."""
        import numpy as np

        k = min(k, self.count)
        if k <= 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        near = float(self._codes.near(query)[0])
        effort = next(step for step in self.base.effort if near > step.above or step is self.base.effort[-1])
        probes, wanted = effort.probes, max(effort.candidates, _SPARE * k)
        fetch = wanted if len(self.gone) == 0 else wanted * len(self._rows) * 5 // (self.count * 4)
        while probes and fetch * MOST <= len(self._rows):
            found = self._codes.search(query, fetch, probes)[0]
            found = found[found >= 0]
            full = len(found) == fetch
            found = np.sort(found[self._here[found]])
            if not full and probes < self._codes.lists:
                probes = min(2 * probes, self._codes.lists)  # these lists hold too few
            elif full and len(found) < wanted:
                fetch *= 2  # most of what is near has left the library
            else:
                scores, order = self._compare(query, found)
                if len(scores) > k and scores[k - 1] > scores[-1]:
                    return _first(k, scores, self.all_ids[found[order]])
                fetch *= 2  # a tie of all candidates across the cut: see more of it
        return self._search_all(query, k)

    def vectors(self) -> Iterator[tuple[Ids, Vectors]]:
        """All ids with their vectors, in chunks: (n,) int64, (n, D) float32."""
        for part in self._rows.chunks():
            here = self._here[part]
            yield self.all_ids[part][here], self._rows.decoded(part)[here]

    def _compare(self, query: Vectors, places: Ids) -> tuple[Vectors, Ids]:
        """Exact scores, best first, and the order of the places that gives them."""
        flat = half_precision(self.dim)
        add_codes(flat, self._rows.codes[places])
        scores, order = flat.search(query, len(places))
        return scores[0], order[0]

    def _search_all(self, query: Vectors, k: int) -> tuple[Vectors, Ids]:
        """Every row compared: for more answers than candidates pay for."""
        import numpy as np

        scores, ids = np.empty(0, np.float32), np.empty(0, np.int64)
        for part in self._rows.chunks():
            here = self._here[part]
            some = exact_over(self._rows.codes[part][here], self.all_ids[part][here], self.dim)
            more, others = some.search(query, k)
            scores, ids = _first(k, np.concatenate([scores, more[0]]), np.concatenate([ids, others[0]]))
        return scores, ids


def write_rows(folder: Path, batches: Iterable[tuple[Ids, Vectors]], dim: int) -> tuple[PartFile, Ids]:
    """Write vectors as float16 rows; gives the file and the ids by place."""
    import numpy as np

    flat = half_precision(dim)
    ids: list[Ids] = []

    def fill(file: HashingFile) -> None:
        for some, vectors in batches:
            if len(some):
                with one_thread():
                    codes = flat.sa_encode(vectors)
                file.write(memoryview(codes).cast("B"))
                ids.append(some)

    return write_part(folder, ".rows", fill), np.concatenate([*ids, np.empty(0, np.int64)])


def write_base(folder: Path, rows_file: PartFile, ids: Ids, dim: int, sentences: Vectors | None) -> IndexBase:
    """Train, encode and measure a base over rows already written. `sentences`: query vectors (S, D) asked before.

    The rows are read from disk in chunks.
    """
    import numpy as np

    rows = Rows(folder / "index" / rows_file.file, len(ids), dim)
    rng = np.random.default_rng(0)
    lists = max(1, round(LISTS * len(ids) ** 0.5))
    order = rng.permutation(len(ids))
    codes = train_codes(rows.decoded(np.sort(order[: TRAINING * lists])), lists)
    truth = _Truth(sample_queries(rows.decoded(np.sort(order[-4 * QUERIES :])), sentences))
    for part in rows.chunks():
        vectors = rows.decoded(part)
        codes.add(vectors)
        truth.see(part.start, vectors)
    effort, recall = measure_effort(codes, truth.clear())
    _log.info("index of %d rows: recall %.3f, %s", len(ids), recall, effort)
    with all_or_none(folder) as note:
        coded = note(write_part(folder, ".faiss", codes.write))
        names = note(write_part(folder, ".ids", lambda file: _write_array(file, ids)))
    return IndexBase(len(ids), coded, rows_file, names, None, 0, effort, recall)


def write_gone(folder: Path, places: Ids) -> PartFile:
    return write_part(folder, ".gone", lambda file: _write_array(file, places))


def open_base(folder: Path, base: IndexBase, dim: int, *, full: bool) -> BasePart:
    """Raises FileNotFoundError when a file is not there, LibraryError when one is not what was written."""
    import numpy as np

    files = [check_part(folder, part, full=full) for part in (base.codes, base.rows, base.ids)]
    codes = read_codes(files[0])
    if (codes.count, codes.dim) != (base.count, dim):
        raise damaged(f"it holds {codes.count} vectors instead of {base.count}")
    if base.rows.bytes != base.count * dim * 2 or base.ids.bytes != base.count * 8:
        raise damaged("its files do not belong together")
    gone = np.empty(0, np.int64)
    if base.gone is not None:
        gone = np.fromfile(check_part(folder, base.gone, full=full), "<i8").astype(np.int64)
    ids = np.asarray(np.memmap(files[2], "<i8", "r"))
    return BasePart(base, dim, codes, Rows(files[1], base.count, dim), ids, gone)


class _Truth:
    """The true first answers of queries, found while the rows go by."""

    def __init__(self, kinds: list[Vectors]) -> None:
        import numpy as np

        self._kinds = kinds
        self._queries = np.concatenate(kinds)
        self._scores = np.empty((len(self._queries), 0), np.float32)
        self._places = np.empty((len(self._queries), 0), np.int64)

    def see(self, first: int, vectors: Vectors) -> None:
        import faiss
        import numpy as np

        k = min(K + 1, len(vectors))
        scores, places = _nearest()(self._queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([self._scores, scores], axis=1)
        places = np.concatenate([self._places, first + places], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : K + 1]
        self._scores = np.take_along_axis(scores, order, axis=1)
        self._places = np.take_along_axis(places, order, axis=1)

    def clear(self) -> list[tuple[Vectors, Ids]]:
        """Kinds of queries with the places of their first ten; without those that have a tie at the cut."""
        found, first = [], 0
        for queries in self._kinds:
            rows = slice(first, first + len(queries))
            first += len(queries)
            scores, places = self._scores[rows], self._places[rows]
            one = scores[:, K - 1] > scores[:, -1] if scores.shape[1] > K else scores[:, 0] < 2
            found.append((queries[one], places[one, :K]))
        return found


def _nearest() -> Any:
    """Exact search of vectors at hand, on a GPU where there is one."""
    import functools

    import faiss

    if gpus():
        return functools.partial(faiss.knn_gpu, faiss.StandardGpuResources())
    return faiss.knn


def _write_array(file: HashingFile, values: Ids) -> None:
    file.write(values.astype("<i8").tobytes())


def _first(k: int, scores: Vectors, ids: Ids) -> tuple[Vectors, Ids]:
    import numpy as np

    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]
