"""`verify` with everything that a repair may need: the head for vectors, windows, a decoder for posters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import VsearchError
from vsearch.indexer.fingerprint import fingerprint
from vsearch.indexer.moments import embedder, windows_of

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo, Library
    from vsearch.library.verify import Report


def verify_library(
    path: Path, *, repair: bool, progress: Callable[[int, int], None] = lambda done, of: None
) -> Report:
    """Check the library at `path`, and with `repair` mend it; a damaged catalogue, too, where a backup is kept.

    Raises LibraryError when there is none, or when it is in use by another run and is to be mended.
    """
    from vsearch.library import Library
    from vsearch.library.location import CATALOGUE
    from vsearch.library.lock import WriterLock
    from vsearch.library.restore import catalogue_faults, mend_catalogue
    from vsearch.library.verify import Makers, Problem, Report

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
    from vsearch.indexer.decode import DecodeOptions
    from vsearch.indexer.decode_pool import DecodeJob, DecodePool, JobDone

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
