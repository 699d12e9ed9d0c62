"""Questions to a library, and the two notes that a query leaves: plain SQL that SQLite's own driver and SQLAlchemy
both run, so a query need not load the latter. Answers are plain records."""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.library.catalogue.connection import Ask
from vsearch.library.catalogue.rows import to_frames, to_video
from vsearch.library.catalogue.statements import (
    TOLD,
    VIDEO,
    encoder,
    frame_set_of,
    frame_sets,
    is_away,
    live_generation,
    moments,
    of_contents,
    pick,
    present,
    roots,
    rows_in,
    videos,
)
from vsearch.library.chance import read_neutral
from vsearch.library.files import disk_errors
from vsearch.library.frames import FrameStore
from vsearch.library.index import INDEX, MEND, damaged, open_index, part_files
from vsearch.library.place import absolute
from vsearch.library.sentences import packed, unpacked
from vsearch.records import (
    COARSE_FPS,
    FAILED,
    MISSING,
    PRESENT,
    EncoderInfo,
    FrameSet,
    FrameSetInfo,
    Generation,
    Moment,
    NeutralScores,
    Video,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

    from vsearch.library.index import IndexView


T = TypeVar("T")
INDEX_AGAIN = "run `vsearch index`"
_log = logging.getLogger(__name__)
_CACHED_TEXTS = 10_000
_warned: set[str] = set()  # what this process has reported


class _Snapshot:
    """A transaction under way, which knows what it was asked before. `strict`: what does not fit ends it."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self._known: dict[object, Sequence[Any]] = {}

    def begin(self, ask: Ask) -> None:
        self._ask = ask

    def ask(self, sql: str, **values: Any) -> Sequence[Any]:
        asked = sql, tuple(sorted(values.items()))
        if asked not in self._known:
            self._known[asked] = self._ask(sql, **values)
        return self._known[asked]


class Reading(ABC):
    """An open library that can be asked."""

    NOTE_PATIENCE_MS = 200  # a query does not wait for an indexing run to note what it found

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frame_store = FrameStore(path)
        self.damaged: set[str] = set()  # what was found damaged, and left out of an answer
        self._thread = threading.local()

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def of_one_state(self, question: Callable[[], T]) -> T:
        """What `question` gives: all that this thread asks in it is of one state of the catalogue, in one transaction.

        Files belong to a state, too: where they do not fit, or there is no answer, an indexing run may just have
        switched to another, so it is asked once more. It must not write here. Raises what `question` raises.
        """
        if self._snapshot is not None:
            return question()
        with contextlib.suppress(LibraryError), self._held(_Snapshot(strict=True)):
            return question()
        with self._held(_Snapshot(strict=False)):
            return question()

    @contextlib.contextmanager
    def _held(self, snapshot: _Snapshot) -> Iterator[None]:
        with self._transaction_for_asking() as ask:
            snapshot.begin(ask)
            self._thread.snapshot = snapshot
            try:
                yield
            finally:
                self._thread.snapshot = None

    @property
    def _snapshot(self) -> _Snapshot | None:
        return getattr(self._thread, "snapshot", None)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Ask]:
        """One consistent view of the catalogue; its complaints come out as LibraryError."""
        if self._snapshot is not None:
            yield self._snapshot.ask
        else:
            with self._transaction_for_asking() as ask:
                yield ask

    @abstractmethod
    def _transaction_for_asking(self) -> AbstractContextManager[Ask]: ...

    @abstractmethod
    def _noting(self, patience_ms: int) -> AbstractContextManager[Ask]:
        """All or nothing is written; waits so long for another process that is writing."""

    def live_generation(self) -> Generation | None:
        with self._asking() as ask:
            return live_generation(ask)

    def live_encoder(self) -> EncoderInfo | None:
        """The encoder that queries must use."""
        with self._asking() as ask:
            generation = live_generation(ask)
            return None if generation is None else encoder(ask, self.path, generation.encoder_id)

    def encoder(self, encoder_id: int) -> EncoderInfo:
        with self._asking() as ask:
            return encoder(ask, self.path, encoder_id)

    def open_live(self) -> IndexView:
        """The generation that answers, checked. Raises LibraryError when there is none or it is damaged.

        A query that loses the race to two switches looks again, once.
        """
        looked_at = None
        while True:
            generation = self.live_generation()
            if generation is None:
                raise LibraryError("This library holds no index yet: run `vsearch index FOLDER` first.")
            try:
                with disk_errors(self.path / INDEX):
                    return open_index(self.path, generation)
            except FileNotFoundError as error:
                if generation.id == looked_at:
                    raise damaged("its file is missing") from error
                looked_at = generation.id

    def index_stamp(self, generation: Generation) -> tuple[object, ...]:
        """Tells whether a generation opened before is still what lies on the disk: its files' sizes and times.

        Raises FileNotFoundError when one is gone.
        """
        parts = () if generation.base is None else part_files(generation.base)
        files = [generation.file, *(part.file for part in parts)]
        found = [(self.path / INDEX / file).stat() for file in files]
        return (generation, *((each.st_size, each.st_mtime_ns, each.st_ino) for each in found))

    def videos(self, *states: str) -> list[Video]:
        """Videos in the given states (all when none is given), in path order.

        Of those that are to be asked, a state that cannot be true is reported.
        """
        with self._asking() as ask:
            folders = roots(ask, self.path)
            found = videos(ask, folders, states)
            lost = states == PRESENT and ask(
                "SELECT 1 FROM frame_sets t WHERE NOT EXISTS (SELECT 1 FROM videos v WHERE v.fingerprint = t.fingerprint) "
                "LIMIT 1"
            )
            odd = rows_in(
                ask, VIDEO, "FROM videos t WHERE t.state", (FAILED, MISSING) if states == PRESENT else ()
            )
        if lost:
            self._report("The catalogue has stored frames of which it has no video", INDEX_AGAIN)
        for row in odd:
            if not is_away(row, folders):
                self._report(
                    f"{folders.path(row)} is there, but the catalogue has it as {row.state}", INDEX_AGAIN
                )
        return found

    def videos_of(self, ids: Sequence[int]) -> dict[int, Video]:
        """Videos by id; those that are not in the catalogue are left out."""
        with self._asking() as ask:
            folders = roots(ask, self.path)
            rows = rows_in(ask, VIDEO, "FROM videos t WHERE t.id", ids)
        return {row.id: to_video(row, folders) for row in rows}

    def find_video(self, text: str, path: Path | None = None) -> Video:
        """One video by path, or by an end of its path that no other has (`clips/dog.mp4`).

        `path`: what `text` means where the question was asked; without, here. Raises LibraryError when there is
        none, or several.
        """
        return pick(self.videos(), text, path or absolute(text))

    def moments(self, ids: Sequence[int]) -> list[Moment]:
        """Moments by id, in the given order; left out when gone or when their video is not there.

        What is left out because catalogue and files contradict each other is reported.
        """
        with self._asking() as ask:
            found, unfit, astray = moments(ask, roots(ask, self.path), ids, self._theirs)
        for video in unfit:
            self._report_moments(video)
        if astray:
            self._report("The search index has moments of which no video is there; they are not shown")
        return found

    def _theirs(self, row: Any, of: Sequence[Video]) -> bool:
        """Whether a sound frame file is of the content that the catalogue has it for, as far as it says."""
        said = self.frame_store.told(row.file)
        same = all(said.get(key, getattr(row, key)) == getattr(row, key) for key in TOLD)
        if row.fps != COARSE_FPS:  # a first look's length may be another than that found later
            lengths = ((video.media.duration_ms if video.media else None) for video in of)
            same = same and all(said.get("duration_ms", ms) == ms for ms in lengths)
        if same and all(said.get("size", video.size) == video.size for video in of):
            return True
        try:
            self.frame_store.read(to_frames(row))
        except DamagedFramesError:
            return True  # it says nothing of the row
        return False

    def frames(self, frame_set_id: int) -> FrameSet:
        """Stored frames, memory-mapped. Raises DamagedFramesError when they are missing or damaged, or of another
        content than the catalogue has them for."""
        with self._asking() as ask:
            stored = frame_sets(ask, [frame_set_id])
            if not stored:
                raise LibraryError("These frames have been replaced by a newer indexing: ask again.")
            of = present(of_contents(ask, [stored[0].fingerprint]), roots(ask, self.path))
        found = self.frame_store.read(to_frames(stored[0]))
        if not self._theirs(stored[0], of[stored[0].fingerprint]):
            raise DamagedFramesError(
                "The catalogue has stored frames for another video than theirs: run `vsearch verify --repair`."
            )
        return found

    def sound_frames(self, frame_set_ids: Iterable[int]) -> dict[int, FrameSet]:
        """Stored frames of several sets by id, memory-mapped; those missing or damaged are reported and left out."""
        with self._asking() as ask:
            stored = frame_sets(ask, sorted(set(frame_set_ids), key=str))
        found = {}
        for row in stored:
            try:
                found[row.id] = self.frame_store.read(to_frames(row))
            except DamagedFramesError:
                self.report_frames(row.fingerprint)
        return found

    def report_frames(self, fingerprint: str) -> None:
        """Say, once, that a content's stored frames are damaged."""
        with self._asking() as ask:
            of = rows_in(ask, VIDEO, "FROM videos t WHERE t.fingerprint", [fingerprint])
            folders = roots(ask, self.path)
        names = sorted(str(folders.path(row)) for row in of) or ["a video"]
        self._report(f"The stored frames of {names[0]} are missing or damaged and are not used")

    def report_moments(self, moment: Moment) -> None:
        """Say, once, that a video has moments that are not those of its frames."""
        self._report_moments(moment.videos[0])

    def _report_moments(self, video: Video) -> None:
        self._report(f"Moments of {video.path} do not fit its frames and are not shown")

    def report_changed(self, videos: Iterable[Video]) -> None:
        """Say, once, of files that are there that they are not of the size that was indexed: another content. And of
        names that none can have."""
        for video in videos:
            if ".." in video.path.parts:
                self._report(f"The catalogue has a video under the impossible name {video.path}")
            with contextlib.suppress(OSError):
                if video.path.stat().st_size != video.size:
                    self._report(f"{video.path} has changed since it was indexed", INDEX_AGAIN)

    def _report(self, what: str, way: str = MEND) -> None:
        if self._snapshot is not None and self._snapshot.strict:
            raise LibraryError(what)
        self.damaged.add(what)
        if what not in _warned:
            _warned.add(what)
            _log.warning("%s: %s.", what, way)

    def frame_set_of(self, video: Video, backbone: str) -> FrameSetInfo | None:
        """The current frame set of a video by a backbone."""
        with self._asking() as ask:
            return frame_set_of(ask, video.fingerprint, backbone)

    def coarse_contents(self) -> set[str]:
        """Fingerprints of videos of which only the first pass has been: their current frames are keyframes."""
        live = self.live_encoder()
        with self._asking() as ask:
            found = ask(
                "SELECT t.fingerprint FROM frame_sets t WHERE t.fps = :coarse AND :backbone IN ('', t.backbone) AND NOT EXISTS "
                "(SELECT 1 FROM frame_sets n WHERE n.fingerprint = t.fingerprint AND n.backbone = t.backbone AND n.id > t.id)",
                coarse=COARSE_FPS, backbone="" if live is None else live.backbone,
            )  # fmt: skip
        return {row[0] for row in found}

    def neutral_scores(self, encoder: EncoderInfo) -> NeutralScores | None:
        """What the library scores for sentences that have nothing to do with it; None when that is not known (yet)."""
        try:
            return read_neutral(self.path, encoder.identity)
        except ValueError:
            self._report("What says how likely an answer is, is damaged", INDEX_AGAIN)
            return None

    def cached_text(self, encoder_id: int, text: str) -> npt.NDArray[np.float32] | None:
        """The vector (D,) of a sentence asked before; None also when the stored one is damaged."""
        with self._asking() as ask:
            found = ask(
                "SELECT CAST(vector AS BLOB) FROM text_vectors WHERE encoder_id = :encoder_id AND text = :text",
                encoder_id=encoder_id,
                text=text,
            )
        return unpacked(encoder_id, text, found[0][0]) if found else None

    def cache_text(
        self,
        encoder_id: int,
        text: str,
        vector: npt.NDArray[np.float32],
        patience_ms: int = NOTE_PATIENCE_MS,
    ) -> bool:
        """Remember the vector of a sentence; the oldest are dropped. A cache that cannot be written is no
        reason to fail a query. Whether it is remembered."""
        values = {"encoder_id": encoder_id, "text": text}
        try:
            with self._noting(patience_ms) as ask:
                ask("DELETE FROM text_vectors WHERE encoder_id = :encoder_id AND text = :text", **values)
                ask(
                    "INSERT INTO text_vectors (encoder_id, text, vector) VALUES (:encoder_id, :text, :vector)",
                    **values,
                    vector=packed(encoder_id, text, vector),
                )
                ask(
                    "DELETE FROM text_vectors WHERE id <= (SELECT max(id) FROM text_vectors) - :keep",
                    keep=_CACHED_TEXTS,
                )
        except LibraryError as error:
            _log.debug("query vector not cached: %s", error)
            return False
        return True

    def remember(self, key: str, value: str, patience_ms: int = NOTE_PATIENCE_MS) -> bool:
        """Keep a short text between commands; like the text cache, never a reason to fail. Whether it is kept."""
        try:
            with self._noting(patience_ms) as ask:
                ask(
                    "INSERT INTO meta (key, value) VALUES (:key, :value) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    key=f"note:{key}",
                    value=value,
                )
        except LibraryError as error:
            _log.debug("%s not remembered: %s", key, error)
            return False
        return True

    def recall(self, key: str) -> str | None:
        with self._asking() as ask:
            found = ask("SELECT value FROM meta WHERE key = :key", key=f"note:{key}")
        return found[0][0] if found else None
