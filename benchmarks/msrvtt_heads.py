"""Heads trained on frozen `mini` frame vectors, on the part of MSR-VTT whose frames are at hand.

    python -m benchmarks.msrvtt_heads DATA [--cache FOLDER] [--seeds 3] [--epochs 5]

DATA holds MSR-VTT's annotations, frames-train-*.zip and frames-test.zip. Trained on videos of the 9k list (a tenth
held out chooses the best epoch), tested on those of the 1k-A test list. Both are parts of the official sets and
frames are few (a median of four a training video), so figures compare with each other and with nothing published.

`text` says whether the text tower trained along; the image tower never does. Differences are given over
zero-shot with the standard error of the paired difference in R@1 over queries, averaged over seeds: a
difference under twice that is noise.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from vsearch.models import load_backbone
from vsearch.models.recipes import Recipe, VideoText, load_recipe
from vsearch.models.training import TrainOptions, ZipFrames, cached_vectors, metrics
from vsearch.models.training.datasets import Dataset, read_dataset
from vsearch.models.training.evaluate import score_matrix
from vsearch.models.training.train import hold_out, train

RECIPES = (
    # name, text tower trains, learning rate of new parts (of the text tower: 1/10 of it)
    ("clip4clip-seqtransf", False, 1e-4),
    ("actionclip", False, 1e-4),
    ("clip4clip", True, 1e-4),
    ("efficient-prompt", False, 1e-3),
    ("clip4clip-seqtransf", True, 1e-4),
    ("actionclip", True, 1e-4),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".vsearch-cache"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    backbone = load_backbone("mini", "cpu")
    pristine = copy.deepcopy(backbone.clip.state_dict())
    seen, seen_frames = subset(options.data, "9k", "frames-train-*.zip", backbone, options.cache)
    seen = validated_like_the_test(seen)
    test, test_frames = subset(options.data, "1k-A", "frames-test.zip", backbone, options.cache)
    print(
        f"backbone {backbone.identity}; {len(seen.clips)} training videos, {len(test.clips)} test videos",
        flush=True,
    )
    base = hits(VideoText(load_recipe("zero-shot"), backbone), test, test_frames)
    print(
        f"{'recipe':22}{'text':>6}{'R@1':>14}{'R@5':>7}{'R@10':>7}{'MdR':>6}{'R@1 - zero-shot':>20}{'s/epoch':>9}{'epochs':>8}"
    )
    line("zero-shot", "no", [base], base, 0.0, 0)
    for name, text, rate in RECIPES:
        recipe = settings(name, text, rate)
        found, seconds, epochs = [], [], []
        for seed in range(options.seeds):
            backbone.clip.load_state_dict(pristine)
            with tempfile.TemporaryDirectory() as folder:
                done = train(
                    recipe, backbone, seen, seen_frames, Path(folder),
                    TrainOptions(epochs=options.epochs, batch=128, seed=seed, patience=2),
                )  # fmt: skip
                backbone.clip.load_state_dict(pristine)
                model = restored(recipe, backbone, Path(folder))
            found.append(hits(model, test, test_frames))
            seconds.append(done.seconds_per_epoch)
            epochs.append(done.best_epoch)
        line(name, "yes" if text else "no", found, base, mean(seconds), round(mean(epochs)))


def validated_like_the_test(seen: Dataset) -> Dataset:
    """Videos that will be held out for validation keep one sentence, as test videos have one."""
    held = {clip.video for clip in hold_out(seen.clips, TrainOptions.validation_share)[1]}
    clips = (replace(c, captions=c.captions[:1]) if c.video in held else c for c in seen.clips)
    return Dataset(seen.name, seen.split, tuple(clips))


def settings(name: str, text: bool, rate: float) -> Recipe:
    recipe = replace(load_recipe(name).on_frozen_frames(), train_text=text)
    return replace(
        recipe,
        optimiser=replace(recipe.optimiser, lr=rate, backbone_lr=rate / 10, warmup=0.1, schedule="cosine"),
    )


def restored(recipe: Recipe, backbone: Any, folder: Path) -> VideoText:
    from safetensors.torch import load_file

    from vsearch.models.recipes import WEIGHTS
    from vsearch.models.recipes.checkpoint import put

    model = VideoText(recipe, backbone)
    put(model, load_file(folder / WEIGHTS), folder)
    return model.eval()


def subset(
    data: Path, split: str, pattern: str, backbone: Any, cache: Path
) -> tuple[Dataset, dict[str, Any]]:
    whole = read_dataset("msrvtt", data, split)
    source = ZipFrames(list(data.glob(pattern)), backbone.preprocess)
    frames = cached_vectors(source, whole.clips, backbone, cache, lambda text: print(text, flush=True))
    clips = tuple(clip for clip in whole.clips if clip.key in frames)
    return Dataset(whole.name, split, clips), frames


def hits(model: VideoText, test: Dataset, frames: dict[str, Any]) -> np.ndarray:
    """Rank of the right video for each query."""
    model.eval()
    with torch.inference_mode():
        scores = score_matrix(model, test.clips, frames, [clip.captions[0] for clip in test.clips])
    return metrics.ranks(scores, np.arange(len(test.clips)))


def line(
    name: str, text: str, found: list[np.ndarray], base: np.ndarray, seconds: float, epochs: int
) -> None:
    r1 = [100 * float((r <= 1).mean()) for r in found]
    spread = f"±{stdev(r1):.1f}" if len(r1) > 1 else ""
    rest = [100 * mean(float((r <= k).mean()) for r in found) for k in (5, 10)]
    gain = np.mean([(r <= 1).astype(float) - (base <= 1) for r in found], axis=0) * 100
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    print(
        f"{name:22}{text:>6}{mean(r1):8.1f}{spread:>6}{rest[0]:7.1f}{rest[1]:7.1f}"
        f"{mean(float(np.median(r)) for r in found):6.1f}{gain.mean():+12.1f} ± {error:.1f}{seconds:11.1f}{epochs:8d}",
        flush=True,
    )


if __name__ == "__main__":
    main()
