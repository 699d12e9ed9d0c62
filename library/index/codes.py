"""The codes of a large library's index: vectors turned to where their variance lies, cut short, and coded by FAISS.

Picture and sentence vectors fill their dimensions unevenly: of the built-in model's 384, 128 hold 94 % of the variance.
So vectors are turned to their principal directions and those that hold VARIANCE of it are kept, two to each four-bit
piece of a product quantiser (fast scan), directions of much and of little variance together. A dot product with a
query changes by the same amount for every vector when their mean is taken off first: order is kept. Vectors that fill
all dimensions alike keep all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.library.files import HashingFile
from vsearch.library.index.exact import read_faiss, write_faiss
from vsearch.library.index.parts import damaged

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

VARIANCE = 0.95  # that is coded; what more and less cost is in benchmarks/README.md
_STEP = 32  # dimensions are kept in multiples of this many
_SPECTRUM = 50_000  # vectors that tell the principal directions


class Codes:
    """Codes of (N, D) vectors in inverted lists, in memory. Searching is safe from several threads."""

    def __init__(self, index: Any, mean: Vectors | None = None) -> None:
        """`index`: FAISS's IVF with product quantisation, behind a linear map or (vsearch before this) without."""
        import faiss

        self._index = index
        self._mean = mean  # while building
        self._centres: Any = None  # on a GPU, while building
        self._lists: Any = index
        if isinstance(index, faiss.IndexPreTransform):
            self._lists = faiss.downcast_index(index.index)
        self.count, self.dim, self.lists = int(index.ntotal), int(index.d), int(self._lists.nlist)
        self.kept = int(self._lists.d)  # of `dim`, when turned

    def near(self, queries: Vectors) -> Vectors:
        """(Q, D) -> scores with the nearest list's centre (Q,)."""
        scores: Vectors = self._lists.quantizer.search(self._turned(queries), 1)[0][:, 0]
        return scores

    def search(self, queries: Vectors, k: int, probes: int) -> Ids:
        """(Q, D) -> places (Q, k) of the best in the `probes` nearest lists; -1 where these hold fewer."""
        import faiss

        parameters: Any = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
        found: Ids = self._lists.search(self._turned(queries), k, params=parameters)[1]
        return found

    def add(self, vectors: Vectors) -> None:
        """The next places' vectors (N, D)."""
        import faiss

        assert self._mean is not None
        centres = self._lists.quantizer
        if gpus() and self._centres is None:
            self._centres = faiss.index_cpu_to_all_gpus(centres)
        self._lists.quantizer = self._centres or centres  # which list is nearest is most of the work
        try:
            self._lists.add(self._turned(vectors - self._mean))
        finally:
            self._lists.quantizer = centres
        self._index.ntotal = self.count = int(self._lists.ntotal)

    def write(self, file: HashingFile) -> None:
        write_faiss(self._index, file)

    def _turned(self, vectors: Vectors) -> Vectors:
        import faiss

        if self._lists is self._index:
            return vectors
        turned: Vectors = faiss.downcast_VectorTransform(self._index.chain.at(0)).apply(vectors)
        return turned


def train_codes(sample: Vectors, lists: int) -> Codes:
    """Codes of nothing yet, fitted to a sample (S, D) of what is to come."""
    import faiss
    import numpy as np

    mean = sample.mean(axis=0)
    turn = _principal(sample[:: -(-len(sample) // _SPECTRUM)] - mean)
    kept, dim = turn.shape
    pieces = kept // 2 if kept % 2 == 0 else kept  # four bits each
    index: Any = faiss.index_factory(kept, f"IVF{lists},PQ{pieces}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1  # or FAISS prints a warning
    linear: Any = faiss.LinearTransform(dim, kept, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(turn).ravel(), linear.A)
    linear.is_trained = True
    means = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(kept)) if gpus() else None
    index.clustering_index = means  # FAISS keeps a bare pointer: `means` has to outlive the training
    index.train((sample - mean) @ turn.T)
    index.clustering_index = None
    whole = faiss.IndexPreTransform(linear, index)
    whole.is_trained = True
    return Codes(whole, mean)


def read_codes(path: Path) -> Codes:
    """Raises LibraryError when the file does not hold codes."""
    import faiss

    index = read_faiss(path)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if not isinstance(inner, faiss.IndexIVFPQFastScan) or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise damaged("its file is of another kind")
    return Codes(index)


def gpus() -> int:
    """GPUs that an installed GPU build of FAISS can use."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _principal(centred: Vectors) -> Vectors:
    """The directions (d, D) that hold VARIANCE of it, those of much and of little variance in turns."""
    import numpy as np

    dim = centred.shape[1]
    variances, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    shares = np.cumsum(variances) / max(float(variances.sum()), 1e-12)
    enough = int(np.searchsorted(shares, VARIANCE)) + 1
    kept = min(dim, -(-enough // _STEP) * _STEP)
    order = np.arange(kept)
    if kept % 2 == 0:
        order = np.stack([order[: kept // 2], order[kept // 2 :][::-1]], axis=1).ravel()  # first with last
    return np.ascontiguousarray(directions[:, order].T, np.float32)
