"""`vsearch eval`: how well a checkpoint, or a model as it is, finds or recognises annotated videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsearch.cli.common import SCHEMA_VERSION, DeviceOption, JsonOption, note, print_json, verb
from vsearch.cli.train import AnnotationsOption, CacheOption, DatasetOption, VideosOption

if TYPE_CHECKING:
    from vsearch.models.training import Evaluation


@verb
def evaluate(
    dataset: DatasetOption,
    annotations: AnnotationsOption,
    videos: VideosOption,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a training run.", show_default="zero-shot")
    ] = None,
    split: Annotated[str, typer.Option(help="Test split; msrvtt: 1k-A, test.")] = "",
    model: Annotated[
        str | None, typer.Option(help="Backbone.", show_default="the checkpoint's, or mini")
    ] = None,
    paragraph: Annotated[
        bool, typer.Option("--paragraph", help="Join a video's captions to one query.")
    ] = False,
    normalise: Annotated[
        str | None, typer.Option(help="dsl (looks at the whole query set) or qb-norm (with --bank).")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Training annotations for qb-norm.")] = None,
    bank_split: Annotated[str, typer.Option(help="Their split.")] = "",
    cache: CacheOption = Path(".vsearch-cache"),
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Retrieval in both directions for captions, top-1 and top-5 for classes."""
    from vsearch.indexer import open_frames
    from vsearch.models import load_backbone
    from vsearch.models.recipes import VideoText, load, load_recipe, read_card
    from vsearch.models.training import refuse_leak
    from vsearch.models.training.datasets import Dataset, read_dataset
    from vsearch.models.training.evaluate import evaluate as measure

    data = read_dataset(dataset, annotations, split, note)
    card = read_card(checkpoint) if checkpoint else None
    backbone = load_backbone(model or (card.model if card else "mini"), device)
    recipe = card.recipe if card else load_recipe("zero-shot")
    if card:
        refuse_leak(card.data, data)
    # Stored vectors are made before a checkpoint changes the towers; in-network ones read pictures.
    clips, frames = open_frames(videos, data.clips, backbone, recipe, cache, note)
    trained = load(checkpoint, backbone)[0] if checkpoint else VideoText(recipe, backbone)
    captions = [t for c in read_dataset(dataset, bank, bank_split).clips for t in c.captions] if bank else []
    found = measure(
        trained, Dataset(data.name, data.split, tuple(clips), data.query_unit), frames,
        "paragraph" if paragraph or data.query_unit == "paragraph" else "sentence", normalise, captions,
    )  # fmt: skip
    about = {
        "recipe": recipe.name, "model": backbone.name, "dataset": data.name, "split": data.split,
        "trained_on": {k: v for k, v in card.data.items() if k != "videos"} if card else None,
        "videos": found.videos, "annotated_videos": len(data.clips), "queries": found.queries, **found.protocol,
    }  # fmt: skip
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "task": found.task, **about, "figures": found.figures})
    else:
        _print(found)
        note(", ".join(f"{k} {v}" for k, v in about.items() if v is not None))


def _print(found: Evaluation) -> None:
    if found.task == "recognition":
        print(f"top-1 {found.figures['top1']:.1f}   top-5 {found.figures['top5']:.1f}")
        return
    print(f"{'':4}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'MdR':>7}{'MnR':>8}")
    for side in ("t2v", "v2t"):
        r1, r5, r10, median, mean = (
            found.figures[f"{side}.{k}"] for k in ("r1", "r5", "r10", "median_rank", "mean_rank")
        )
        print(f"{side:4}{r1:7.1f}{r5:7.1f}{r10:7.1f}{median:7.1f}{mean:8.1f}")
