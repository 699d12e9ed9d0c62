"""The vector index at size: what it takes, how fast it answers, what of the true first ten it finds.

    python benchmarks/faiss_scale.py [--moments 10000 100000 1000000] [--kind real clustered unclustered] [--dim 512]

Vectors are made. `real`: like those of real frames; spectrum, likeness within and across videos, topics, and how a
caption scores against them are fitted to measured ones (see REAL). `clustered` (clusters of 50 at cosine .67, in random
directions) and `unclustered` (random directions) are harder than life, the last as hard as can be. Queries: a `picture`
is a stored vector turned away to cosine .9, a `sentence` for `real` a made caption, else a stored vector turned away to
.25; for `real` they are turned within the data's own spectrum, else in random directions. Truth is exact search in
float32. Times are of one query on one thread, ten answers (and 200, as the product asks for), file cache warm; building
uses all cores. RAM is the growth of the process's own memory when the index is opened and has answered; mapped rows are
not counted: a query touches some hundred of them, and they leave whenever memory is short. Up to a million moments the
flat float32 index is asked in turns with ours. Then 1 % of the moments leave and 1 % come, and recall is measured
again. A million moments take 2 GB of disk and 5 GB of memory, ten million 21 GB and 4 GB.
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
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from vsearch.library.catalogue import GenerationRow, to_generation
from vsearch.library.index import IndexView, open_index, part_files
from vsearch.library.index.view import IndexFiles, generation_row, write_index, write_update

COSINES = {"picture": 0.9, "sentence": 0.25}
QUERIES, TURNS, CHUNK = 200, 20, 50_000
FLAT = 1_000_000  # moments that are also searched flat


@dataclass(frozen=True)
class Real:
    """Fitted to what the built-in model (mini@fe171139, 384-d) makes of 17,472 frames of 4,351 MSR-VTT training videos
    and of one caption each of 3,395 of these. As many vectors made like these, four a video (`video` .29), show, with
    what was measured in brackets: two frames of different videos at cosine .05 +- .145 (.05 +- .142), of one at .71
    (.70); a caption's mean score over all frames .03 +- .105 (.03 +- .106), best .445 (.444), tenth .378 (.391); all of
    a caption's first ten in the 9 nearest of 135 lists for half of the captions (10), in the 57 nearest for 95 % (55).
    """

    # Of the directions, the first of 384 hold so much of frames' variance, and of captions' length squared.
    directions: tuple[int, ...] = (0, 1, 4, 16, 64, 128, 256, 384)
    frames: tuple[float, ...] = (0, 0.068, 0.203, 0.478, 0.832, 0.940, 0.989, 1)
    captions: tuple[float, ...] = (0, 0.031, 0.104, 0.249, 0.597, 0.779, 0.923, 1)
    mean: float = 0.2  # length of the part that all frames share
    # Shares of variance: 50 broad topics, narrow ones (one for seven videos, some far more frequent than others), the
    # video: its moments at cosine .77 (63 clips at 2 frames a second: .75, 86 of UCF101: .82).
    broad: float = 0.22
    narrow: float = 0.18
    video: float = 0.36
    # A caption's correlation with its moment's topics and video; the part that all share, along the frames' and aside.
    caption_broad: float = 0.42
    caption_narrow: float = 0.2
    caption_video: float = 0.1
    caption_mean: tuple[float, float] = (0.12, 0.34)


REAL = Real()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kind", nargs="+", default=["real", "clustered", "unclustered"])
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
    """Vectors, 1 % more than at first are used, and queries, float16 and float32."""
    total = moments + moments // 100
    stored = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (total, dim))
    if kind == "real":
        make_real(folder, stored, moments)
        return
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, moments // 50), dim), np.float32)
    for first in range(0, total, CHUNK):
        some = rng.standard_normal((min(CHUNK, total - first), dim), np.float32)
        if kind == "clustered":
            some = centres[rng.integers(0, len(centres), len(some))] + np.float32(0.7) * some
        stored[first : first + len(some)] = unit(some)
    for name, cosine in COSINES.items():
        towards = stored[np.sort(rng.choice(moments, QUERIES, replace=False))].astype(np.float32)
        np.save(
            folder / f"{name}.npy",
            turned_away(towards, rng.standard_normal(towards.shape, np.float32), cosine),
        )


def make_real(folder: Path, stored: np.memmap, moments: int) -> None:
    """Broad topics, in them narrow ones, in these videos of 50 moments; all Gaussian with the measured spectrum."""
    rng = np.random.default_rng(0)
    total, dim = stored.shape
    spectrum, length = (
        np.sqrt(np.diff(np.interp(384 * np.arange(dim + 1) / dim, REAL.directions, held))).astype(np.float32)
        for held in (REAL.frames, REAL.captions)
    )
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    common, aside = unit(np.stack([spectrum, length]) * rng.standard_normal((2, dim), np.float32))
    video = rng.standard_normal((-(-total // 50), dim), np.float32)
    narrow = rng.standard_normal((-(-len(video) // 7), dim), np.float32)
    broad = rng.standard_normal((50, dim), np.float32)[rng.integers(0, 50, len(narrow))]
    often = np.arange(1, len(narrow) + 1) ** -0.5
    topic = rng.choice(len(narrow), len(video), p=often / often.sum())
    within = 1 - REAL.broad - REAL.narrow - REAL.video

    def parts(places: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
        """Broad topic, narrow topic, video and noise of moments, (n, D)."""
        of, noise = places // 50, rng.standard_normal((len(places), dim), np.float32)
        kinds = broad[topic[of]], narrow[topic[of]], video[of], noise
        return np.sum(
            [np.float32(weight) * part for weight, part in zip(weights, kinds, strict=True)], axis=0
        )

    spreads = REAL.broad**0.5, REAL.narrow**0.5, REAL.video**0.5, within**0.5
    for first in range(0, total, CHUNK):
        places = np.arange(first, min(first + CHUNK, total))
        made = parts(places, spreads) * spectrum + np.float32(REAL.mean) * common
        stored[places] = unit(made) @ turn
    towards = stored[np.sort(rng.choice(moments, QUERIES, replace=False))].astype(np.float32)
    away = (spectrum * rng.standard_normal(towards.shape, np.float32)) @ turn
    np.save(folder / "picture.npy", turned_away(towards, away, COSINES["picture"]))
    said = REAL.caption_broad, REAL.caption_narrow, REAL.caption_video
    rest = (1 - sum(each**2 for each in said)) ** 0.5
    own = unit(parts(rng.choice(moments, QUERIES, replace=False), (*said, rest)) * length)
    shared = np.float32(REAL.caption_mean[0]) * common + np.float32(REAL.caption_mean[1]) * aside
    kept = np.float32((1 - sum(each**2 for each in REAL.caption_mean)) ** 0.5)
    np.save(folder / "sentence.npy", unit(kept * own + shared) @ turn)


def turned_away(towards: np.ndarray, away: np.ndarray, cosine: float) -> np.ndarray:
    towards = unit(towards)
    away = unit(away - (away * towards).sum(axis=1, keepdims=True) * towards)
    return (cosine * towards + (1 - cosine**2) ** 0.5 * away).astype(np.float32)


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
    for _, vectors in batches(folder, 0, moments if moments <= FLAT else 0):
        flat.add(vectors)
    for name, asked in queries.items():
        ours, reference = [], []
        for query in asked[:TURNS] if flat.ntotal else ():
            for search, times in ((flat.search, reference), (opened.search, ours)):
                began = time.perf_counter()
                search(query[None], 10)
                times.append(time.perf_counter() - began)
        beside = (
            f"; flat float32 takes {np.median(reference) / np.median(ours):.1f} times as long" if ours else ""
        )
        p50, p95 = np.quantile(found[name][1], (0.5, 0.95))
        recall = overlap(truth(folder, asked, np.arange(moments)), found[name][0])
        print(
            f"  {name}: recall@10 {recall:.4f}, p50 {p50:.2f} ms, p95 {p95:.2f} ms{beside}; for 200 answers "
            f"p50 {np.median(wide[name][1]):.2f} ms"
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
        found, times = timed(opened, asked, 10)
        assert not np.isin(found, gone).any()
        print(
            f" {name} recall@10 {overlap(truth(folder, asked, valid), found):.4f}, p50 {np.median(times):.2f} ms;",
            end="",
        )
    print()


def truth(folder: Path, asked: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The first ten of each query among the valid ids, ascending, by exact search."""
    faiss.omp_set_num_threads(2)
    scores, ids = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    for some, vectors in batches(folder, 0, int(valid[-1]) + 1):
        here = np.isin(some, valid)
        more, places = faiss.knn(asked, vectors[here], 10, metric=faiss.METRIC_INNER_PRODUCT)
        scores, ids = np.hstack([scores, more]), np.hstack([ids, some[here][places]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    faiss.omp_set_num_threads(1)
    return ids


def batches(folder: Path, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(first, last, CHUNK):
        stored = np.load(
            folder / "vectors.npy", mmap_mode="r"
        )  # anew, so that what was read can leave memory
        end = min(start + CHUNK, last)
        yield np.arange(start, end), stored[start:end].astype(np.float32)


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
