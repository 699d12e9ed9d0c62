"""`vsearch train-proposals`: a proposal generator from annotated videos of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import LibraryOption, note, verb


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
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    library: LibraryOption = None,
) -> None:
    """Learn where actions begin and end, from videos that are indexed and annotated.

    A video belongs to an annotation when its file's name without ending is the video's id. Nothing is decoded.
    """
    from vsearch.library import Library, find_library
    from vsearch.models.proposals import TrainingOptions, train_generator
    from vsearch.models.segments import read_annotations, read_names
    from vsearch.retriever.generated import annotated_frames
    from vsearch.retriever.search import live_encoder

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
