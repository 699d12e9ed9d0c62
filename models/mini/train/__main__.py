"""Rebuild the built-in model: every stage whose files are not there yet, independent ones side by side.

python -m vsearch.models.mini.train --data ../shared/data --work /tmp/mini [--out models/mini]

What was run when, and for how long, is appended to `log.txt` in the work folder.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from vsearch.models.mini.train.align import SEEDS, average, fit_heads, keep_text, make_room, run_jointly
from vsearch.models.mini.train.export import export
from vsearch.models.mini.train.features import cache_features
from vsearch.models.mini.train.pictures import fit_pictures
from vsearch.models.mini.train.prompts import fit_prompts
from vsearch.models.mini.train.stages import learn_text, stage


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that the model card describes")
    parser.add_argument(
        "--work", type=Path, required=True, help="kept between runs; finished stages are skipped"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--distill-steps", type=int, default=2300, help="about three epochs")
    parser.add_argument("--align-steps", type=int, default=280, help="about fifteen epochs, for each seed")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument(
        "--keep-text",
        action="store_true",
        help="train the picture side alone, beside the text tower in the package: known sentences keep their vectors",
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data, work = args.data, args.work
    threads = max(1, (os.cpu_count() or 2) // 2)  # two processes at most at a time
    with ProcessPoolExecutor(
        2, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)
    ) as pool:
        features = pool.submit(
            stage, work, "features", f"pooled_v{args.views - 1}.npy", cache_features, data, work, args.views
        )
        if args.keep_text:
            stage(work, "keep text", "room.pt", keep_text, work)
        else:
            pool.submit(learn_text, data, work, args.distill_steps).result()
        features.result()
        if not args.keep_text:
            pool.submit(stage, work, "heads", "heads.pt", fit_heads, data, work).result()
            runs = [
                pool.submit(
                    stage,
                    work,
                    f"align {seed}",
                    f"aligned_{seed}.pt",
                    run_jointly,
                    data,
                    work,
                    seed,
                    args.align_steps,
                )
                for seed in SEEDS
            ]
            for run in runs:
                run.result()
            stage(work, "average", "", average, work)
            stage(work, "room", "", make_room, data, work)
        stage(work, "pictures", "", fit_pictures, data, work)
        stage(work, "export", "", export, data, work, args.out)
        if (data / "videos/ucf101.csv").is_file():  # else nothing tells whether they would help
            stage(work, "prompts", "", fit_prompts, data, work, args.out)


if __name__ == "__main__":
    main()
