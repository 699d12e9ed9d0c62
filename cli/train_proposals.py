"""`vsearch train-proposals`: a proposal generator from annotated videos of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import DeviceOption, LibraryOption, note, verb


@verb
def train_proposals(
    annotations: Annotated[
        Path, typer.Argument(metavar="FILE", help="ActivityNet or THUMOS14 JSON.", show_default=False)
    ],
    save_as: Annotated[Path, typer.Option("--save", metavar="FILE", help="Where the generator goes.")],
    subset: Annotated[str | None, typer.Option(help="Only videos of this subset, e.g. training.")] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only instances of these classes, one a line.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 500,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Learn prompts for the classes, too, and keep them as a vocabulary."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    library: LibraryOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Learn where actions begin and end, from videos that are indexed and annotated.

    A video belongs to an annotation when its file's name without ending is the video's id. Nothing is decoded.
    """
    from vsearch.library import Library, find_library
    from vsearch.models import TrainingOptions, train_generator
    from vsearch.models.training import read_annotations, read_names
    from vsearch.retriever import live_encoder
    from vsearch.retriever.actions import annotated_frames, check_name, learn_prompts, save

    if vocabulary is not None:
        check_name(vocabulary)
    wanted = [v for v in read_annotations(annotations) if subset is None or v.subset == subset.lower()]
    names = read_names(classes) if classes else None
    with Library.open(find_library(library)) as opened:
        backbone = live_encoder(opened).backbone
        videos = annotated_frames(opened, wanted, names)
    instances = sum(len(video.instances) for video in videos)
    note(
        f"training on {instances} instances of {len(videos)} videos ({len(wanted) - len(videos)} are not in the library)"
    )
    generator = train_generator(videos, backbone, TrainingOptions(steps=steps, seed=seed))
    generator.save(save_as)
    note(f"written: {save_as}; use it with vsearch localize --proposals {save_as}")
    if vocabulary is not None:
        with Library.open(find_library(library)) as opened:
            learned = learn_prompts(opened, wanted, names, device)
            save(opened, vocabulary, learned)
        share = f"{learned.accuracy:.1%} of {learned.examples} instances named right when their video was left out"
        note(f"learned prompts for {len(learned.names)} classes: {share}")
        note(f"kept: --vocabulary {vocabulary}")
