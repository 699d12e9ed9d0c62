"""The `vsearch` command. One file a verb: read arguments, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

import vsearch
from vsearch.cli.adopt import adopt
from vsearch.cli.bench import bench
from vsearch.cli.classify import classify
from vsearch.cli.clip import clip
from vsearch.cli.doctor import doctor
from vsearch.cli.eval import evaluate
from vsearch.cli.forget import forget
from vsearch.cli.index import index
from vsearch.cli.localize import localize
from vsearch.cli.ls import info, ls
from vsearch.cli.models import models
from vsearch.cli.query import query
from vsearch.cli.serve import serve
from vsearch.cli.similar import similar
from vsearch.cli.status import status
from vsearch.cli.train import train
from vsearch.cli.train_proposals import train_proposals
from vsearch.cli.verify import verify

app = typer.Typer(
    name="vsearch",
    help="Find the moment in your videos that a sentence describes.\n\n"
    'Start: `vsearch index FOLDER`, then `vsearch query "a dog running on grass"`.',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (index, query, similar, clip, localize, classify, status, ls, info, forget, verify, doctor):
    app.command()(function)
app.command()(serve)
app.command("web", hidden=True)(serve)
app.command()(bench)
app.command()(train)
app.command("eval")(evaluate)
app.command()(adopt)
app.command("train-proposals")(train_proposals)
app.add_typer(models, name="models")


def _version(asked: bool) -> None:
    if asked:
        print(f"vsearch {vsearch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    app()
