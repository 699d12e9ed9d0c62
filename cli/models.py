"""`vsearch models`: which backbones there are."""

from __future__ import annotations

from typing import Annotated

import typer

from vsearch.cli.common import EXIT_NOTHING, JsonOption, print_json, verb

models = typer.Typer(help="Models that `vsearch index --model` takes.", no_args_is_help=True)


@models.command("list")
@verb
def list_models(
    match: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List model names: the built-in one, then all that open_clip offers."""
    from vsearch.models import list_backbones

    rows = [(name, note) for name, note in list_backbones() if match.lower() in name.lower()]
    if as_json:
        print_json({"models": [{"name": name, "note": note} for name, note in rows]})
    else:
        for name, note in rows:
            print(f"{name}\t{note}")
    if not rows:
        raise typer.Exit(EXIT_NOTHING)
