"""`vsearch forget-model`: free what the library keeps of a model that no longer answers."""

from __future__ import annotations

from typing import Annotated

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    LibraryOption,
    ask_first,
    counted,
    human_size,
    note,
    printable,
    verb,
)


@verb
def forget_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Its name, or what `vsearch status` says is kept.", show_default=False
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    library: LibraryOption = None,
) -> None:
    """Drop the frames, moments and index of MODEL from the library. No video is touched.

    After that there is no going back to it but `vsearch reindex --model MODEL`. Asks first; where nobody can be asked,
    it takes --yes.
    """
    from vsearch.library import Library, find_library
    from vsearch.retriever import live_encoder

    with Library.open(find_library(library)) as opened:
        live, kept = live_encoder(opened), opened.summary().kept
        named = [e for e in opened.encoders() if model in (e.spec["model"], e.backbone)]
        chosen = [encoder for encoder in named if encoder.backbone != live.backbone]
        if named and not chosen:
            opened.forget_models(named)  # which refuses
        if not chosen:
            there = ", ".join(map(printable, kept)) or "no other model"
            note(f"nothing is kept of {printable(model)}; of others there is {there}")
            raise typer.Exit(EXIT_NOTHING)
        size = human_size(sum(kept.get(backbone, 0) for backbone in {e.backbone for e in chosen}))
        what = f"{size} of frames by {counted(len({e.backbone for e in chosen}), 'model', 'models')}"
        ask_first("drop", what, yes=yes)
        opened.forget_models(chosen)
    note(f"dropped {what}")
