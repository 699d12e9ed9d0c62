"""Prompts learned for a closed set of actions from annotated videos of a library; kept as a vocabulary.

What lies between the instances is shown as well: prompts that only tell the names apart from each other are worse
than none at telling them from other footage (`benchmarks/README.md`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vsearch.errors import VsearchError
from vsearch.models.action_prompts import Pairs, PromptOptions, embed_names, train_prompts
from vsearch.retriever.actions import Learned, timeline_of
from vsearch.retriever.generated import frame_ranges
from vsearch.retriever.proposals import Timeline
from vsearch.retriever.search import live_encoder, matching_encoder

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.models import Backbone
    from vsearch.models.segments import AnnotatedVideo, Segment

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
    """A vocabulary of the annotated classes (or those in `names`), in prompts learned from the library's own frames.

    `accuracy`: share of instances whose name is found by prompts learned without their video. Raises VsearchError
    when there are no instances of two classes, ModelError for text towers that take no prompts.
    """
    from vsearch.retriever.generated import annotated_in

    there = [(timeline_of(library, own), v.segments) for v, own in annotated_in(library, videos)]
    labels = sorted({s.label for _, segments in there for s in segments if names is None or s.label in names})
    if len(labels) < 2:
        raise VsearchError(
            "learned prompts need annotated instances of at least two classes in the library's videos"
        )
    encoder = live_encoder(library)
    backbone = matching_encoder(encoder, device=device).backbone
    right = judged = 0
    for k in range(PARTS):
        rest, part = [v for i, v in enumerate(there) if i % PARTS != k], there[k::PARTS]
        seen = {s.label for _, segments in rest for s in segments}
        if not part or not seen & set(labels):
            continue
        texts = prompted(backbone, rest, labels)
        pairs = annotated_pairs(part, labels)
        shown = pairs.owners >= 0
        right += int(((pairs.clips[shown] @ texts.T).argmax(axis=1) == pairs.owners[shown]).sum())
        judged += int(shown.sum())
    temperature = 1 / float(backbone.clip.logit_scale.detach().exp())  # type: ignore[operator]
    vectors, examples = prompted(backbone, there, labels), annotated_pairs(there, labels)
    return Learned(
        tuple(labels),
        vectors,
        encoder.backbone,
        temperature,
        right / max(1, judged),
        int((examples.owners >= 0).sum()),
    )


def prompted(backbone: Backbone, videos: Sequence[Annotated], labels: Sequence[str]) -> np.ndarray:
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
    stacked = np.concatenate(clips)
    norms = np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    return Pairs(list(labels), (stacked / norms).astype(np.float32), np.asarray(owners, dtype=np.int64))
