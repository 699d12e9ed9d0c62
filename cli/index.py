"""`vsearch index`: make videos searchable."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vsearch.cli.common import (
    EXIT_NOTHING,
    EXIT_SOME_FAILED,
    SCHEMA_VERSION,
    JsonOption,
    LibraryOption,
    note,
    print_json,
    printable,
    verb,
)


@verb
def index(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Folders and files.", show_default=False)
    ],
    library: LibraryOption = None,
    model: Annotated[
        str | None, typer.Option(help="Backbone; see `vsearch models list`.", show_default="mini")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Trained head for a new library: folder of a `vsearch train` run.",
            show_default="zero-shot",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=60, help="Sampled frames a second.", show_default="the library's; 2 for a new one"
        ),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="With --fps: decode what the library has anew at that rate.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            help="auto (the first CUDA GPU, else cpu), cpu, cuda:N, mps (Apple), or several: cuda:0,cuda:1."
        ),
    ] = "auto",
    decoder: Annotated[
        str, typer.Option(help="auto, pyav, decord, or nvdec (on a GPU, with torchcodec).")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoder processes.", show_default="from cores and device")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Frames encoded at once.", show_default="8, on a GPU 64")
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try files again that failed, or could be read only in part, before."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    progress: Annotated[str, typer.Option(help="auto, bar, plain, json or none.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find videos under PATH and make them searchable. Run it again after adding, moving or changing files.

    A file called .vsearchignore, with rules as in .gitignore, leaves out what it names in its folder and below.

    Exit code 0 when all is well, 3 when it finished but some files failed (`vsearch status` says why).
    """
    from vsearch.cli.progress import reporter
    from vsearch.indexer import IndexOptions, index_videos
    from vsearch.library import find_library

    options = IndexOptions(
        model=model, head=head, fps=fps, device=device, decoder=decoder, workers=workers, batch_size=batch_size,
        resample=resample, retry_failed=retry_failed, dry_run=dry_run,
    )  # fmt: skip
    with reporter(progress) as report:
        summary = index_videos(find_library(library), paths, options, report)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, **asdict(summary)})
    for line in summary.lines():
        note(line)
    for path, reason in summary.failures[:10]:
        note(f"  failed: {printable(path)}: {reason}")
    if len(summary.failures) > 10:
        note(f"  … and {len(summary.failures) - 10} more; `vsearch status` lists them")
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
    if not summary.found and not summary.missing:
        raise typer.Exit(EXIT_NOTHING)
