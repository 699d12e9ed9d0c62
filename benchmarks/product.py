"""Retrieval through the whole product: `vsearch index` a folder of captioned videos, then query each caption.

    python benchmarks/product.py ../shared/data/videos

expects `clips/` with `clips.csv` (video,caption,human) and `ucf101/` with `ucf101.csv` (video,label) in the folder.
Clips: the first caption of each video is the query (as in 1k-A); rank of its video among all. With all captions
also given. UCF101: the class name as query, precision at 5. Intervals: 95 % bootstrap over queries, 2,000 draws.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vsearch.library import Library
from vsearch.models import Encoder
from vsearch.retriever import live_encoder
from vsearch.retriever.encoders import matching_encoder
from vsearch.retriever.searching import search


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clips(args.folder, args.model, Path(scratch) / "clips")
        ucf101(args.folder, args.model, Path(scratch) / "ucf101")


def clips(folder: Path, model: str, library: Path) -> None:
    captions: dict[str, list[str]] = {}
    for row in csv.DictReader((folder / "clips.csv").open(encoding="utf-8")):
        captions.setdefault(row["video"], []).append(row["caption"])
    run_index(folder / "clips", model, library)
    with Library.open(library) as opened:
        encoder = matching_encoder(live_encoder(opened))
        ranks = {
            v: [rank_of(opened, encoder, c, v, len(captions)) for c in texts] for v, texts in captions.items()
        }
    print_ranks(f"{len(ranks)} clips, first caption", [found[0] for found in ranks.values()])
    print_ranks("all captions", [rank for found in ranks.values() for rank in found])


def ucf101(folder: Path, model: str, library: Path) -> None:
    labels = {
        row["video"]: row["label"] for row in csv.DictReader((folder / "ucf101.csv").open(encoding="utf-8"))
    }
    run_index(folder / "ucf101", model, library)
    counts = {label: list(labels.values()).count(label) for label in set(labels.values())}
    with Library.open(library) as opened:
        encoder = matching_encoder(live_encoder(opened))
        for least in (5, 1):
            precisions = []
            for label in sorted(n for n, count in counts.items() if count >= least):
                hits = search(opened, spoken(label), number=5, encoder=encoder).hits
                right = sum(labels[Path(h.path).name] == label for h in hits)
                precisions.append(right / min(5, counts[label]))
            mean, low, high = bootstrap(precisions)
            print(
                f"UCF101, {len(labels)} videos, {len(precisions)} classes with {least} or more: "
                f"precision@5 {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] (of at most min(5, class size))"
            )


def run_index(videos: Path, model: str, library: Path) -> None:
    begin = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "vsearch",
        "index",
        str(videos),
        "--library",
        str(library),
        "--model",
        model,
    ]
    subprocess.run([*command, "--progress", "none"], check=True)
    print(f"indexed {videos.name} in {time.perf_counter() - begin:.1f} s")


def rank_of(library: Library, encoder: Encoder, text: str, video: str, count: int) -> int:
    """1-based place of the video; one past the end when the search did not return it."""
    hits = search(library, text, number=count, encoder=encoder).hits
    return next((h.rank for h in hits if Path(h.path).name == video), count + 1)


def spoken(label: str) -> str:
    """'ApplyEyeMakeup' -> 'apply eye makeup'"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()


def print_ranks(name: str, ranks: Sequence[int]) -> None:
    cells = []
    for k in (1, 5, 10):
        mean, low, high = bootstrap([float(r <= k) for r in ranks])
        cells.append(f"R@{k} {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    mrr, low, high = bootstrap([1 / r for r in ranks])
    cells.append(f"MRR {mrr:.3f} [{low:.3f}, {high:.3f}]  MdR {np.median(ranks):g}")
    print(f"{name} ({len(ranks)} queries): " + "  ".join(cells))


def bootstrap(values: Sequence[float]) -> tuple[float, float, float]:
    data = np.asarray(values)
    draws = np.random.default_rng(0).choice(data, (2000, len(data))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(data.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
