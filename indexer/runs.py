"""Runs on a library: bring it up to date, or change the model that it is searched with.

A change fills the same library with frames and moments of the new encoder while the old one answers. Nothing is switched
before all of it is there; then one transaction does. What was done is kept when a change is stopped, and the next one goes
on from there. The former index stays, so going back is only a switch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.errors import LibraryError, ModelError, VsearchError
from vsearch.indexer.decode import DECODERS, DecodePool, clock
from vsearch.indexer.discover import not_there, scan
from vsearch.indexer.run import DEFAULT_MODEL, IndexOptions, IndexRun
from vsearch.indexer.shared_progress import Progress, Report, RunSummary, shared

if TYPE_CHECKING:
    from vsearch.library import Job, Library, Scan
    from vsearch.records import EncoderInfo


def index_videos(path: Path, paths: Sequence[Path], options: IndexOptions, report: Report) -> RunSummary:
    """Bring the library at `path` (made if need be) up to date with the videos under `paths`.

    One of another build of the built-in model is changed to this first. Raises VsearchError for paths that are not
    there, a library in use by another run, a model that does not fit the library. KeyboardInterrupt leaves everything
    finished so far in place, and searchable.
    """
    absent = next((p for p in paths if not os.path.exists(p)), None)
    if absent is not None:
        raise not_there(path, absent)
    if options.decoder not in DECODERS:
        raise VsearchError(
            f"unknown decoder {options.decoder!r}; use {', '.join(DECODERS[:-1])} or {DECODERS[-1]}"
        )
    from vsearch.library import Library

    if options.dry_run or not Library.exists(path):
        found = scan(paths, report)
        if not Library.exists(path) and (options.dry_run or not found.files):
            return RunSummary(found=len(found.files), to_do=len(found.files), dry_run=options.dry_run)
        with Library.open(path, create=True) as library:
            if options.dry_run:
                return IndexRun(library, options, report).plan_only(found)
            with library.writing(), shared(path, report) as told:
                return IndexRun(library, options, told).run(found)
    with Library.open(path, create=True) as library, library.writing(), shared(path, report) as told:
        if options.model in (None, DEFAULT_MODEL) and _is_former_build(library):
            told(Progress("comparing with the library", warning=_ANOTHER_BUILD))
            _ModelChange(library, replace(options, model=DEFAULT_MODEL, head=None), told).change()
        run = IndexRun(library, options, told)
        return run.run(scan(paths, told))


_ANOTHER_BUILD = (
    "this library is of another build of the built-in model: its videos are decoded anew for this one; until that is done, "
    "only sentences asked before can be searched"
)


@dataclass(frozen=True)
class Changed:
    """What answers now. `videos`: that were decoded for it; `left_out`: videos whose files are not there, which answer
    again when `vsearch index` finds them; `behind`: videos indexed since this model answered last. `changed` is False when
    it answered already."""

    model: str
    former: str
    moments: int
    videos: int
    seconds: float
    left_out: int = 0
    behind: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    changed: bool = True


def change_model(path: Path, options: IndexOptions | None, report: Report) -> Changed:
    """Let another model, or another build of the same, answer in the library at `path`, with moments of its own. Without
    `options`: the model before the present one, with its very index.

    Raises LibraryError without an index, or with none to go back to, ModelError for a model that cannot be had.
    """
    from vsearch.library import Library

    with Library.open(path) as library, library.writing(), shared(path, report) as told:
        return _go_back(library) if options is None else _ModelChange(library, options, told).change()


def _go_back(library: Library) -> Changed:
    began = time.monotonic()
    present = _live(library)
    encoders = {encoder.id: encoder for encoder in library.encoders()}
    before = next(
        (g for g in library.generations() if encoders[g.encoder_id].backbone != present.backbone), None
    )
    if before is None:
        raise LibraryError("there is no model to go back to: this library has had only one since it was made")
    generation = library.switch(before.id)
    former = encoders[before.encoder_id]
    behind = len(_contents(library) - library.contents_with_frames(former.backbone))
    return Changed(
        former.spec["model"],
        present.spec["model"],
        generation.count,
        0,
        time.monotonic() - began,
        behind=behind,
    )


def _contents(library: Library) -> set[str]:
    return {v.fingerprint for v in library.videos("indexed", "partial") if v.fingerprint is not None}


class _ModelChange(IndexRun):
    """A run over what the library knows, by an encoder that does not answer yet."""

    def __init__(self, library: Library, options: IndexOptions, report: Report) -> None:
        self._former = _live(library)
        super().__init__(library, replace(options, fps=library.sampling_rate(self._former.backbone)), report)
        self._complete = False

    def change(self) -> Changed:
        """Decode what has no frames of the new encoder, then switch."""
        began = time.monotonic()
        encoder = self._load()
        if encoder.identity == self._former.identity:
            name, generation = encoder.backbone.name, self.library.live_generation()
            assert generation is not None
            return Changed(name, name, generation.count, 0, 0.0, changed=False)
        videos = self.library.videos("indexed", "partial")
        found = scan([video.path for video in videos if video.path.is_file()], lambda progress: None)
        plan = self._plan(found)
        there = {file.path for file in found.files}
        left_out = sum(video.path not in there for video in videos)
        media = {video.path: video.media for video in videos}
        to_do_ms = sum(info.duration_ms for job in plan.jobs if (info := media.get(job.path)))
        self._warn(
            f"{len(plan.jobs)} videos, {clock(to_do_ms / 1000)} in all, are decoded for {encoder.backbone.name}; "
            f"{self._former.spec['model']} answers until that is done"
        )
        if left_out:
            self._warn(f"{left_out} videos are not where they were and cannot be decoded; {_LEFT_OUT}")
        summary = self.run(found)
        generation = self.library.live_generation()
        assert generation is not None
        return Changed(
            encoder.backbone.name, self._former.spec["model"], generation.count, summary.indexed,
            time.monotonic() - began, left_out, failures=tuple(summary.failures),
        )  # fmt: skip

    def run(self, scan: Scan) -> RunSummary:
        encoder_id = self._register_encoder()
        summary = super().run(scan)
        self._complete = True
        self._publish(encoder_id)
        self._measure_chance(encoder_id)
        return summary

    def _known_encoder(self) -> EncoderInfo | None:
        return None

    def _record_failed(self, job: Job, reason: str) -> None:
        """It still answers by the model that read it."""

    def _publish(self, encoder_id: int) -> None:
        """Nothing is switched before all is there."""
        if self._complete:
            super()._publish(encoder_id)
        else:
            self._fresh = []  # made again from stored frames: a change may be stopped many times

    def _measure_chance(self, encoder_id: int) -> None:
        if self._complete:
            super()._measure_chance(encoder_id)

    def _first_pass(self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool) -> list[Job]:
        return list(jobs)  # a first look could not be searched


_LEFT_OUT = "they answer again when `vsearch index` finds them"


def _live(library: Library) -> EncoderInfo:
    live = library.live_encoder()
    if live is None:
        raise LibraryError("this library holds no index yet: run `vsearch index FOLDER` first")
    return live


def _is_former_build(library: Library) -> bool:
    """Whether it was indexed with the built-in model as another version of vsearch brought it."""
    from vsearch.models import load_backbone

    live = library.live_encoder()
    if live is None or live.spec["model"] != DEFAULT_MODEL:
        return False
    if load_backbone(DEFAULT_MODEL, "cpu").identity == live.backbone:
        return False
    if "checkpoint" in live.spec["head"]:
        raise ModelError(
            "this library has a trained head over another build of the built-in model, which is no longer here; change it "
            f"to this build with its own head (vsearch reindex --model {DEFAULT_MODEL}), or train the head anew"
        )
    return True
