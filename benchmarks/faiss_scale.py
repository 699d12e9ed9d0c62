"""The vector index at size: what it takes, how fast it answers, what of the true first ten it finds.

    python benchmarks/faiss_scale.py [--moments 10000 100000 1000000] [--kind videos clustered unclustered] [--dim 512]

Vectors are made: `videos` (50 moments each, at cosine .87 to each other and .53 to those of the 40 videos of the same
topic), `clustered` (clusters of 50 at cosine .67, in random directions) or `unclustered` (random directions, the worst
case). Queries are stored vectors turned away to cosine .9 (another picture of the same) and .25 (a sentence). Truth is
exact search in float32. Times are of one query on one thread, ten answers (and 200, as the product asks for), file
cache warm; building uses all cores. RAM is the growth of the process's own memory when the index is opened and has
answered; mapped rows are not counted: a query touches some hundred of them, and they leave whenever memory is short. The
flat float32 index is asked in turns with ours. Then 1 % of the moments leave and 1 % come, and recall is measured again. A million moments need
5 GB of disk and of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from vsearch.library.catalogue import GenerationRow
from vsearch.library.index import (
    IndexFiles,
    IndexView,
    generation_row,
    open_index,
    part_files,
    write_index,
    write_update,
)
from vsearch.library.rows import to_generation

COSINES = {"picture": 0.9, "sentence": 0.25}
QUERIES, TURNS, CHUNK = 200, 20, 50_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kind", nargs="+", default=["videos", "clustered", "unclustered"])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where to work; some temporary folder")
    options = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    for moments in options.moments:
        for kind in options.kind:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                (Path(folder) / "index").mkdir()
                for step in (make, build, ask, update):
                    process = fresh.Process(target=step, args=(Path(folder), moments, options.dim, kind))
                    process.start()
                    process.join()
                    if process.exitcode:
                        raise SystemExit(f"{step.__name__} failed")


def make(folder: Path, moments: int, dim: int, kind: str) -> None:
    """Vectors, 1 % more than at first are used, and queries with their truth."""
    rng = np.random.default_rng(0)
    total = moments + moments // 100
    stored = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (total, dim))
    centres = rng.standard_normal((max(1, moments // 50), dim), np.float32)
    if kind == "videos":
        topics = rng.standard_normal((max(1, moments // 2_000), dim), np.float32)
        centres = topics[rng.integers(0, len(topics), len(centres))] + 0.8 * centres
    for first in range(0, total, CHUNK):
        some = rng.standard_normal((min(CHUNK, total - first), dim), np.float32)
        if kind != "unclustered":
            spread = 0.5 if kind == "videos" else 0.7
            some = centres[rng.integers(0, len(centres), len(some))] + np.float32(spread) * some
        stored[first : first + len(some)] = unit(some)
    for name, cosine in COSINES.items():
        towards = stored[np.sort(rng.choice(moments, QUERIES, replace=False))]
        away = rng.standard_normal(towards.shape, np.float32)
        away = unit(away - (away * towards).sum(axis=1, keepdims=True) * towards)
        np.save(folder / f"{name}.npy", cosine * towards + np.float32((1 - cosine**2) ** 0.5) * away)


def build(folder: Path, moments: int, dim: int, kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    written = write_index(folder, batches(folder, 0, moments), np.arange(moments), lambda: None)
    took = time.monotonic() - began
    keep(folder, written)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"\n{moments:,} moments of {dim} dimensions, {kind}: {'exact' if written.base is None else 'compressed'}"
    )
    print(f"  built in {took:.1f} s; at most {grown:,.0f} MB more in memory")
    if written.base is not None:
        for step in written.base.effort:
            print(
                f"  nearest centre above {step.above:5.2f}: {step.probes} lists, {step.candidates} candidates"
            )
    parts = (written.exact, *(() if written.base is None else part_files(written.base)))
    sizes = ", ".join(f"{Path(part.file).suffix[1:]} {part.bytes / 2**20:,.1f}" for part in parts)
    print(f"  files in MB: {sizes}; float32 would be {moments * dim * 4 / 2**20:,.0f}")


def ask(folder: Path, moments: int, dim: int, kind: str) -> None:
    del kind
    faiss.omp_set_num_threads(1)
    queries = {name: np.load(folder / f"{name}.npy") for name in COSINES}
    opened, own, opening = None, memory("RssAnon"), []
    for _ in range(3):
        del opened
        gc.collect()
        began = time.perf_counter()
        opened = reopen(folder)
        opening.append(time.perf_counter() - began)
    found = {name: timed(opened, asked, 10) for name, asked in queries.items()}
    wide = {name: timed(opened, asked, 200) for name, asked in queries.items()}
    own = memory("RssAnon") - own
    share = own * 2**20 / (moments * dim * 4)
    print(f"  opened in {1e3 * min(opening):.0f} ms, checked; RAM {own:,.0f} MB, {share:.0%} of float32")
    flat = faiss.IndexFlatIP(dim)
    for _, vectors in batches(folder, 0, moments):
        flat.add(vectors)
    for name, asked in queries.items():
        ours, reference = [], []
        for query in asked[:TURNS]:
            for search, times in ((flat.search, reference), (opened.search, ours)):
                began = time.perf_counter()
                search(query[None], 10)
                times.append(time.perf_counter() - began)
        faiss.omp_set_num_threads(2)
        truth = flat.search(asked, 10)[1]
        faiss.omp_set_num_threads(1)
        p50, p95 = np.quantile(found[name][1], (0.5, 0.95))
        ratio = np.median(reference) / np.median(ours)
        print(
            f"  {name}: recall@10 {overlap(truth, found[name][0]):.4f}, p50 {p50:.2f} ms, p95 {p95:.2f} ms; flat "
            f"float32 takes {ratio:.1f} times as long; for 200 answers p50 {np.median(wide[name][1]):.2f} ms"
        )


def update(folder: Path, moments: int, dim: int, kind: str) -> None:
    """1 % leave, 1 % come."""
    del kind
    former = reopen(folder)
    if former.base is None:
        return
    gone = np.random.default_rng(1).choice(moments, moments // 100, replace=False)
    valid = np.setdiff1d(np.arange(moments + moments // 100), gone)
    assert former.takes_update(valid)
    began = time.monotonic()
    new = batches(folder, moments, moments + moments // 100)
    keep(folder, write_update(folder, former, new, valid))
    took = time.monotonic() - began
    opened = reopen(folder)
    faiss.omp_set_num_threads(1)
    print(f"  1 % gone and 1 % new in {took:.2f} s;", end="")
    for name in COSINES:
        asked = np.load(folder / f"{name}.npy")
        faiss.omp_set_num_threads(2)
        scores, ids = np.empty((QUERIES, 0), np.float32), np.empty((QUERIES, 0), np.int64)
        for some, vectors in batches(folder, 0, moments + moments // 100):
            here = np.isin(some, valid)
            more, places = faiss.knn(asked, vectors[here], 10, metric=faiss.METRIC_INNER_PRODUCT)
            scores, ids = np.hstack([scores, more]), np.hstack([ids, some[here][places]])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
            scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
        faiss.omp_set_num_threads(1)
        found, times = timed(opened, asked, 10)
        assert not np.isin(found, gone).any()
        print(f" {name} recall@10 {overlap(ids, found):.4f}, p50 {np.median(times):.2f} ms;", end="")
    print()


def batches(folder: Path, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(first, last, CHUNK):
        stored = np.load(
            folder / "vectors.npy", mmap_mode="r"
        )  # anew, so that what was read can leave memory
        end = min(start + CHUNK, last)
        yield np.arange(start, end), np.array(stored[start:end])


def keep(folder: Path, written: IndexFiles) -> None:
    (folder / "generation.json").write_text(json.dumps(generation_row(written, 1)))


def reopen(folder: Path) -> IndexView:
    row = GenerationRow(id=1, **json.loads((folder / "generation.json").read_text()))
    return open_index(folder, to_generation(row))


def timed(view: IndexView, queries: np.ndarray, k: int) -> tuple[np.ndarray, list[float]]:
    """Ids of each query's answers, and milliseconds; asked one at a time, after a round to warm up."""
    for query in queries[:TURNS]:
        view.search(query[None], k)
    found, times = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(view.search(query[None], k)[1][0])
        times.append(1e3 * (time.perf_counter() - began))
    return np.stack(found), times


def overlap(truth: np.ndarray, found: np.ndarray) -> float:
    return float(
        np.mean([len(np.intersect1d(one, other)) / 10 for one, other in zip(truth, found, strict=True)])
    )


def memory(kind: str) -> float:
    """MB of this process: RssAnon its own, RssFile mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
