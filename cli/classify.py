"""`vsearch classify`: which action a trimmed clip shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsearch.cli.common import (
    SCHEMA_VERSION,
    DeviceOption,
    JsonOption,
    LibraryOption,
    note,
    print_json,
    printable,
    short_path,
    verb,
)
from vsearch.cli.sources import kept_vocabulary, open_videos
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.retriever.actions import Learned


@verb
def classify(
    paths: Annotated[
        list[Path], typer.Argument(metavar="VIDEO...", help="Trimmed clips.", show_default=False)
    ],
    actions: Annotated[
        str | None, typer.Option(metavar="NAMES|FILE", help='"archery, playing piano", or a file of names.')
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="Names of a data set: ucf101, kinetics400, …, or one saved before.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Example clips; a folder's name is the label.")
    ] = None,
    save_as: Annotated[
        str | None, typer.Option("--save", metavar="NAME", help="Keep what was learned as a vocabulary.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Labels a clip.")] = 5,
    as_json: JsonOption = False,
    library: LibraryOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say which action each VIDEO shows, with probabilities among the names given."""
    from vsearch.retriever import Session
    from vsearch.retriever.actions import named_actions

    if sum(given is not None for given in (actions, vocabulary, examples)) != 1:
        raise VsearchError("give one of --actions, --vocabulary and --examples")
    if save_as is not None and examples is None:
        raise VsearchError("--save keeps what was learned from --examples; give these too")
    learned = _learn(examples, save_as, library, device) if examples else None
    if vocabulary is not None:
        learned = kept_vocabulary(library, vocabulary)
    names = list(learned.names) if learned else named_actions(actions, vocabulary)
    with open_videos(paths, library, device) as (opened, videos):
        guesses = Session.of(opened, device).classify(videos, names, learned=learned, number=number)
    if as_json:
        results = [
            {
                "path": str(v.path),
                "labels": [{"label": g.label, "probability": round(g.probability, 6)} for g in found],
            }
            for v, found in guesses.items()
        ]
        print_json({"schema_version": SCHEMA_VERSION, "results": results})
        return
    for video, found in guesses.items():
        for guess in found:
            print(f"{guess.probability:.3f}\t{printable(guess.label)}\t{printable(short_path(video.path))}")


def _learn(folder: Path, save_as: str | None, library: Path | None, device: str) -> Learned:
    """Learn from DIR/label/clip, say how well, and keep it if asked."""
    from vsearch.library import Library, find_library
    from vsearch.retriever.actions import check_name, save
    from vsearch.retriever.actions.classify import learn

    if save_as is not None:
        check_name(save_as)
    if not folder.is_dir():
        raise VsearchError(f"there is no folder {folder}")
    labels = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not labels:
        raise VsearchError(f"{folder} has no folder for a label; put clips in {folder}/LABEL/")
    with open_videos([folder], library, device) as (opened, videos):
        home = folder.resolve()
        by_label = {
            label.name: [v for v in videos if v.path.is_relative_to(home / label.name)] for label in labels
        }
        learned = learn(opened, by_label)
    share = f"{learned.accuracy:.1%} of {learned.examples} examples found when left out"
    note(f"learned {len(learned.names)} labels: {share}")
    if save_as:
        with Library.open(find_library(library), create=True) as opened:
            save(opened, save_as, learned)
        note(f"kept: --vocabulary {save_as}")
    return learned
