"""Training and evaluation: data sets, samples, losses, the loop, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.training.evaluate import Evaluation, refuse_leak
    from vsearch.models.training.metrics import few_shot
    from vsearch.models.training.samples import FrameSource, ZipFrames, cached_vectors, pick
    from vsearch.models.training.segments import AnnotatedVideo, Segment, read_annotations, read_names
    from vsearch.models.training.train import TrainOptions

# fmt: off
__all__ = [
    "AnnotatedVideo", "Evaluation", "FrameSource", "Segment", "TrainOptions", "ZipFrames", "cached_vectors",
    "few_shot", "pick", "read_annotations", "read_names", "refuse_leak",
]
__getattr__ = face(__name__, {
    "evaluate": "Evaluation refuse_leak",
    "metrics": "few_shot",
    "samples": "FrameSource ZipFrames cached_vectors pick",
    "segments": "AnnotatedVideo Segment read_annotations read_names",
    "train": "TrainOptions",
})
