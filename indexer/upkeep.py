"""`verify` with everything that a repair may need: the head for vectors, windows, a decoder for posters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import DamagedFramesError, ModelError, VsearchError
from vsearch.indexer.fingerprint import fingerprint

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.library.checks import Report
    from vsearch.models import Encoder, TextEncoder
    from vsearch.records import EncoderInfo, NewMoment


def register(library: Library, encoder: Encoder) -> int:
    """The encoder's id in the library, which gets a copy of a trained head."""
    return register_head(library, encoder.backbone.identity, encoder.head.identity, encoder.spec())


def register_head(library: Library, backbone: str, head: str, spec: dict[str, Any]) -> int:
    """The same for an encoder with these identities and that spec."""
    if "checkpoint" in spec["head"]:
        from vsearch.models.recipes import CARD, WEIGHTS

        folder = Path(spec["head"]["checkpoint"])
        spec["head"]["checkpoint"] = library.keep_head([folder / CARD, folder / WEIGHTS])
    return library.register_encoder(f"{backbone}+{head}", backbone, head, spec)


def renew_moments(library: Library, encoder_id: int) -> int:
    """Moments for stored frames that have none of this encoder, or not all: after a repair or damage, or with a new
    head. Their number."""
    encoder = library.encoder(encoder_id)
    moments = {}
    for frame_set in library.frame_sets_without_moments(encoder_id):
        try:
            times = library.frame_store.read(frame_set.frames).times_ms
        except DamagedFramesError:  # costs that video alone
            library.report_frames(frame_set.frames.fingerprint)
            continue
        moments[frame_set.id] = windows_of(encoder, times, frame_set.duration_ms)
    if moments:
        library.add_moments(encoder_id, moments)
    return sum(map(len, moments.values()))


def score_neutral(
    library: Library,
    encoder_id: int,
    encoder: TextEncoder | None = None,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Bring up to date what the library scores for sentences that have nothing to do with it; words come from that.

    `encoder`: the library's, where it is at hand; else it is loaded if the sentences must be encoded. `begun` hears
    that there is something to do. Raises ModelError
    when it cannot be had.
    """
    from vsearch.models.neutral import neutral_scores, neutral_sentences, neutral_vectors

    live = library.encoder(encoder_id)
    former = library.neutral_scores(live)
    if former is not None and len(former.vectors) != len(neutral_sentences()):
        former = None
    if library.live_generation() is None:
        return
    view = library.open_live()
    if not view.generation.count or (former is not None and np.array_equal(former.ids, np.sort(view.ids))):
        return
    begun()
    if former is not None:
        vectors = former.vectors
    else:
        from vsearch.models import load_encoder

        reader = encoder or load_encoder(live.spec)
        if reader.identity != live.identity:
            raise ModelError(
                f"this installation has {reader.identity}, the library was indexed with {live.identity}"
            )
        vectors = neutral_vectors(reader)
    library.keep_neutral(live, neutral_scores(view.ids, view.vectors(), vectors, former))


def windows_of(encoder: EncoderInfo, times_ms: npt.NDArray[np.int64], duration_ms: int) -> list[NewMoment]:
    """The moments that an encoder has of frames at these times (T,) of a video this long."""
    from vsearch.models import plan_windows
    from vsearch.records import NewMoment

    head = encoder.spec["head"]
    windows = plan_windows(np.ascontiguousarray(times_ms), duration_ms, head["window_s"], head["overlap"])
    return [NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows]


def embedder(library: Library, encoder_id: int) -> Callable[..., npt.NDArray[np.float32]]:
    """Moment vectors from stored frames by an encoder's head: (vectors, times_ms, moments) -> (M, D).

    The head is loaded at the first use: there may be nothing to embed, and a trained one brings its text tower.
    """
    from vsearch.models import load_head

    spec = library.encoder(encoder_id).spec["head"]

    def embed(vectors: Any, times_ms: Any, moments: Any) -> npt.NDArray[np.float32]:
        return load_head(spec).embed_windows(vectors, times_ms, moments)

    return embed


def verify_library(
    path: Path, *, repair: bool, progress: Callable[[int, int], None] = lambda done, of: None
) -> Report:
    """Check the library at `path`, and with `repair` mend it; a damaged catalogue, too, where a backup is kept.

    Raises LibraryError when there is none, or when it is in use by another run and is to be mended.
    """
    from vsearch.library import CATALOGUE, Library, WriterLock
    from vsearch.library.checks import Makers, Problem, Report, catalogue_faults, mend_catalogue

    first: list[Problem] = []
    faults = catalogue_faults(path / CATALOGUE)
    if faults:
        done = None
        if repair:
            lock = WriterLock(path / "index.lock")
            lock.acquire()
            try:
                done = mend_catalogue(path)
            finally:
                lock.release()
        way = "" if done or not repair else ": there is no backup to restore"
        first.append(Problem(f"The catalogue is damaged ({'; '.join(faults[:3])}){way}", done))
        if done is None:
            return Report(tuple(first), ())
    with Library.open(path) as library:
        makers = Makers(
            embed=_embed(library),
            windows=windows_of,
            fingerprint=fingerprint,
            poster=poster_of,
            sound_spec=sound_spec,
            spec=plain_spec,
            progress=progress,
        )
        report = library.verify(repair=repair, makers=makers)
    return Report((*first, *report.problems), report.notes)


def sound_spec(encoder: EncoderInfo) -> bool:
    """Whether a description is that of the encoder it stands at."""
    from vsearch.models import load_head

    spec = encoder.spec
    try:
        head = spec["head"]
        told = head["identity"] if "checkpoint" in head else load_head(head).identity
        float(head["window_s"]), float(head["overlap"])
        same = spec.get("backbone", encoder.backbone) == encoder.backbone or "checkpoint" in head
        return bool(told == encoder.head and same and isinstance(spec["model"], str))
    except (VsearchError, LookupError, TypeError, ValueError, AttributeError):
        return False


def plain_spec(backbone: str, head: str) -> dict[str, Any] | None:
    """The description of a plain encoder, from the names of its parts; None when this installation has no such."""
    from vsearch.models import Encoder, ZeroShotHead, load_backbone

    if head != ZeroShotHead().identity:
        return None
    try:
        found = Encoder(load_backbone(backbone.rpartition("@")[0], "cpu"), ZeroShotHead())
    except VsearchError:
        return None
    return found.spec() if found.backbone.identity == backbone else None


def poster_of(path: Path) -> bytes | None:
    """A video file's JPEG poster; None when nothing of it can be decoded."""
    from vsearch.indexer.decode import DecodeJob, DecodeOptions, DecodePool, JobDone

    options = DecodeOptions(keyframes_every_s=4.0)
    with DecodePool(options, 1) as pool:
        for event in pool.run([DecodeJob(0, path)]):
            if isinstance(event, JobDone):
                return event.poster_jpeg
    return None


def _embed(library: Library) -> Callable[..., Any]:
    """As `embedder`, of the encoder that answers; it is looked up at the first use, when its description is mended."""
    made: list[Callable[..., Any]] = []

    def embed(vectors: Any, times_ms: Any, moments: Any) -> Any:
        if not made:
            answering = library.answering_encoder()
            assert answering is not None
            made.append(embedder(library, answering.id))
        return made[0](vectors, times_ms, moments)

    return embed
