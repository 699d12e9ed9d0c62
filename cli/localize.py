"""`vsearch localize`: what happens when, for a list of action names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    DeviceOption,
    LibraryOption,
    note,
    print_json,
    printable,
    short_path,
    timecode,
    verb,
)
from vsearch.cli.sources import kept_vocabulary, open_videos
from vsearch.errors import VsearchError

if TYPE_CHECKING:
    from vsearch.records import Video
    from vsearch.retriever.actions import Detection, Maker

TIMELINE_CELLS = 60


@verb
def localize(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[VIDEO...]", help="Videos; without, all of the library.", show_default=False),
    ] = None,
    actions: Annotated[
        str | None, typer.Option(metavar="NAMES|FILE", help='"archery, playing piano", or a file of names.')
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="Names of a data set: ucf101, kinetics400, …, or saved by classify.")
    ] = None,
    proposals: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trained proposal generator.", show_default="training-free"),
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="At most so many intervals a name and video.")] = 20,
    per_video: Annotated[int, typer.Option(min=1, help="At most so many intervals a video.")] = 100,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Leave out what is less likely.")] = 0.4,
    overlapping: Annotated[
        bool, typer.Option("--all", help="Overlapping intervals of a name too, as for scoring.")
    ] = False,
    output: Annotated[
        str, typer.Option("--format", help="table, activitynet (JSON), csv, srt, vtt or edl.")
    ] = "table",
    library: LibraryOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say which of the named actions happen when in VIDEO.

    Exit code 0 when something was found, 1 when nothing was.
    """
    from vsearch.retriever import FORMATS, Session, render, to_activitynet
    from vsearch.retriever.actions import Limits, named_actions

    if output != "table" and output not in FORMATS:
        raise VsearchError(f"unknown format {output!r}; use table, {', '.join(FORMATS)}")
    learned = kept_vocabulary(library, vocabulary) if vocabulary and not actions else None
    names = list(learned.names) if learned else named_actions(actions, vocabulary)
    with open_videos(paths or [], library, device) as (opened, videos):
        limits, maker = Limits(per_class, per_video, threshold, overlapping), _maker(proposals)
        found = Session.of(opened, device).localize(
            videos, names, limits=limits, maker=maker, learned=learned
        )
    if output == "table":
        _print_tables(found)
    else:
        named = {str(video.path): detections for video, detections in found.items()}
        if output == "activitynet":
            print_json(to_activitynet({Path(path).stem: d for path, d in named.items()}))
        else:
            rates = {str(video.path): video.media.avg_fps for video in found if video.media}
            print(render(named, output, rates), end="")
    if not any(found.values()):
        note("none of these actions was found")
        raise typer.Exit(EXIT_NOTHING)


def draw_timeline(
    detections: Sequence[Detection], duration_ms: int, cells: int = TIMELINE_CELLS
) -> dict[str, str]:
    """A bar a label over the length of the video, labels in order of their first appearance."""
    bars: dict[str, list[str]] = {}
    for d in sorted(detections, key=lambda d: (d.start_ms, d.label)):
        bar = bars.setdefault(d.label, ["·"] * cells)
        first = min(cells - 1, d.start_ms * cells // max(1, duration_ms))
        last = min(cells, max(first + 1, round(d.end_ms * cells / max(1, duration_ms))))
        bar[first:last] = "█" * (last - first)
    return {label: "".join(bar) for label, bar in bars.items()}


def _maker(file: Path | None) -> Maker | None:
    """None: training-free."""
    if file is None:
        return None
    from vsearch.models import load_generator
    from vsearch.retriever.actions import generated_by

    return generated_by(load_generator(file))


def _print_tables(found: Mapping[Video, Sequence[Detection]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for video, detections in found.items():
        if not detections:
            continue
        duration_ms = video.media.duration_ms if video.media else max(d.end_ms for d in detections)
        console.print(Text(printable(short_path(video.path)), style="bold"))
        width = min(32, max(len(printable(d.label)) for d in detections))
        for label, bar in draw_timeline(detections, duration_ms).items():
            if not console.encoding.startswith("utf"):
                bar = bar.replace("█", "#").replace("·", ".")
            console.print(Text(f"  {printable(label)[:width]:<{width}} {bar}"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("  moment", "action", "score"):
            table.add_column(column, no_wrap=column != "action")
        for d in sorted(detections, key=lambda d: (d.start_ms, d.end_ms, d.label)):
            moment = f"  {timecode(d.start_ms)} - {timecode(d.end_ms)}"
            table.add_row(moment, Text(printable(d.label)), f"{d.score:.3f}")
        console.print(table)
