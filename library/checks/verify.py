"""Checks a library against itself, and mends what can be mended.

A *problem* is something that must not be: damaged or missing files, rows that contradict each other or the files. A
*note* is what an interrupted run leaves behind, or work that waits for the next one; a library with notes is sound.

What is checked against what: every file of the library against its hash; frame sets and videos against what the frame
files say of them; moments against the windows that their head plans over the stored times; cached query vectors and
posters against their own digests; the index against its recorded hashes. Not checked: whether a video file still has
the content that its size and time stand for (`vsearch index` looks at those), names of files whose row was changed to
another existing name of the same size, and the numbers by which a score is put into words.

Each repair is a transaction of its own that leaves a sound library with less in it, and the index is published at the
end: killed in between, a second repair or the next `vsearch index` finds the rest to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import select

from vsearch.library.catalogue import (
    Catalogue,
    EncoderRow,
    MomentRow,
    integrity_problems,
    rate_to_note,
)
from vsearch.library.checks import file_checks as files
from vsearch.library.checks import row_checks as rows
from vsearch.library.checks.check import Check, Makers, Problem, Report
from vsearch.library.checks.taking_up import take_up
from vsearch.library.frames import FrameStore
from vsearch.library.index import publish as publishing

__all__ = ["Makers", "Problem", "Report", "verify"]


def verify(
    catalogue: Catalogue, folder: Path, leftovers: Callable[[], list[Path]], *, repair: bool, makers: Makers
) -> Report:
    """Check everything, every byte. With `repair` (under the writer's lock) mend it."""
    with catalogue.read() as session:
        broken = integrity_problems(session)
    if broken:
        why = "; ".join(broken[:3])
        return Report((Problem(f"The catalogue is damaged ({why}): restore it from a backup."),), ())
    check = Check(catalogue, folder, repair, makers, FrameStore(folder), {})
    problems = rows.check_kinds(check)
    if problems and (not repair or any(problem.done is None for problem in problems)):
        return Report(tuple(problems), ("More may be found once these are mended.",))
    for part in (
        files.check_folders,
        rows.check_specs,
        files.check_frames,
        take_up,
        check_rate,
        rows.check_videos,
        rows.check_moments,
        rows.check_sentences,
        files.check_generations,
        files.check_heads,
        files.check_vocabularies,
        files.check_neutral,
        files.check_posters,
    ):
        problems += part(check)
    if repair:  # the index drops what is gone at once, and takes up what `embed` can give
        with catalogue.read() as session:
            live = publishing.live_row(session)
            behind = live is not None and not publishing.up_to_date(session, folder, live.encoder_id)
        if live is not None and behind:
            publishing.publish(catalogue, folder, live.encoder_id, (), makers.embed, carry_over=True)
    notes = [*files.sweep(catalogue, folder, leftovers(), repair), *_waiting(catalogue, folder)]
    return Report(tuple(problems), tuple(notes))


def check_rate(check: Check) -> list[Problem]:
    """The noted sampling rate: a number, and one that videos have or that was asked for."""
    with check.catalogue.read() as session:
        live = publishing.live_row(session)
        encoder = None if live is None else session.get(EncoderRow, live.encoder_id)
        if encoder is None or (rate := rate_to_note(session, encoder.backbone)) is None:
            return []
    if check.repair:
        with check.catalogue.write() as session:
            session.merge(rate)
    done = "corrected from its frames" if check.repair else None
    return [Problem("The catalogue has a sampling rate that no video has", done)]


def _waiting(catalogue: Catalogue, folder: Path) -> Iterator[str]:
    with catalogue.read() as session:
        live = publishing.live_row(session)
        if live is None:
            behind = session.scalars(select(MomentRow.id).limit(1)).first() is not None
        else:
            behind = not publishing.up_to_date(session, folder, live.encoder_id)
    if behind:
        yield "The search index is behind the catalogue: run `vsearch index`"
