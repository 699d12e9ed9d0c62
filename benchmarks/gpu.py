"""Indexing on a GPU: frames a second end to end, by number of decoder processes, beside the encoder alone.

    python -m benchmarks.gpu FOLDER [--models ViT-B-32:openai ViT-L-14:openai] [--batch 64] [--device cuda]

The encoder alone is fed with frames from memory through the same lanes as indexing: what indexing may reach. Its share
that indexing reaches says how busy the GPU is; decoding is the limit for as long as more processes raise it. The
models' weights are downloaded on first use. `--device cpu` runs the same without a GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ENOUGH_S = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32:openai", "ViT-L-14:openai"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    import torch

    if options.device.startswith("cuda"):
        if not torch.cuda.is_available():
            print("no CUDA device here: nothing measured (--device cpu runs the same on the CPU)")
            return
        print(torch.cuda.get_device_name(options.device))
    for model in options.models:
        alone = encoder_alone(model, options.device, options.batch)
        print(f"{model}, batches of {options.batch}: encoder alone {alone:.0f} frames/s", flush=True)
        for workers in worker_counts():
            rate = end_to_end(options.folder, model, options.device, options.batch, workers)
            print(
                f"  {workers:3} decoder processes: {rate:8.0f} frames/s end to end, {rate / alone:.0%} of the encoder",
                flush=True,
            )


def worker_counts() -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    cores = os.cpu_count() or 1
    return [2**i for i in range(cores.bit_length()) if 2**i < cores] + [cores]


def encoder_alone(model: str, device: str, batch: int) -> float:
    from vsearch.indexer.encoding import Lanes
    from vsearch.models import load_backbone

    backbone = load_backbone(model, device)
    shape = batch, backbone.preprocess.size, backbone.preprocess.size, 3
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(8)]
    with Lanes(backbone) as lanes:
        for future in [lanes.submit(frames) for frames in batches]:  # kernels are chosen at the first batches
            future.result()
        began, futures = time.perf_counter(), []
        while time.perf_counter() - began < ENOUGH_S:
            futures.append(lanes.submit(batches[len(futures) % len(batches)]))
        for future in futures:
            future.result()
        return len(futures) * batch / (time.perf_counter() - began)


def end_to_end(folder: Path, model: str, device: str, batch: int, workers: int) -> float:
    """Without the loading of the model and the first pass over keyframes, as `vsearch index` counts its time."""
    from vsearch.indexer import IndexOptions, index_videos

    options = IndexOptions(model=model, device=device, batch_size=batch, workers=workers)
    with tempfile.TemporaryDirectory() as scratch:
        done = index_videos(Path(scratch) / "library", [folder], options, lambda progress: None)
    return done.frames / done.seconds


if __name__ == "__main__":
    main()
