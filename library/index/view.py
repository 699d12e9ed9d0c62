"""The vector index: generations of immutable files, derived from the stored frames and never trusted unchecked.

A small library's generation is one exact part (exact.py). A large one's is a compressed base (compressed.py),
what was added since as an exact part beside it, and the places of the base's rows that left the library. An update
writes only the last two; when they have grown past a share of the base, all is built anew.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.library.index.compressed import BasePart, Rows, open_base, write_base, write_gone, write_rows
from vsearch.library.index.exact import ExactPart, open_exact, write_exact
from vsearch.library.index.parts import INDEX, MEND, SUFFIXES, all_or_none, check_part, damaged, remove
from vsearch.records import Generation, IndexBase, PartFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]
    Batch = tuple[Ids, Vectors]

__all__ = [
    "INDEX",
    "MEND",
    "SUFFIXES",
    "IndexView",
    "damaged",
    "open_index",
    "part_files",
    "write_index",
    "write_update",
]

EXACT_VALUES = 50_000_000  # moments x dimensions that are searched exactly: about 5 ms on one core
ADDED_SHARE = 0.02  # of the base that may lie beside it; searched exactly, at 1M x 512 in half a millisecond
ADDED_LEAST = 10_000  # moments that may lie beside it in any case
GONE_SHARE = 0.2  # of the base's rows that may be passed over


@dataclass(frozen=True)
class IndexFiles:
    """A written index that no catalogue row names yet. `new`: its files that no other generation has."""

    exact: PartFile
    base: IndexBase | None
    count: int
    dim: int
    id_check: str
    new: tuple[PartFile, ...]


class IndexView:
    """An open generation. Searching is safe from several threads; the files may be replaced meanwhile."""

    def __init__(self, generation: Generation, exact: ExactPart, base: BasePart | None) -> None:
        self.generation = generation
        self.exact = exact
        self.base = base

    @property
    def ids(self) -> Ids:
        """All ids (N,) int64, in storage order."""
        import numpy as np

        if self.base is None:
            return self.exact.ids
        return np.concatenate([self.base.ids, self.exact.ids])

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, Ids]:
        """The k best moments of each query: (Q, D) float32 -> scores (Q, K), ids (Q, K), K = min(k, count).

        Best first; equal scores in id order, also where k cuts through them. Scores are exact to half precision. With
        a base, recall@10 is PROMISED_RECALL (effort.py) or more.
        """
        import numpy as np

        generation = self.generation
        k = max(0, min(k, generation.count))
        if k == 0:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64)
        if vectors.ndim != 2 or vectors.shape[1] != generation.dim or not np.isfinite(vectors).all():
            raise ValueError(f"queries of shape {vectors.shape} for {generation.dim}-d, or not finite")
        queries = np.ascontiguousarray(vectors, np.float32)
        scores, ids = self.exact.search(queries, k)
        if self.base is None:
            return scores, ids
        best = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for i in range(len(queries)):
            more, others = self.base.search(queries[i : i + 1], k)
            both, all_ids = np.concatenate([scores[i], more]), np.concatenate([ids[i], others])
            order = np.lexsort((all_ids, -both))[:k]
            best[0][i], best[1][i] = both[order], all_ids[order]
        return best

    def vectors(self) -> Iterator[Batch]:
        """All ids with their vectors, in chunks: (n,) int64, (n, D) float32."""
        if self.base is not None:
            yield from self.base.vectors()
        yield from self.exact.vectors()

    def takes_update(self, valid: Ids) -> bool:
        """Whether its base can stay when exactly these ids (ascending) are to be in the library."""
        import numpy as np

        if self.base is None:
            return False
        rows = len(self.base.all_ids)
        stay = int(np.isin(self.base.all_ids, valid).sum())
        added, gone = len(valid) - stay, rows - stay
        return added <= max(ADDED_LEAST, ADDED_SHARE * rows) and gone <= GONE_SHARE * rows


def write_index(
    folder: Path, batches: Iterable[Batch], valid: Ids, sentences: Callable[[], Vectors | None]
) -> IndexFiles:
    """Write an index of the given vectors whose ids are valid (each once, the first counts): exact when it is small,
    else with a base, whose effort is also measured with `sentences()`, (S, D) query vectors asked before.

    Raises LibraryError when the disk is full; the folder is then as it was.
    """
    chosen = _choose(batches, valid)
    first = next(chosen, None)
    dim = 1 if first is None else first[1].shape[1]
    every = itertools.chain(() if first is None else (first,), chosen)
    with all_or_none(folder) as note:
        if len(valid) * dim < EXACT_VALUES:
            exact, ids = write_exact(folder, every, dim)
            return _described(note(exact), None, ids, dim, (exact,))
        rows, ids = write_rows(folder, every, dim)
        note(rows)
        if len(ids) * dim < EXACT_VALUES:  # many moments have no vector yet
            exact, ids = write_exact(folder, _stored(folder / INDEX / rows.file, ids, dim), dim)
            remove(folder, rows)
            return _described(note(exact), None, ids, dim, (exact,))
        base = write_base(folder, rows, ids, dim, sentences())
        for part in (base.codes, base.ids):
            note(part)
        exact, _ = write_exact(folder, (), dim)
        return _described(note(exact), base, ids, dim, (exact, *part_files(base)))


def write_update(folder: Path, former: IndexView, batches: Iterable[Batch], valid: Ids) -> IndexFiles:
    """Write what changes when a base stays: the vectors given, each once, and which of its rows are gone: those whose
    ids are not valid, or given anew."""
    import numpy as np

    assert former.base is not None
    dim = former.generation.dim
    with all_or_none(folder) as note:
        exact, added = write_exact(folder, _choose(batches, valid), dim)
        note(exact)
        new: tuple[PartFile, ...] = (exact,)
        stay = np.isin(former.base.all_ids, valid) & ~np.isin(former.base.all_ids, added)
        gone = np.flatnonzero(~stay)
        base = former.base.base
        if not np.array_equal(gone, former.base.gone):
            part = note(write_gone(folder, gone)) if len(gone) else None
            new += () if part is None else (part,)
            base = replace(base, gone=part, gone_count=len(gone))
        ids = np.concatenate([former.base.all_ids[stay], added])
        return _described(exact, base, ids, dim, new)


def open_index(folder: Path, generation: Generation, *, full: bool = False) -> IndexView:
    """Open and check a generation: size, hash, dimension, count, metric.

    Hashes cover whole files up to 64 MiB or when `full`, else 64 blocks of each. Raises FileNotFoundError when a file
    is not there, LibraryError when one is not what was written.
    """
    base = generation.base
    count = generation.count if base is None else generation.count - (base.count - base.gone_count)
    file = PartFile(generation.file, generation.bytes, generation.sha256, generation.sample)
    exact = open_exact(folder, file, count, generation.dim, full=full)
    if base is None:
        return IndexView(generation, exact, None)
    return IndexView(generation, exact, open_base(folder, base, generation.dim, full=full))


def check_index(folder: Path, generation: Generation, *, full: bool = False) -> None:
    """As `open_index`, by size and hash alone, which needs neither FAISS nor memory."""
    file = PartFile(generation.file, generation.bytes, generation.sha256, generation.sample)
    for part in (file, *(() if generation.base is None else part_files(generation.base))):
        check_part(folder, part, full=full)


def part_files(base: IndexBase) -> tuple[PartFile, ...]:
    return tuple(part for part in (base.codes, base.rows, base.ids, base.gone) if part is not None)


def id_check(ids: Iterable[int]) -> str:
    """Tells sets of ids apart, whatever their order."""
    return id_check_of(",".join(map(str, sorted(ids))))


def id_check_of(ascending: str) -> str:
    """Of the ids in ascending order with commas between: SQL can write that."""
    return hashlib.sha256(ascending.encode()).hexdigest()


def sealed(id_check: str, encoder: str, sha256: str, base: str | None) -> str:
    """What a row says of its ids, and behind a point a digest that binds them and its files to an encoder's identity."""
    whole = "\0".join([id_check, encoder, sha256, base or ""])
    return f"{id_check}.{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def is_of(row: Any, encoder: str) -> bool:
    """Whether a generation's row is of the encoder of this identity, as far as it says: those of old do not."""
    ids, point, _ = row.id_check.partition(".")
    return not point or row.id_check == sealed(ids, encoder, row.sha256, row.base)


def generation_row(written: IndexFiles, encoder_id: int, encoder: str) -> dict[str, Any]:
    """Values of a row. `encoder`: the identity of that of `encoder_id`."""
    base = None if written.base is None else json.dumps(asdict(written.base))
    return {
        "encoder_id": encoder_id,
        "file": written.exact.file,
        "count": written.count,
        "dim": written.dim,
        "sha256": written.exact.sha256,
        "sample": written.exact.sample,
        "bytes": written.exact.bytes,
        "id_check": sealed(written.id_check, encoder, written.exact.sha256, base),
        "created_at": int(time.time()),
        "base": base,
    }


def _described(
    exact: PartFile, base: IndexBase | None, ids: Ids, dim: int, new: tuple[PartFile, ...]
) -> IndexFiles:
    return IndexFiles(exact, base, len(ids), dim, id_check(ids.tolist()), new)


def _stored(file: Path, ids: Ids, dim: int) -> Iterator[Batch]:
    if len(ids):
        rows = Rows(file, len(ids), dim)
        for part in rows.chunks():
            yield ids[part], rows.decoded(part)


def _choose(batches: Iterable[Batch], valid: Ids) -> Iterator[Batch]:
    """Of each batch what is valid and has not come before; empty ones too, as they tell the dimension."""
    import numpy as np

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
        yield np.ascontiguousarray(ids[chosen], np.int64), np.ascontiguousarray(vectors[chosen], np.float32)
