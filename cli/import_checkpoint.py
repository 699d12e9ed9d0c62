"""`vsearch import-checkpoint`: the authors' released files as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import SCHEMA_VERSION, JsonOption, note, print_json, short_path, verb


@verb
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A released file, or a folder of the hub.", show_default=False),
    ],
    kind: Annotated[
        str, typer.Option("--as", help="clip4clip, xclip, actionclip, efficient-prompt or m2clip.")
    ],
    arch: Annotated[
        str, typer.Option(help="CLIP in it, such as ViT-B-16.", show_default="what its weights show")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="the name of FILE, here")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint from FILE for `index --head`, `eval --checkpoint` and `adopt`. Nothing in FILE is run.

    Weights that are missing or left over are named and refused.
    """
    from vsearch.models.recipes.import_checkpoint import import_checkpoint as take

    folder = out or Path(f"{file.resolve().stem}-{kind}")
    card, remarks = take(file, kind, folder, arch)
    for remark in remarks:
        note(remark)
    if as_json:
        print_json({
            "schema_version": SCHEMA_VERSION, "checkpoint": str(folder), "recipe": card.recipe.name,
            "backbone": card.backbone, "dim": card.dim, "frames": card.recipe.frames, "left_out": remarks,
        })  # fmt: skip
    else:
        print(
            f"{short_path(folder)}: {card.recipe.name}, {card.dim} dimensions; index with --head {short_path(folder)}"
        )
