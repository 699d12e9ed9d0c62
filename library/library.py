"""An open library: the one object that the other rooms hold."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from vsearch.errors import LibraryError
from vsearch.library import chance, heads, posters, vocabularies
from vsearch.library.catalogue import (
    Ask,
    Catalogue,
    EncoderRow,
    FrameSetRow,
    GarbageRow,
    GenerationRow,
    MetaRow,
    Reading,
    Roots,
    VideoRow,
    asking,
    connect_sqlite,
    database_errors,
    migrations,
    queries,
    recording,
    statements,
    to_encoder,
    to_generation,
)
from vsearch.library.checks import BACKUPS, back_up
from vsearch.library.files import TEMPORARY, abandoned, delete, disk_errors
from vsearch.library.frames import FRAMES
from vsearch.library.index import INDEX
from vsearch.library.index import publish as publishing
from vsearch.library.lock import WriterLock
from vsearch.library.place import CATALOGUE
from vsearch.library.plan import Plan, Scan, make_plan
from vsearch.records import (
    Each,
    Embed,
    EncoderInfo,
    FoundFile,
    FrameSetInfo,
    Generation,
    LibrarySummary,
    MediaInfo,
    NeutralScores,
    NewMoment,
    Recorded,
    StoredFrames,
    Video,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.library.checks import Makers, Report

_OWN = (
    "catalogue",
    "index",
    "frames",
    "thumbs",
    heads.HEADS,
    vocabularies.VOCABULARIES,
    chance.NEUTRAL,
    TEMPORARY,
)  # how names in a library's folder begin


class Library(Reading):
    """Catalogue, frame vectors and index in one folder. Use `Library.open` in a `with` block.

    Reading needs no lock and may go on beside a writer. Every writing method takes the writer's lock for its
    duration; an indexing run holds it throughout with `writing()`.
    """

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        super().__init__(path)
        self._catalogue = catalogue
        self._lock = WriterLock(path / "index.lock")
        self._mutex = threading.RLock()  # the file lock keeps out other processes, this one other threads
        self._writers = 0

    @classmethod
    def open(cls, path: Path, *, create: bool = False, url: str | None = None) -> Library:
        """Open the library in the folder `path`, or make it there. `url`: an SQLAlchemy URL of a catalogue
        kept elsewhere.

        Raises LibraryError when there is none, when the folder is something else's, when it was made by a
        newer vsearch, or when it cannot be read.
        """
        path = path.expanduser().resolve()
        if url is None and not _has_content(path / CATALOGUE):
            _check_lost(path)
        if not path.is_dir() or (url is None and not (path / CATALOGUE).is_file()):
            _check_new(path, create)
        with disk_errors(path), database_errors(path):
            if create and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=0o700, exist_ok=True)
            with contextlib.ExitStack() as alone:
                new = url is None and create and not _has_content(path / CATALOGUE)
                if new:
                    alone.enter_context(_alone(path))
                engine = connect_sqlite(path / CATALOGUE) if url is None else create_engine(url)
                try:
                    found = migrations.schema_of(engine)
                    if found is None and not create:
                        raise _none_here(path)
                    if found is not None:
                        migrations.check(found, path)
                    if found != migrations.latest_schema():
                        if url is None and not new:
                            alone.enter_context(_alone(path))
                        found = migrations.schema_of(engine)  # another may have been quicker
                        if found is None:
                            migrations.create(engine)
                        else:
                            migrations.migrate(engine, found, path)
                except BaseException:
                    engine.dispose()
                    raise
        return cls(path, Catalogue(engine, path))

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a library in the folder."""
        return (path / CATALOGUE).is_file()

    def close(self) -> None:
        self._lock.release()
        self._catalogue.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock for a run; may be nested. At its end the catalogue is backed up, if anything has
        changed. Raises LibraryError when another process holds the lock."""
        with self._writing():
            try:
                yield
            finally:
                if self._writers == 1 and self._catalogue.changed and Library.exists(self.path):
                    self._catalogue.changed = False
                    back_up(self.path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writer's lock; may be nested."""
        with self._mutex:
            if self._writers == 0:
                self._lock.acquire()
            self._writers += 1
            try:
                if self._writers == 1:
                    self._sweep()
                yield
            finally:
                self._writers -= 1
                if self._writers == 0:
                    self._lock.release()

    # Indexing

    def plan(
        self,
        scan: Scan,
        fingerprint: Callable[[Path], str],
        backbone: str,
        fps: float,
        *,
        retry_failed: bool = False,
        hashed: Callable[[int, int], None] = lambda done, count: None,
    ) -> Plan:
        """What an indexing run has to do. Changes nothing; see planning.py."""
        with self._catalogue.read() as session:
            known = statements.videos(asking(session), self._roots(session))
            stored = queries.stored_contents(session, backbone, fps)
        return make_plan(
            scan, known, stored, fingerprint, retry_failed=retry_failed, gone=_lost_its_file, empty=_empty,
            absent=_absent, hashed=hashed,
        )  # fmt: skip

    def sampling_rate(self, backbone: str) -> float | None:
        """Sampled frames a second of this library; None when it has none yet."""
        with self._catalogue.read() as session:
            return queries.sampling_rate(session, backbone)

    def note_sampling_rate(self, fps: float, *, instead_of: float | None = None) -> None:
        """From now on this is the library's rate. `instead_of`: the one before, where this is another."""
        changed = "" if instead_of in (None, fps) else f"{queries.RESAMPLED}{instead_of!r}"
        with self.writing(), self._catalogue.write() as session:
            known = session.get(MetaRow, queries.SAMPLING_RATE)
            if changed or known is None or known.value.partition(queries.RESAMPLED)[0] != repr(fps):
                session.merge(MetaRow(key=queries.SAMPLING_RATE, value=f"{fps!r}{changed}"))

    def sampled_otherwise(self, backbone: str, fps: float) -> tuple[int, int]:
        """Videos that are there with frames at another rate: how many, how long together in ms."""
        with self._catalogue.read() as session:
            return queries.sampled_otherwise(session, backbone, fps)

    def contents_with_frames(self, backbone: str) -> set[str]:
        """Fingerprints that have frames of a backbone, at any rate."""
        with self._catalogue.read() as session:
            return queries.contents_with_frames(session, backbone)

    def apply_plan(self, plan: Plan) -> None:
        """Do everything of a plan that needs no decoding, in one transaction."""
        with self._writing(), self._catalogue.write() as session:
            recording.apply_plan(session, self._roots(session), plan)

    def keep_head(self, files: Sequence[Path]) -> str:
        """Copy a trained head's files into the library; gives their folder relative to it, for the encoder's spec:
        `spec["head"]["checkpoint"]`, which comes back as an absolute path."""
        with self._writing():
            return heads.keep(self.path, files)

    def register_encoder(self, identity: str, backbone: str, head: str, spec: Mapping[str, object]) -> int:
        """The id of an encoder, recorded at its first use. `spec` must survive JSON."""
        with self._writing(), self._catalogue.write() as session:
            row = session.scalars(select(EncoderRow).where(EncoderRow.identity == identity)).first()
            if row is None:
                row = EncoderRow(identity=identity, backbone=backbone, head=head, spec="")
                session.add(row)
            row.spec = json.dumps(spec)
            session.flush()
            return row.id

    def record_indexed(
        self,
        *,
        files: Sequence[FoundFile],
        fingerprint: str,
        media: MediaInfo,
        covered_ms: int,
        frames: StoredFrames,
        encoder_id: int,
        moments: Sequence[NewMoment],
        reason: str | None = None,
        poster: bytes | None = None,
    ) -> Recorded:
        """Enter a decoded content, with the frames that `frame_store.put` wrote: all of it or nothing.

        `reason`, when given, says why only `covered_ms` of it could be decoded, and makes it `partial`.
        `poster`: a JPEG. Coarse frames (`COARSE_FPS`) are a first look, which those recorded next replace.
        Searchable from the next `publish_update` on.
        """
        with self._writing():
            with disk_errors(self.path):
                if not self.frame_store.path(frames.name).is_file():
                    raise LibraryError("Another vsearch swept these frames away: run `vsearch index` again.")
            if poster is not None:
                posters.write_poster(self.path, fingerprint, poster)
            with self._catalogue.write() as session:
                return recording.record_indexed(
                    session,
                    self._roots(session),
                    files=files,
                    fingerprint=fingerprint,
                    media=media,
                    covered_ms=covered_ms,
                    reason=reason,
                    frames=frames,
                    encoder_id=encoder_id,
                    moments=moments,
                )

    def record_failed(self, files: Sequence[FoundFile], fingerprint: str | None, reason: str) -> None:
        """Enter files that could not be decoded, with the reason.

        fingerprint None: not even read; a known video then stays as it was, with its frames.
        """
        with self._writing(), self._catalogue.write() as session:
            recording.record_failed(session, self._roots(session), files, fingerprint, reason)

    def frame_sets_without_moments(self, encoder_id: int) -> list[FrameSetInfo]:
        """Current frame sets of the encoder's backbone that it has no moments for, or not all: a new head starts here."""
        with self._catalogue.read() as session:
            return queries.frame_sets_without_moments(session, encoder_id)

    def add_moments(
        self, encoder_id: int, moments: Mapping[int, Sequence[NewMoment]]
    ) -> dict[int, tuple[int, ...]]:
        """Record an encoder's moments of stored frame sets (by id), in place of any before; gives the ids in the given
        order."""
        with self._writing(), self._catalogue.write() as session:
            return recording.add_moments(session, encoder_id, moments)

    # The index

    def publish(
        self, encoder_id: int, ids: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]
    ) -> Generation:
        """Switch to a new generation of exactly these vectors: (N,) moment ids, (N, D) unit vectors."""
        with self._writing():
            return publishing.publish(
                self._catalogue, self.path, encoder_id, [(ids, vectors)], None, carry_over=False
            )

    def publish_update(
        self,
        encoder_id: int,
        new_vectors: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = (),
        embed: Embed | None = None,
        *,
        carry_over: bool = True,
        each: Each = map,
    ) -> Generation:
        """Switch to a new generation of all moments whose videos are there.

        Vectors come from `new_vectors` ((n,) ids, (n, D) unit vectors), else from the encoder's newest
        generation, else from `embed(frame vectors, times_ms, moments)`. `carry_over=False` rebuilds. Gives
        the live generation back when nothing changed. The former one stays on disk for `switch`. `each` applies
        `embed` to the videos: `map`, or what does so on several threads.
        """
        with self._writing():
            return publishing.publish(
                self._catalogue, self.path, encoder_id, new_vectors, embed, carry_over=carry_over, each=each
            )

    def up_to_date(self, encoder_id: int) -> bool:
        """Whether the live generation is of this encoder, whole to the last byte, and has exactly the moments that
        it should have."""
        with self._catalogue.read() as session:
            return publishing.up_to_date(session, self.path, encoder_id, full=True)

    def generations(self) -> list[Generation]:
        """All kept generations, newest first."""
        with self._catalogue.read() as session:
            rows = session.scalars(select(GenerationRow).order_by(GenerationRow.id.desc()))
            return [to_generation(row) for row in rows]

    def switch(self, generation_id: int) -> Generation:
        """Let a kept generation answer (roll back, or forward again)."""
        with self._writing():
            return publishing.switch(self._catalogue, self.path, generation_id)

    def keep_neutral(self, encoder: EncoderInfo, scores: NeutralScores) -> None:
        """Replace what `neutral_scores` gives."""
        with self._writing():
            chance.write_neutral(self.path, encoder.identity, scores)

    # Questions

    def encoders(self) -> list[EncoderInfo]:
        """All encoders ever used here, oldest first."""
        with self._catalogue.read() as session:
            rows = session.scalars(select(EncoderRow).order_by(EncoderRow.id))
            return [to_encoder(row, self.path) for row in rows]

    def answering_encoder(self) -> EncoderInfo | None:
        """The encoder that answers, or would if the catalogue said so: that of the newest generation, else the newest."""
        with self._catalogue.read() as session:
            live = publishing.live_row(session)
            newest = select(GenerationRow.encoder_id).order_by(GenerationRow.id.desc()).limit(1)
            id = publishing.encoder_of(session, live) if live is not None else session.scalar(newest)
            row = session.get(EncoderRow, id) if id is not None else None
            row = row or session.scalars(select(EncoderRow).order_by(EncoderRow.id.desc())).first()
            return None if row is None else to_encoder(row, self.path)

    def poster(self, fingerprint: str) -> Path | None:
        """The JPEG poster of a content."""
        path = self.path / posters.thumb_name(fingerprint)
        return path if path.is_file() else None

    def summary(self) -> LibrarySummary:
        with self._catalogue.read() as session:
            return queries.summary(session, self.path)

    # Upkeep

    def forget(self, videos: Iterable[Video]) -> int:
        """Drop videos, and the frames, moments and posters that no other file needs; the index loses them at
        once. The files themselves are not touched. Gives the number of videos dropped."""
        with self.writing():
            with self._catalogue.write() as session:
                count = recording.forget(session, [video.id for video in videos])
                live = publishing.live_row(session)
            if live is not None:
                self.publish_update(live.encoder_id)
            self._sweep()
            return count

    def forget_models(self, encoders: Iterable[EncoderInfo]) -> None:
        """Drop what is kept of these encoders' backbones, none of which may be that of the one that answers."""
        chosen = list(encoders)
        with self.writing():
            live = self.live_encoder()
            if live is not None and live.backbone in {encoder.backbone for encoder in chosen}:
                raise LibraryError(
                    f"{live.spec['model']} answers in this library; change to another first: vsearch reindex --model NAME"
                )
            with self._catalogue.write() as session:
                publishing.forget_backbones(session, {encoder.backbone for encoder in chosen})
            for encoder in chosen:
                delete(chance.neutral_file(self.path, encoder.identity))
            self._sweep()

    def verify(
        self, *, repair: bool = False, embed: Embed | None = None, makers: Makers | None = None
    ) -> Report:
        """Check the whole library, every byte of it, and mend what can be mended; see verify.py.

        `makers`: what makes again what was lost; `embed` alone, that of `answering_encoder()`, rebuilds the index.
        """
        from vsearch.library.checks import Makers
        from vsearch.library.checks.verify import verify

        makers = makers or Makers(embed=embed)
        with self.writing() if repair else contextlib.nullcontext():
            return verify(self._catalogue, self.path, self.leftovers, repair=repair, makers=makers)

    @contextlib.contextmanager
    def _transaction_for_asking(self) -> Iterator[Ask]:
        with self._catalogue.read() as session:
            yield asking(session)

    @contextlib.contextmanager
    def _noting(self, patience_ms: int) -> Iterator[Ask]:
        with self._catalogue.write(patience_ms, note=True) as session:
            yield asking(session)

    def _roots(self, session: Session) -> Roots:
        return Roots(session, self.path)

    def _sweep(self) -> None:
        """Delete what earlier runs left: garbage of committed changes, and temporary files of killed ones."""
        for leftover in self.leftovers():
            delete(leftover)
        with self._catalogue.read() as session:
            rows = list(session.scalars(select(GarbageRow.file)))
            if not rows:
                return
            needed = {f"frames/{name[:2]}/{name}.npy" for name in session.scalars(select(FrameSetRow.file))}
            prints = session.scalars(select(VideoRow.fingerprint).distinct())
            needed |= {posters.thumb_name(each) for each in prints if each is not None}
            for generation in session.scalars(select(GenerationRow)):
                needed |= publishing.index_files(generation).keys()
        for name in rows:  # committed and synced, so no power cut brings a row back that needs the file
            if name not in needed and _is_own(name):
                delete(self.path / name)
        with self._catalogue.write() as session:
            session.query(GarbageRow).delete()

    def leftovers(self) -> list[Path]:
        """Temporary files of killed runs."""
        folders = [
            self.path,
            self.path / "index",
            *(self.path / "thumbs").glob("??"),
            *(self.path / heads.HEADS).glob("*"),
            self.path / chance.NEUTRAL,
        ]
        found = [path for folder in folders for path in folder.glob(f"{TEMPORARY}*")]
        return sorted([*filter(abandoned, found), *self.frame_store.leftovers()])


_PATIENCE_S = 5.0  # for another process that makes the library or brings it up to date


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the writer's lock while the schema is made. Raises LibraryError when a run holds it for longer."""
    lock = WriterLock(path / "index.lock")
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            lock.acquire()
            break
        except LibraryError as error:
            if not lock.busy:
                raise
            if time.monotonic() > until:
                raise LibraryError(
                    f"The library at {path} must first be brought to this vsearch's form, and that is not possible "
                    f"now: {error}"
                ) from error
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def _is_own(name: str) -> bool:
    """Whether a name below the library can be of a file that it makes and gives up."""
    path = PurePath(name)
    return path.parts[:1] in ((FRAMES,), (INDEX,), (posters.THUMBS,)) and ".." not in path.parts


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0 and not file.is_dir()
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_new(path: Path, create: bool) -> None:
    if path.exists() and not path.is_dir():
        raise LibraryError(f"{path} is a file, not a library: choose a folder with --library.")
    names = os.listdir(path) if path.is_dir() else []
    foreign = [name for name in names if not name.startswith(_OWN)]
    if foreign:
        raise LibraryError(
            f"{path} is not a vsearch library and not empty: choose another folder with --library, "
            f"for example {path / '.vsearch'}."
        )
    if not create:
        raise _none_here(path)


def _check_lost(path: Path) -> None:
    """Where a catalogue was, none is made anew: every video would be decoded again."""
    if (path / CATALOGUE).is_dir():
        what = "A folder lies where"
    elif any(path.glob(BACKUPS)):
        what = "Nothing is left where"
    else:
        return
    raise LibraryError(
        f"{what} the catalogue of {path} belongs: run `vsearch verify --repair`, which restores it from its backup "
        "where there is one; else delete the folder and run `vsearch index` again."
    )


def _none_here(path: Path) -> LibraryError:
    return LibraryError(f"There is no library at {path}: run `vsearch index FOLDER` first.")


def _lost_its_file(video: Video) -> bool:
    """Gone for good, as far as one can see: its folder's disk is there, the file is not."""
    return not _empty(video.root) and not os.path.lexists(video.path)


def _absent(path: Path) -> bool:
    return not os.path.lexists(path)


def _empty(folder: Path) -> bool:
    """Absent or without content; a single file given as a folder to scan is neither."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except NotADirectoryError:
        return False
    except OSError:
        return True
