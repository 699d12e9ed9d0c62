"""`vsearch train`: train a recipe on annotated videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import SCHEMA_VERSION, DeviceOption, JsonOption, note, print_json, short_path, verb

DatasetOption = Annotated[
    str,
    typer.Option(
        help="msrvtt, msvd, lsmdc, didemo, activitynet-captions, vatex, coco, kinetics, ucf101, hmdb51, ssv2, "
        "list (file label), or plain (your CSV or JSONL: video, caption or label, start, end)."
    ),
]  # fmt: skip
AnnotationsOption = Annotated[Path, typer.Option(help="Annotation file, or the folder of the set's files.")]
VideosOption = Annotated[
    list[Path], typer.Option(help="Folder of videos, a library, or zip files of pictures; may be repeated.")
]
ModelOption = Annotated[str, typer.Option(help="Backbone; see `vsearch models list`.")]
CacheOption = Annotated[Path, typer.Option(help="Where decoded and encoded frames are kept.")]


@verb
def train(
    dataset: DatasetOption,
    annotations: AnnotationsOption,
    videos: VideosOption,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[str, typer.Option(help="Name, or a .toml file.")] = "efficient-prompt",
    split: Annotated[str, typer.Option(help="Training split; msrvtt: 9k, 7k, train.")] = "",
    model: ModelOption = "mini",
    freeze_image: Annotated[
        bool,
        typer.Option("--freeze-image", help="Leave the image tower alone: train on stored frame vectors."),
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the recipe's")] = None,
    batch: Annotated[int | None, typer.Option(min=2, show_default="the recipe's")] = None,
    lr: Annotated[float | None, typer.Option(help="Of new parts.", show_default="the recipe's")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches to a step.")] = 1,
    precision: Annotated[str, typer.Option(help="no, fp16 or bf16.")] = "no",
    patience: Annotated[int, typer.Option(min=1, help="Epochs without gain before stopping.")] = 5,
    shots: Annotated[int | None, typer.Option(min=1, help="Few-shot: so many videos of each class.")] = None,
    seed: int = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    cache: CacheOption = Path(".vsearch-cache"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a recipe; the best epoch on a held-out part of the training videos is kept in OUT."""
    from vsearch.indexer import open_frames
    from vsearch.models import load_backbone
    from vsearch.models.recipes import load_recipe
    from vsearch.models.training import TrainOptions, few_shot
    from vsearch.models.training.datasets import Dataset, read_dataset
    from vsearch.models.training.train import train as run

    chosen = load_recipe(recipe)
    if freeze_image:
        chosen = chosen.on_frozen_frames()
    data = read_dataset(dataset, annotations, split, note)
    backbone = load_backbone(model, device)
    clips, frames = open_frames(videos, data.clips, backbone, chosen, cache, note)
    if shots is not None:
        clips = [clips[i] for i in few_shot([str(c.label) for c in clips], shots, seed)]
    done = run(
        chosen, backbone, Dataset(data.name, data.split, tuple(clips), data.query_unit), frames, out,
        TrainOptions(
            epochs=epochs, batch=batch, lr=lr, seed=seed, accumulate=accumulate, precision=precision,
            patience=patience, resume=resume,
        ),
        note,
    )  # fmt: skip
    if chosen.in_network:
        note("this recipe changes the image tower: libraries must be encoded again to use it")
    if as_json:
        print_json({
            "schema_version": SCHEMA_VERSION, "checkpoint": str(done.folder), "epochs": done.epochs,
            "best_epoch": done.best_epoch, "seconds_per_epoch": done.seconds_per_epoch,
            "validation": done.validation.figures,
        })  # fmt: skip
    else:
        best = "  ".join(f"{k} {v:.1f}" for k, v in done.validation.figures.items())
        print(
            f"{short_path(done.folder)}: best of {done.epochs} epochs is {done.best_epoch}; validation {best}"
        )
