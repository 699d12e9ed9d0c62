"""One indexing run: find files -> plan -> decode -> encode -> store -> publish.

Where there is much to do it goes over new videos twice. The first pass decodes keyframes alone and makes everything
searchable, marked coarse; the second, at full rate, replaces that video by video. A coarse video is still to do: a
run that was stopped between the two goes on with the second.

Decoding happens in child processes (`pool`), encoding in threads of this one (`encoding`), which read on
(`ahead`) while this thread records. Each video is committed as soon as it is done: a run that is killed loses the videos in work, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.errors import LibraryError, ModelError
from vsearch.indexer.attempts import Attempt, Settled, identified, planned_content
from vsearch.indexer.decode import (
    DecodeJob,
    DecodeOptions,
    DecodePool,
    FrameShape,
    JobDone,
    JobFailed,
    clock,
    default_workers,
)
from vsearch.indexer.encoding import Lanes, VideoFrames, ahead, encoded
from vsearch.indexer.fingerprint import fingerprint
from vsearch.indexer.shared_progress import Progress, Report, RunSummary
from vsearch.indexer.upkeep import embedder, register, renew_moments, score_neutral

if TYPE_CHECKING:
    from vsearch.library import Job, Library, Plan, Scan
    from vsearch.models import Backbone, Encoder
    from vsearch.records import EncoderInfo

DEFAULT_MODEL = "mini"
DEFAULT_FPS = 2.0
PUBLISH_EVERY_S = 30.0  # new videos become searchable at least this often during a long run
FIRST_PASS_EVERY_S = 10.0  # the same in the first pass
FIRST_PASS_FROM_BYTES = 64_000_000  # of new videos: less is done at full rate in some seconds
_ENDS_WAITING = 16  # videos that may wait to be recorded
_FIRST_PASS_STALL_S = 10.0  # a file that hangs is left to the second pass


@dataclass(frozen=True)
class IndexOptions:
    """What a run may be told. `head`: a checkpoint's folder; `fps`: sampled frames a second; `device`: as
    `resolve_devices` takes it; `workers`: decoder processes. None where a library keeps what it has; `resample`: unless
    `fps` says otherwise."""

    model: str | None = None
    head: Path | None = None
    fps: float | None = None
    device: str = "auto"
    decoder: str = "auto"
    workers: int | None = None
    batch_size: int | None = None
    resample: bool = False
    retry_failed: bool = False
    dry_run: bool = False


class IndexRun:
    """The state of one run: what is planned, what is done, and the encoder once it is needed."""

    def __init__(self, library: Library, options: IndexOptions, report: Report) -> None:
        self.library = library
        self.options = options
        self._report = report
        self._encoder: Encoder | None = None
        self._backbones: list[Backbone] = []  # its own, and a copy for each further device
        # A run that was killed before its first publication has left an encoder without an index.
        self._known = self._known_encoder()
        if self._known and options.model not in (None, self._known.spec["model"]):
            raise LibraryError(
                f"this library is indexed with {self._known.spec['model']}; give the same --model or none, or change "
                f"it: vsearch reindex --model {options.model}"
            )
        if self._known and options.head:
            _check_same_head(self._known, options.head)
        self._kept_fps = self.library.sampling_rate(self._known.backbone) if self._known else None
        self._fps = self._sampling_rate()
        self._passing: list[Attempt] = []  # of decoders that died: to be tried again
        self._first: dict[Path, Attempt] = {}  # the same, while that is done
        self._bytes_todo = self._bytes_done = self._videos = self._videos_done = self._frames = 0
        self._begin = self._started = time.monotonic()
        self._stage = "indexing"
        self._fresh: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []

    def _known_encoder(self) -> EncoderInfo | None:
        """That of the library, which the run goes on with."""
        return self.library.answering_encoder()

    def plan_only(self, scan: Scan) -> RunSummary:
        plan = self._plan(scan)
        return RunSummary(
            found=len(scan.files), unchanged=len(plan.unchanged) + len(plan.touched), moved=len(plan.moved),
            copies=len(plan.duplicates), missing=len(plan.missing), dry_run=True,
            to_do=sum(len(job.files) for job in plan.jobs),
            failures=[(str(v.path), v.reason or "") for v in plan.known_failed],
        )  # fmt: skip

    def _sampling_rate(self) -> float:
        """The library's, or the one asked for. Raises LibraryError where that would cost decoding it anew, unasked."""
        fps = self.options.fps
        kept = self._kept_fps
        if kept is None or fps is None or fps == kept:
            return fps or kept or DEFAULT_FPS
        assert self._known
        count, duration_ms = self.library.sampled_otherwise(self._known.backbone, fps)
        if count and not self.options.resample:
            raise LibraryError(
                f"this library samples {kept:g} frames a second; at {fps:g} its {count} videos, "
                f"{clock(duration_ms / 1000)} in all, would be decoded anew: leave --fps away to keep "
                f"{kept:g}, or add --resample"
            )
        return fps

    def run(self, scan: Scan) -> RunSummary:
        self._report(Progress("comparing with the library"))
        plan = self._plan(scan)
        for folder in plan.unreachable:
            self._warn(f"{folder} is empty or not there; nothing below it is called missing")
        for folder, count in plan.silent:
            self._warn(
                f"none of the {count} videos known in {folder} is there; if their disk is away, they wait for it: "
                f"nothing is called missing; if they were deleted: vsearch forget {folder}"
            )
        self.library.apply_plan(plan)
        if plan.jobs or self.options.resample:
            self.library.note_sampling_rate(self._fps, instead_of=self._kept_fps)
        failures = [(str(v.path), v.reason or "unknown") for v in plan.known_failed]
        for file, fault in plan.unreadable:
            self.library.record_failed([file], None, fault)
            failures.append((str(file.path), fault))
        indexed = partial = 0
        encoder_id = self._known.id if self._known else None
        try:
            if plan.jobs:
                with self._decoders(len(plan.jobs)) as pool:  # they start while the model is made ready
                    encoder_id = self._register_encoder()
                    self._started = time.monotonic()
                    jobs = self._first_pass(plan.jobs, encoder_id, pool)
                    for done in self._all_work(jobs, encoder_id, pool):
                        if done.failed:
                            failures += [
                                (str(file.path), done.reason or "unknown") for file in done.job.files
                            ]
                        else:
                            indexed += len(done.job.files)
                            partial += len(done.job.files) * (done.reason is not None)
        finally:  # also when interrupted: what is recorded becomes searchable
            if encoder_id is not None:
                self._publish(encoder_id)
        if encoder_id is not None:
            self._measure_chance(encoder_id)
        return RunSummary(
            found=len(scan.files), unchanged=len(plan.unchanged) + len(plan.touched), indexed=indexed,
            partial=partial, moved=len(plan.moved), copies=len(plan.duplicates), missing=len(plan.missing),
            frames=self._frames, seconds=time.monotonic() - self._started, failures=sorted(failures),
        )  # fmt: skip

    def _plan(self, scan: Scan) -> Plan:
        # A known library names its backbone, so a run with nothing to decode loads no model.
        backbone = self._known.backbone if self._known else self._load().backbone.identity
        return self.library.plan(
            scan,
            fingerprint,
            backbone,
            self._fps,
            retry_failed=self.options.retry_failed,
            hashed=self._hashed,
        )

    def _hashed(self, done: int, count: int) -> None:
        self._report(Progress("comparing with the library", count, done))

    def _load(self) -> Encoder:
        if self._encoder is None:
            from vsearch.models import load_encoder

            self._report(Progress("loading the model"))
            if self._known:
                self._encoder = load_encoder(self._known.spec, self._devices()[0])
                if self._encoder.identity != self._known.identity:
                    raise ModelError(
                        f"this library was indexed with {self._known.identity}, but this installation has "
                        f"{self._encoder.identity}; {change_model_to(self._known)}"
                    )
            else:
                self._encoder = self._new_encoder()
        return self._encoder

    def _new_encoder(self) -> Encoder:
        from vsearch.models import Encoder, ZeroShotHead, load_backbone
        from vsearch.models.recipes import read_card

        head, model, device = self.options.head, self.options.model, self._devices()[0]
        if head is None:
            return Encoder(load_backbone(model or DEFAULT_MODEL, device), ZeroShotHead())
        from vsearch.models.recipes import trained_encoder

        return trained_encoder(head, load_backbone(model or read_card(head).model, device), self._fps)

    def _devices(self) -> list[str]:
        from vsearch.models import resolve_devices

        return resolve_devices(self.options.device)

    def _register_encoder(self) -> int:
        encoder = self._load()
        self._backbones = encoder.backbone.replicas(self._devices())
        for backbone in self._backbones:
            backbone.arrange()  # belongs to loading: the speed that is shown leaves it out
        return register(self.library, encoder)

    def _decoders(self, videos: int) -> DecodePool:
        """For so many videos. Raises VsearchError where decoder nvdec cannot work."""
        devices, decoder = self._devices(), self.options.decoder
        options = DecodeOptions(self._fps, decoder=decoder)
        if decoder == "nvdec":
            from vsearch.indexer.decode import check_torchcodec

            check_torchcodec(devices)
            options = replace(options, memory_limit_bytes=0, gpus=tuple(devices))
        return DecodePool(options, min(self.options.workers or default_workers(devices, decoder), videos))

    def _first_pass(self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool) -> list[Job]:
        """Keyframes of videos that have no frames yet. What is wrong with a file, the second pass will say. Gives the
        jobs, with what is known of them by now."""
        encoder = self._load()
        seen = self.library.contents_with_frames(encoder.backbone.identity)
        new = [job for job in jobs if job.fingerprint not in seen]
        if len(new) < len(jobs):  # from a run that was stopped, perhaps before it could publish them
            self._publish(encoder_id)
        # What looks at several frames together was not trained on frames seconds apart.
        alone = encoder.backbone.frames_together == 1 and encoder.spec()["head"].get("frame_space")
        if not alone or sum(job.files[0].size for job in new) < FIRST_PASS_FROM_BYTES:
            return list(jobs)
        self._stage = "first pass"
        latest = {job.path: job for job in jobs}
        with closing(self._work(new, encoder_id, pool, coarse=True)) as work:
            for done in work:
                if done.job.files == latest[done.job.path].files:  # else it is looked at again
                    latest[done.job.path] = done.job
        self._publish(encoder_id)
        self._measure_chance(encoder_id)
        self._stage = "full rate"
        return list(latest.values())

    def _all_work(self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool) -> Iterator[Settled]:
        """All jobs at full rate; those whose decoder died, hung or had no memory a second time, with no other beside it."""
        with closing(self._work(jobs, encoder_id, pool)) as work:
            yield from work
        again = [attempt.job for attempt in self._passing]
        if again:
            pool.close()
            self._first = {attempt.job.path: attempt for attempt in self._passing}
            self._stage = "second try"
            with self._decoders(1) as single, closing(self._work(again, encoder_id, single)) as work:
                yield from work

    def _work(
        self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool, *, coarse: bool = False
    ) -> Generator[Settled, None, None]:
        """Decode, encode and record; yields what is settled."""
        encoder = self._load()
        every_s = FIRST_PASS_EVERY_S if coarse else PUBLISH_EVERY_S
        self._videos_done = self._bytes_done = self._frames = 0
        sizes = [sum(file.size for file in job.files[:1]) for job in jobs]
        self._bytes_todo, self._videos = sum(sizes), len(jobs)
        self._begin = published = time.monotonic()
        self._progress()
        cost = 0.0
        batch = self.options.batch_size or (64 if encoder.backbone.device.startswith("cuda") else 8)
        together = encoder.backbone.frames_together
        batch = max(together, batch - batch % together)
        decode = self._decode_options(coarse)
        events = pool.run(
            (DecodeJob(i, job.path, True, planned_content(job)) for i, job in enumerate(jobs)), decode
        )
        with (
            Lanes(*self._backbones) as lanes,
            closing(
                ahead(
                    lambda some: encoded(some, lanes, batch, self._count_frames),
                    events,
                    _ENDS_WAITING,
                    self._progress,
                    pool.close,  # else an interrupt would wait for a decoder that hangs
                )
            ) as ready,
        ):
            for end, frames in ready:
                attempt = Attempt(jobs[end.job_id], end, frames)
                former = self._first.get(attempt.job.path)
                if end.passing and not coarse and former is None:
                    self._passing.append(attempt)
                else:
                    if former and end.passing and former.covered_ms > attempt.covered_ms:
                        attempt = former
                    if done := self._settle(attempt, encoder_id, coarse=coarse):
                        yield done
                self._videos_done += 1
                self._bytes_done += sizes[end.job_id]
                self._progress()
                if time.monotonic() - published > max(every_s, 20 * cost):
                    before = time.monotonic()
                    self._publish(encoder_id)
                    published = time.monotonic()
                    cost = published - before

    def _decode_options(self, coarse: bool) -> DecodeOptions:
        encoder = self._load()
        pre = encoder.backbone.preprocess
        options = DecodeOptions(
            fps=self._fps,
            shape=FrameShape(pre.size, pre.resize_mode, pre.interpolation),
            decoder=self.options.decoder,
            gpus=tuple(self._devices()),
        )
        if not coarse:
            return options
        seconds = encoder.head.window_s / 2  # two to each window
        return replace(options, keyframes_every_s=seconds, stall_s=_FIRST_PASS_STALL_S)

    def _settle(self, attempt: Attempt, encoder_id: int, *, coarse: bool) -> Settled | None:
        """Record what a job has come to. None: nothing was learnt of the file, which is for next time."""
        job, end = attempt.job, attempt.end
        if end.content:
            job = identified(job, end.content)
        failed = isinstance(end, JobFailed) or attempt.frames is None
        reason = end.reason if isinstance(end, JobFailed) else end.partial
        if failed and not reason:
            reason = "no picture could be decoded"
        if not failed and not (job.retry and end.passing):  # what there is may be more
            assert isinstance(end, JobDone)
            assert attempt.frames
            self._record(job, end, attempt.frames, encoder_id, coarse=coarse)
            return Settled(job, reason, False)
        if coarse:
            return Settled(job, reason, True)
        self._warn(f"{job.path}: {reason}")
        left = isinstance(end, JobFailed) and end.left
        if left and not end.passing:
            return None
        if not left and not job.retry:
            self._record_failed(job, reason or "")
        return Settled(job, reason, True)

    def _record_failed(self, job: Job, reason: str) -> None:
        self.library.record_failed(job.files, job.fingerprint, reason)

    def _record(self, job: Job, done: JobDone, frames: VideoFrames, encoder_id: int, *, coarse: bool) -> None:
        from vsearch.models import plan_windows
        from vsearch.records import COARSE_FPS, NewMoment

        encoder = self._load()
        assert job.fingerprint
        vectors, times = frames.result()
        windows = plan_windows(times, done.info.duration_ms, encoder.head.window_s, encoder.head.overlap)
        fps = COARSE_FPS if coarse else self._fps
        stored = self.library.frame_store.put(
            job.fingerprint, encoder.backbone.identity, fps, vectors, times,
            {
                **asdict(done.info), "covered_ms": done.covered_ms, "size": job.files[0].size,
                "poster": done.poster_jpeg is not None, "name": job.path.name,
                "partial": None if coarse else done.partial,
            },
        )  # fmt: skip
        recorded = self.library.record_indexed(
            files=job.files,
            fingerprint=job.fingerprint,
            media=done.info,
            covered_ms=done.covered_ms,
            frames=stored,
            encoder_id=encoder_id,
            moments=[NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows],
            reason=None if coarse else done.partial,
            poster=done.poster_jpeg,
        )
        # From the stored float16, as a later rebuild would do: both give the same index.
        moments = encoder.head.embed_windows(vectors, times, windows)
        self._fresh.append((np.asarray(recorded.moment_ids, np.int64), moments))

    def _publish(self, encoder_id: int) -> None:
        renew_moments(self.library, encoder_id)
        if not self.library.up_to_date(encoder_id):
            self.library.publish_update(encoder_id, self._fresh, embedder(self.library, encoder_id))
        self._fresh = []

    def _measure_chance(self, encoder_id: int) -> None:
        """For the words of answers, which must not cost the run."""
        told = Progress("measuring what chance scores", self._videos, self._videos_done)
        try:
            score_neutral(self.library, encoder_id, self._encoder, lambda: self._report(told))
        except ModelError as error:
            self._warn(f"answers come without words such as likely: {error}")

    def _count_frames(self, count: int) -> None:
        self._frames += count

    def _progress(self) -> None:
        elapsed = time.monotonic() - self._begin
        known = self._bytes_done > 0.02 * self._bytes_todo  # less says nothing of the rest
        eta = elapsed * (self._bytes_todo / self._bytes_done - 1) if known else None
        self._report(
            Progress(
                self._stage,
                self._videos,
                self._videos_done,
                self._frames,
                self._frames / max(elapsed, 1e-6),
                eta,
            )
        )

    def _warn(self, text: str) -> None:
        self._report(Progress(self._stage, self._videos, self._videos_done, warning=text))


def change_model_to(live: EncoderInfo) -> str:
    """What to run where the installed model of that name is another build."""
    return f"change the library to that: vsearch reindex --model {live.spec['model']}"


def _check_same_head(known: EncoderInfo, checkpoint: Path) -> None:
    """A library keeps the head that it has until another is adopted."""
    from vsearch.models.recipes import read_card

    card = read_card(checkpoint)
    if not known.head.startswith(card.identity):
        change = "make another library: " if card.recipe.in_network else ""
        command = (
            f"vsearch index FOLDER --head {checkpoint} --library NEW"
            if change
            else f"vsearch adopt {checkpoint}"
        )
        raise LibraryError(
            f"this library is indexed with head {known.head}; to change that, {change}{command}"
        )
