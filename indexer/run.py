"""One indexing run: find files -> plan -> decode -> encode -> store -> publish.

Where there is much to do it goes over new videos twice. The first pass decodes keyframes alone and makes everything
searchable, marked coarse; the second, at full rate, replaces that video by video. A coarse video is still to do: a
run that was stopped between the two goes on with the second.

Decoding happens in child processes (`decode_pool`), encoding in threads of this one (`encoding`), which read on
(`ahead`) while this thread records. Each video is committed as soon as it is done: a run that is killed loses the videos in work, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.errors import LibraryError, ModelError, VsearchError
from vsearch.indexer.ahead import ahead
from vsearch.indexer.cores import default_workers
from vsearch.indexer.decode import DECODERS, DecodeOptions
from vsearch.indexer.decode_pool import DecodeJob, DecodePool, JobDone, JobFailed
from vsearch.indexer.discover import find_videos
from vsearch.indexer.encoding import Lanes, VideoFrames, encoded
from vsearch.indexer.fingerprint import fingerprint
from vsearch.indexer.heap import keep_freed
from vsearch.indexer.moments import embedder, register, renew_moments
from vsearch.indexer.picture import FrameShape
from vsearch.indexer.shared_progress import shared

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo, Job, Library, Plan, Scan
    from vsearch.models import Backbone, Encoder

DEFAULT_MODEL = "mini"
PUBLISH_EVERY_S = 30.0  # new videos become searchable at least this often during a long run
FIRST_PASS_EVERY_S = 10.0  # the same in the first pass
FIRST_PASS_FROM_BYTES = 64_000_000  # of new videos: less is done at full rate in some seconds
_ENDS_WAITING = 16  # videos that may wait to be recorded
_FIRST_PASS_STALL_S = 10.0  # a file that hangs is left to the second pass


@dataclass(frozen=True)
class IndexOptions:
    """What a run may be told. `head`: a checkpoint's folder; `fps`: sampled frames a second; `device`: as
    `resolve_devices` takes it; `workers`: decoder processes."""

    model: str | None = None
    head: Path | None = None
    fps: float = 2.0
    device: str = "auto"
    decoder: str = "auto"
    workers: int | None = None
    batch_size: int | None = None
    retry_failed: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `warning` marks a report about one file or folder."""

    stage: str
    videos: int = 0
    videos_done: int = 0
    frames: int = 0
    frames_per_s: float = 0.0
    eta_s: float | None = None
    warning: str | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a run did, in videos. `failures`: path and reason of those that failed now or still."""

    found: int = 0
    unchanged: int = 0
    indexed: int = 0
    partial: int = 0
    moved: int = 0
    copies: int = 0
    missing: int = 0
    to_do: int = 0
    frames: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The run in a sentence."""
        if not self.found and not self.missing:
            return ["no videos found"]
        parts = [f"{self.found} videos found"]
        if self.dry_run:
            parts.append(f"{self.to_do} would be decoded")
        named = (
            (self.indexed, "indexed"), (self.partial, "of them in part"), (self.unchanged, "unchanged"),
            (self.moved, "moved"), (self.copies, "copies of known content"), (self.missing, "missing"),
            (len(self.failures), "failed"),
        )  # fmt: skip
        parts += [f"{count} {name}" for count, name in named if count]
        rate = f"; {self.frames} frames in {self.seconds:.1f} s" if self.frames else ""
        return [", ".join(parts) + rate]


def index_videos(path: Path, paths: Sequence[Path], options: IndexOptions, report: Report) -> Summary:
    """Bring the library at `path` (made if need be) up to date with the videos under `paths`.

    Raises VsearchError for paths that are not there, a library in use by another run, a model that does not
    fit the library. KeyboardInterrupt leaves everything finished so far in place, and searchable.
    """
    absent = next((p for p in paths if not p.exists()), None)
    if absent is not None:
        raise VsearchError(f"there is no file or folder {absent}")
    if options.decoder not in DECODERS:
        raise VsearchError(
            f"unknown decoder {options.decoder!r}; use {', '.join(DECODERS[:-1])} or {DECODERS[-1]}"
        )
    keep_freed()
    from vsearch.library import Library

    report(Progress("looking for videos"))
    scan = _scan(paths, report)
    if not Library.exists(path) and (options.dry_run or not scan.files):
        return Summary(found=len(scan.files), to_do=len(scan.files), dry_run=options.dry_run)
    with Library.open(path, create=True) as library:
        if options.dry_run:
            return _Run(library, options, report).plan_only(scan)
        with library.writing(), shared(path, report) as told:
            return _Run(library, options, told).run(scan)


def _scan(paths: Sequence[Path], report: Report) -> Scan:
    from vsearch.library import FoundFile, Scan

    skipped: list[Path] = []

    def on_skip(path: Path, reason: str) -> None:
        skipped.append(path)
        report(Progress("looking for videos", warning=f"{path}: {reason}"))

    found = find_videos(paths, on_skip)
    return Scan(
        folders=tuple(path.resolve() for path in paths),
        files=tuple(FoundFile(file.path, file.size, file.mtime_ns) for file in found),
        skipped=tuple(skipped),
    )


class _Run:
    """The state of one run: what is planned, what is done, and the encoder once it is needed."""

    def __init__(self, library: Library, options: IndexOptions, report: Report) -> None:
        self.library = library
        self.options = options
        self._report = report
        self._encoder: Encoder | None = None
        self._backbones: list[Backbone] = []  # its own, and a copy for each further device
        # A run that was killed before its first publication has left an encoder without an index.
        self._known = library.live_encoder() or next(reversed(library.encoders()), None)
        if self._known and options.model not in (None, self._known.spec["model"]):
            raise LibraryError(
                f"this library is indexed with {self._known.spec['model']}; give the same --model or none, "
                f"or make another library: vsearch index FOLDER --model {options.model} --library NEW"
            )
        if self._known and options.head:
            _check_same_head(self._known, options.head)
        self._bytes_todo = self._bytes_done = self._videos = self._videos_done = self._frames = 0
        self._begin = self._started = time.monotonic()
        self._stage = "indexing"
        self._fresh: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []

    def plan_only(self, scan: Scan) -> Summary:
        plan = self._plan(scan)
        return Summary(
            found=len(scan.files), unchanged=len(plan.unchanged) + len(plan.touched), moved=len(plan.moved),
            copies=len(plan.duplicates), missing=len(plan.missing), dry_run=True,
            to_do=sum(len(job.files) for job in plan.jobs),
            failures=[(str(v.path), v.reason or "") for v in plan.known_failed],
        )  # fmt: skip

    def run(self, scan: Scan) -> Summary:
        self._report(Progress("comparing with the library"))
        plan = self._plan(scan)
        for folder in plan.unreachable:
            self._warn(f"{folder} is empty or not there; nothing below it is called missing")
        self.library.apply_plan(plan)
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
                    self._first_pass(plan.jobs, encoder_id, pool)
                    with closing(self._work(plan.jobs, encoder_id, pool)) as work:
                        for job, reason, failed in work:
                            if failed:
                                failures += [(str(file.path), reason or "unknown") for file in job.files]
                            else:
                                indexed += len(job.files)
                                partial += len(job.files) * (reason is not None)
        finally:  # also when interrupted: what is recorded becomes searchable
            if encoder_id is not None:
                self._publish(encoder_id)
        return Summary(
            found=len(scan.files), unchanged=len(plan.unchanged) + len(plan.touched), indexed=indexed,
            partial=partial, moved=len(plan.moved), copies=len(plan.duplicates), missing=len(plan.missing),
            frames=self._frames, seconds=time.monotonic() - self._started, failures=sorted(failures),
        )  # fmt: skip

    def _plan(self, scan: Scan) -> Plan:
        # A known library names its backbone, so a run with nothing to decode loads no model.
        backbone = self._known.backbone if self._known else self._load().backbone.identity
        return self.library.plan(
            scan, fingerprint, backbone, self.options.fps, retry_failed=self.options.retry_failed
        )

    def _load(self) -> Encoder:
        if self._encoder is None:
            from vsearch.models import load_encoder

            self._report(Progress("loading the model"))
            if self._known:
                self._encoder = load_encoder(self._known.spec, self._devices()[0])
                if self._encoder.identity != self._known.identity:
                    raise ModelError(
                        f"this library was indexed with {self._known.identity}, but this installation has "
                        f"{self._encoder.identity}; make a new library: vsearch index FOLDER --library NEW"
                    )
            else:
                self._encoder = self._new_encoder()
        return self._encoder

    def _new_encoder(self) -> Encoder:
        from vsearch.models import Encoder, ZeroShotHead, load_backbone, read_card

        head, model, device = self.options.head, self.options.model, self._devices()[0]
        if head is None:
            return Encoder(load_backbone(model or DEFAULT_MODEL, device), ZeroShotHead())
        from vsearch.models.trained_head import trained_encoder

        return trained_encoder(head, load_backbone(model or read_card(head).model, device), self.options.fps)

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
        """Raises VsearchError where decoder nvdec cannot work."""
        devices, decoder = self._devices(), self.options.decoder
        options = DecodeOptions(self.options.fps, decoder=decoder)
        if decoder == "nvdec":
            from vsearch.indexer.decode_torchcodec import check_torchcodec

            check_torchcodec(devices)
            options = replace(options, memory_limit_bytes=0, gpus=tuple(devices))
        return DecodePool(options, self.options.workers or min(default_workers(devices, decoder), videos))

    def _first_pass(self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool) -> None:
        """Keyframes of videos that have no frames yet. What is wrong with a file, the second pass will say."""
        encoder = self._load()
        seen = self.library.contents_with_frames(encoder.backbone.identity)
        new = [job for job in jobs if job.fingerprint not in seen]
        if len(new) < len(jobs):  # from a run that was stopped, perhaps before it could publish them
            self._publish(encoder_id)
        # What looks at several frames together was not trained on frames seconds apart.
        alone = encoder.backbone.frames_together == 1 and encoder.spec()["head"].get("frame_space")
        if not alone or sum(job.files[0].size for job in new) < FIRST_PASS_FROM_BYTES:
            return
        self._stage = "first pass"
        with closing(self._work(new, encoder_id, pool, coarse=True)) as work:
            for _ in work:
                pass
        self._publish(encoder_id)
        self._stage = "full rate"

    def _work(
        self, jobs: Sequence[Job], encoder_id: int, pool: DecodePool, *, coarse: bool = False
    ) -> Generator[tuple[Job, str | None, bool], None, None]:
        """Decode, encode and record; yields each job with a reason (partial or failed) and whether it failed."""
        encoder = self._load()
        every_s = FIRST_PASS_EVERY_S if coarse else PUBLISH_EVERY_S
        self._videos_done = self._bytes_done = self._frames = 0
        sizes = [sum(file.size for file in job.files[:1]) for job in jobs]
        self._bytes_todo, self._videos = sum(sizes), len(jobs)
        self._begin = published = time.monotonic()
        self._progress()
        cost = 0.0
        pre = encoder.backbone.preprocess
        decode = DecodeOptions(
            fps=self.options.fps,
            shape=FrameShape(pre.size, pre.resize_mode, pre.interpolation),
            decoder=self.options.decoder,
            gpus=tuple(self._devices()),
        )
        if coarse:  # two to each window
            seconds = encoder.head.window_s / 2
            decode = replace(decode, keyframes_every_s=seconds, stall_s=_FIRST_PASS_STALL_S)
        batch = self.options.batch_size or (64 if encoder.backbone.device.startswith("cuda") else 8)
        together = encoder.backbone.frames_together
        batch = max(together, batch - batch % together)
        events = pool.run((DecodeJob(i, job.path) for i, job in enumerate(jobs)), decode)
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
                job = jobs[end.job_id]
                if isinstance(end, JobFailed) or frames is None:
                    reason = end.reason if isinstance(end, JobFailed) else "no picture could be decoded"
                    if not coarse:
                        self.library.record_failed(job.files, job.fingerprint, reason)
                        self._warn(f"{job.path}: {reason}")
                    yield job, reason, True
                else:
                    self._record(job, end, frames, encoder_id, coarse=coarse)
                    yield job, end.partial, False
                self._videos_done += 1
                self._bytes_done += sizes[end.job_id]
                self._progress()
                if time.monotonic() - published > max(every_s, 20 * cost):
                    before = time.monotonic()
                    self._publish(encoder_id)
                    published = time.monotonic()
                    cost = published - before

    def _record(self, job: Job, done: JobDone, frames: VideoFrames, encoder_id: int, *, coarse: bool) -> None:
        from vsearch.library import COARSE_FPS, MediaInfo, NewMoment
        from vsearch.models import plan_windows

        encoder = self._load()
        vectors, times = frames.result()
        windows = plan_windows(times, done.info.duration_ms, encoder.head.window_s, encoder.head.overlap)
        fps = COARSE_FPS if coarse else self.options.fps
        info = done.info
        media = MediaInfo(
            info.container,
            info.codec,
            info.width,
            info.height,
            info.rotation,
            info.duration_ms,
            info.avg_fps,
            info.start_ms,
        )
        stored = self.library.frame_store.put(
            job.fingerprint, encoder.backbone.identity, fps, vectors, times,
            {
                **asdict(media), "covered_ms": done.covered_ms, "size": job.files[0].size,
                "poster": done.poster_jpeg is not None,
            },
        )  # fmt: skip
        recorded = self.library.record_indexed(
            files=job.files,
            fingerprint=job.fingerprint,
            media=media,
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


def _check_same_head(known: EncoderInfo, checkpoint: Path) -> None:
    """A library keeps the head that it has until another is adopted."""
    from vsearch.models import read_card

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
