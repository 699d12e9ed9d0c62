"""Rebuild the built-in model: every stage whose files are not there yet, in order.

python -m vsearch.models.mini.train --data ../shared/data --work /tmp/mini [--out models/mini] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vsearch.models.mini.train.align import fit_heads, fit_jointly
from vsearch.models.mini.train.distill import distill
from vsearch.models.mini.train.export import export
from vsearch.models.mini.train.features import cache_features
from vsearch.models.mini.train.prompts import fit_prompts
from vsearch.models.mini.train.teacher import embed_sentences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that the model card describes")
    parser.add_argument(
        "--work", type=Path, required=True, help="kept between runs; finished stages are skipped"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    parser.add_argument(
        "--threads", type=int, default=2, help="1 is faster when other programs use the cores"
    )
    parser.add_argument("--distill-steps", type=int, default=2300, help="about three epochs")
    parser.add_argument(
        "--align-steps", type=int, default=280, help="about fifteen epochs, for each of two seeds"
    )
    parser.add_argument("--views", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    data, work = args.data, args.work
    stages: list[tuple[str, str, Callable[[], None]]] = [
        ("teacher", "teacher.npy", lambda: embed_sentences(data, work)),
        ("distil", "text.pt", lambda: distill(work, args.distill_steps)),
        ("features", f"pooled_v{args.views - 1}.npy", lambda: cache_features(data, work, args.views)),
        ("heads", "heads.pt", lambda: fit_heads(data, work)),
        ("align", "mini.pt", lambda: fit_jointly(data, work, args.align_steps)),
        ("export", "", lambda: export(data, work, args.out)),
        ("prompts", "", lambda: fit_prompts(data, work, args.out)),
    ]
    for name, product, run in stages:
        if product and (work / product).is_file():
            print(f"{name}: {work / product} is there, skipped")
            continue
        begun = time.time()
        run()
        print(f"{name}: {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
