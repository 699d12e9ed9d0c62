"""The trained proposal generator behind the same interface as the training-free maker, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.retriever.actions.proposals import (
    AT_LEAST,
    MIN_FRAMES,
    PER_MINUTE,
    Proposals,
    Timeline,
    candidate_spans,
    distinctness,
    select,
)

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.models import Generator, TrainingVideo
    from vsearch.models.training import AnnotatedVideo, Segment
    from vsearch.records import Video


# Chosen on training videos with half of the classes left out of training: mAP of the left-out half is 37 without
# doubt, 70 at 0.5, 74 at 1, and 75 for the training-free maker alone.
DOUBT = 1.0


def generated_by(generator: Generator) -> Callable[[Timeline], Proposals]:
    """A maker that judges the generator's intervals and the training-free ones, by the geometric mean of what the
    generator expects of an interval and of how distinct it is: the first knows actions, the second any video.
    A generator expects little of actions unlike those it was trained on; DOUBT keeps that from hiding them.

    Raises ModelError (when used) for frames of another width than it was trained on.
    """

    def propose(timeline: Timeline) -> Proposals:
        spans = np.unique(
            np.concatenate([generator.candidates(timeline.unit), candidate_spans(timeline)]), axis=0
        )
        spans = spans[(spans[:, 1] - spans[:, 0]) >= min(MIN_FRAMES, len(timeline))]
        expected = generator.score(timeline.unit, spans)
        trust = (DOUBT + expected) / (DOUBT + 1)
        scores = np.sqrt(trust * distinctness(timeline, spans[:, 0], spans[:, 1]))
        number = max(AT_LEAST, round(PER_MINUTE * timeline.edges_ms[-1] / 60_000))
        return select(timeline, spans, scores, number)

    return propose


def annotated_frames(
    library: Library, videos: Sequence[AnnotatedVideo], names: Collection[str] | None = None
) -> list[TrainingVideo]:
    """The stored frames of annotated videos."""
    from vsearch.retriever.actions.videos import timeline_of

    there = annotated_in(library, videos)
    return [training_video(timeline_of(library, own), v.segments, names) for v, own in there]


def annotated_in(library: Library, videos: Sequence[AnnotatedVideo]) -> list[tuple[AnnotatedVideo, Video]]:
    """Those that the library holds: a file's name without ending is the video's id ("v_" may be left out)."""
    from vsearch.records import INDEXED, PARTIAL

    by_id = {video.path.stem.removeprefix("v_"): video for video in library.videos(INDEXED, PARTIAL)}
    return [(v, by_id[v.id.removeprefix("v_")]) for v in videos if v.id.removeprefix("v_") in by_id]


def training_video(
    timeline: Timeline, segments: Sequence[Segment], names: Collection[str] | None = None
) -> TrainingVideo:
    """Frames and instances of the classes in `names` (all by default).

    Instances of other classes are cut out: they are not background, and open-set training must not see them.
    """
    from vsearch.models import TrainingVideo

    ranges = frame_ranges(timeline, segments)
    wanted = np.asarray([names is None or s.label in names for s in segments], dtype=bool)
    kept = np.ones(len(timeline), dtype=bool)
    for first, last in ranges[~wanted].tolist():
        kept[first:last] = False
    for first, last in ranges[wanted].tolist():
        kept[first:last] = True
    place = np.concatenate([[0], np.cumsum(kept)])
    return TrainingVideo(timeline.unit[kept], place[ranges[wanted]].reshape(-1, 2))


def frame_ranges(timeline: Timeline, segments: Sequence[Segment]) -> npt.NDArray[np.int64]:
    """(N, 2) the frames that lie in each segment, one at least; last exclusive."""
    bounds = np.asarray([(s.start_s, s.end_s) for s in segments], dtype=np.float64).reshape(-1, 2) * 1000
    middles = (timeline.edges_ms[:-1] + timeline.edges_ms[1:]) / 2
    ranges = np.searchsorted(middles, bounds)
    ranges[:, 0] = np.minimum(ranges[:, 0], max(0, len(timeline) - 1))
    ranges[:, 1] = np.clip(ranges[:, 1], ranges[:, 0] + 1, len(timeline))
    return ranges.astype(np.int64)
