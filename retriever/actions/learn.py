"""What annotated videos of a library teach: frames for the proposal generator, and prompts for a closed set of actions.

Prompts are kept as a vocabulary. What lies between the instances is shown as well: prompts that only tell the names apart from each other are worse
than none at telling them from other footage (`benchmarks/README.md`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.errors import VsearchError
from vsearch.maths import normalise
from vsearch.models import Pairs, PromptOptions, embed_names, train_prompts
from vsearch.retriever.actions.classify import class_vectors, fit_temperature
from vsearch.retriever.actions.proposals import Floats, Timeline
from vsearch.retriever.actions.videos import Learned, timeline_of
from vsearch.retriever.encoders import matching_encoder
from vsearch.retriever.searching import live_encoder

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.models import Backbone, TrainingVideo
    from vsearch.models.training import AnnotatedVideo, Segment
    from vsearch.records import Video

# Chosen by cross-validation over the source clips of the training videos of `benchmarks/localization.py`: 40 to 60 steps
# name and rank left-out clips best, with more they fit the few clips there are.
OPTIONS = PromptOptions(steps=60, rate=2e-3)
BETWEEN_FRAMES = 8  # a clip of what no instance touches
PARTS = 3  # of the videos, one left out at a time to measure

Annotated = tuple[Timeline, Sequence["Segment"]]


def learn_prompts(
    library: Library,
    videos: Sequence[AnnotatedVideo],
    names: Collection[str] | None = None,
    device: str = "auto",
) -> Learned:
    """A vocabulary of the annotated classes (or those in `names`): learned prompts and instances, half and half.

    `accuracy`: share of instances whose name is found by what was learned without their video. Raises VsearchError
    when there are no instances of two classes, ModelError for text towers that take no prompts.
    """
    there = [(timeline_of(library, own), v.segments) for v, own in annotated_in(library, videos)]
    labels = sorted({s.label for _, segments in there for s in segments if names is None or s.label in names})
    if len(labels) < 2:
        raise VsearchError(
            "learned prompts need annotated instances of at least two classes in the library's videos"
        )
    encoder = live_encoder(library)
    backbone = matching_encoder(encoder, device).backbone
    scores, truth = [], []
    for k in range(PARTS if len(there) > 1 else 0):
        rest = [video for i, video in enumerate(there) if i % PARTS != k]
        part, known = annotated_pairs(there[k::PARTS], labels), annotated_pairs(rest, labels)
        shown = part.owners >= 0
        if shown.any() and (known.owners >= 0).any():
            vectors = with_instances(prompted(backbone, rest, labels), known)
            scores.append(part.clips[shown] @ vectors.T)
            truth.append(part.owners[shown])
    examples = annotated_pairs(there, labels)
    vectors = with_instances(prompted(backbone, there, labels), examples)
    count = int((examples.owners >= 0).sum())
    if not scores:  # a single video: nothing to judge with
        return Learned(tuple(labels), vectors, encoder.backbone, 0.1, 0.0, count)
    table, right = np.concatenate(scores), np.concatenate(truth)
    accuracy = float((table.argmax(axis=1) == right).mean())
    return Learned(tuple(labels), vectors, encoder.backbone, fit_temperature(table, right), accuracy, count)


def with_instances(texts: Floats, pairs: Pairs) -> Floats:
    """(C, D): texts (C, D) and the means of the names' clips, half and half, both away from their means.

    A name without clips has its text alone.
    """
    shown = pairs.owners >= 0
    own = class_vectors(pairs.clips[shown], pairs.owners[shown], len(texts))
    said = class_vectors(texts, np.arange(len(texts)), len(texts))
    return normalise(own + said)


def prompted(backbone: Backbone, videos: Sequence[Annotated], labels: Sequence[str]) -> Floats:
    """(C, D) unit vectors of the labels between prompts learned from annotated videos."""
    pairs = annotated_pairs(videos, labels)
    return embed_names(backbone, train_prompts(backbone, lambda _: [pairs], OPTIONS), labels)


def annotated_pairs(videos: Sequence[Annotated], labels: Sequence[str]) -> Pairs:
    """The instances' mean frames with their labels, and clips that no instance touches."""
    clips, owners = [], []
    for timeline, segments in videos:
        ranges, free = frame_ranges(timeline, segments), np.ones(len(timeline), dtype=bool)
        for first, last in ranges.tolist():
            free[first:last] = False
        known = np.asarray([s.label in labels for s in segments], dtype=bool)
        clips.append(timeline.means(ranges[known, 0], ranges[known, 1]))
        owners += [labels.index(s.label) for s in segments if s.label in labels]
        start = np.arange(0, max(1, len(timeline) - BETWEEN_FRAMES + 1), BETWEEN_FRAMES)
        start = start[[bool(free[a : a + BETWEEN_FRAMES].all()) for a in start.tolist()]]
        clips.append(timeline.means(start, np.minimum(start + BETWEEN_FRAMES, len(timeline))))
        owners += [-1] * len(start)
    if not clips:
        return Pairs(list(labels), np.zeros((0, 0), np.float32), np.zeros(0, np.int64))
    return Pairs(list(labels), normalise(np.concatenate(clips)), np.asarray(owners, dtype=np.int64))


def annotated_frames(
    library: Library, videos: Sequence[AnnotatedVideo], names: Collection[str] | None = None
) -> list[TrainingVideo]:
    """The stored frames of annotated videos."""
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
