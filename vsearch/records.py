"""What the library hands out and takes in: plain frozen records, no database objects.

Times are milliseconds of the video (true presentation times), sizes are bytes, moments of recording are
Unix seconds. Paths are absolute; a name that is not valid UTF-8 survives as `os.fsdecode` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INDEXED, PARTIAL, FAILED, MISSING = "indexed", "partial", "failed", "missing"
COARSE_FPS = 0.0  # in a frame set: keyframes alone, recorded first and replaced by all samples later
PRESENT = (INDEXED, PARTIAL)  # states whose moments are searchable


@dataclass(frozen=True)
class FoundFile:
    """A file as the scanner saw it. `path` is absolute, below a scanned folder given as its real path."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class MediaInfo:
    """What probing a video told. Width and height in pixels as shown: pixel shape and rotation applied.

    `rotation`: degrees clockwise that are applied to the stored picture. `duration_ms`: of the whole file as its
    container declares it, or as far as was decoded where it declares none. `start_ms`: the time stamp in the file that
    is 0:00, which a browser does not take off; None: indexed before that was noted.
    """

    container: str
    codec: str
    width: int
    height: int
    rotation: int
    duration_ms: int
    avg_fps: float
    start_ms: int | None = None


MEDIA = tuple(
    each.name for each in fields(MediaInfo)
)  # what the catalogue keeps of each video, and a frame file says


@dataclass(frozen=True)
class Video:
    """One source file. `attempts` counts decodings at full rate; 0 means that it waits for its turn."""

    id: int
    path: Path
    root: Path
    size: int
    mtime_ns: int
    fingerprint: str | None
    state: str
    reason: str | None
    media: MediaInfo | None
    covered_ms: int
    added_at: int
    attempts: int


@dataclass(frozen=True)
class EncoderInfo:
    """An encoder that the library knows. `spec` is enough to load it again, or to refuse."""

    id: int
    identity: str
    backbone: str
    head: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class StoredFrames:
    """A frame file on disk that may not be in the catalogue yet. `name` is the SHA-256 of its bytes."""

    name: str
    fingerprint: str
    backbone: str
    fps: float
    count: int
    dim: int
    bytes: int

    @property
    def coarse(self) -> bool:
        """Whether these are keyframes alone, from the first pass over a video."""
        return self.fps == COARSE_FPS


@dataclass(frozen=True)
class FrameSetInfo:
    """A frame set of the catalogue. `duration_ms` is that of its video."""

    id: int
    frames: StoredFrames
    duration_ms: int


@dataclass(frozen=True)
class FrameSet:
    """Stored frames, memory-mapped: times_ms (T,) int64 ascending, vectors (T, D) float16, not normalised."""

    times_ms: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]


@dataclass(frozen=True)
class NewMoment:
    """A time window and its frames `first_frame:last_frame` (last exclusive) of a frame set."""

    start_ms: int
    end_ms: int
    first_frame: int
    last_frame: int


@dataclass(frozen=True)
class Moment(NewMoment):
    """A recorded moment. `id` is its vector's id in the index and is never given again.

    `videos` are the present files with this content, in path order; several when a file was copied.
    `coarse`: made from keyframes alone, until the run at full rate has reached the video.
    """

    id: int
    frame_set_id: int
    fingerprint: str
    videos: tuple[Video, ...] = ()
    coarse: bool = False


@dataclass(frozen=True)
class Recorded:
    """What `record_indexed` made: one video a file, one moment id a given moment, in the given order."""

    video_ids: tuple[int, ...]
    frame_set_id: int
    moment_ids: tuple[int, ...]


@dataclass(frozen=True)
class PartFile:
    """A file of the index: `sha256` of the whole, `sample` of some blocks of it."""

    file: str
    bytes: int
    sha256: str
    sample: str


@dataclass(frozen=True)
class Effort:
    """Search so many lists, compare so many candidates exactly, where the query's score with the nearest list's
    centre is `above`. probes 0: compare every vector."""

    above: float
    probes: int
    candidates: int


@dataclass(frozen=True)
class IndexBase:
    """The compressed part of a large library's index; see compressed.py. Generations share it."""

    count: int  # rows, those that left the library (`gone`) among them
    codes: PartFile
    rows: PartFile
    ids: PartFile
    gone: PartFile | None
    gone_count: int
    effort: tuple[Effort, ...]
    recall: float  # recall@10 surely reached when it was built, for the hardest kind of query


@dataclass(frozen=True)
class Generation:
    """One immutable, complete state of the vector index for one encoder.

    `file`, `sha256`, `sample`, `bytes`: its exact part, which holds all vectors, or with a `base` those added since.
    """

    id: int
    encoder_id: int
    file: str
    count: int
    dim: int
    sha256: str
    sample: str
    bytes: int
    id_check: str
    created_at: int
    base: IndexBase | None = None


@dataclass(frozen=True)
class NeutralScores:
    """What a library's moments score, by one encoder, for sentences that have nothing to do with it.

    vectors: (S, D) of the sentences; ids: (N,) of moments, ascending; hubs: (N,) how near each is to every sentence;
    maxima: (S/2,) best scores of the second half, corrected for that and for how central a sentence is; spread: of
    scores; lean: skewness of scores, about 0 where a model knows nothing of what it sees, infinite where that cannot be
    told; text_spread: of cosines between sentences; whole: N when all was last made anew.
    """

    vectors: npt.NDArray[np.float16]
    ids: npt.NDArray[np.int64]
    hubs: npt.NDArray[np.float32]
    maxima: npt.NDArray[np.float32]
    spread: float
    lean: float
    text_spread: float
    whole: int


# Turns stored frames into moment vectors, (M, D) float32 unit length: embed(vectors, times_ms, moments).
Embed = Callable[
    ["npt.NDArray[np.float16]", "npt.NDArray[np.int64]", Sequence[NewMoment]], "npt.NDArray[np.float32]"
]

# `map`, or what does the same on several threads: results in the order of the items, which are taken in the caller's.
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class LibrarySummary:
    """The numbers of `vsearch status`; sizes in bytes."""

    videos: dict[str, int]
    duration_ms: int
    frame_count: int
    moment_count: int
    bytes: dict[str, int]  # catalogue, frames, index, thumbs, heads
    coarse: int  # present videos that only the first pass has seen
    encoder: EncoderInfo | None  # the one that answers
    generation: Generation | None
    up_to_date: bool  # whether the index has exactly the moments that it should have
    kept: dict[str, int]  # of other models: bytes of their frames


LAST_HITS = "last_hits"  # noted in the library, so that `vsearch clip 1` knows what 1 was
