"""A model's figures on a data set: retrieval in both directions, or recognition among classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vsearch.errors import VsearchError
from vsearch.models.prompts import template_probabilities
from vsearch.models.recipes import VideoSide, VideoText
from vsearch.models.training import metrics
from vsearch.models.training.datasets import Clip, Dataset
from vsearch.models.training.samples import FrameSource, frames_of, pad, pick


@dataclass(frozen=True)
class Evaluation:
    """Figures by name ('t2v.r1', 'top1', ...), and what they were measured on."""

    task: str
    figures: dict[str, float]
    videos: int
    queries: int
    protocol: dict[str, Any]

    @property
    def score(self) -> float:
        """What training is steered by: top-1, or the geometric mean of text-to-video recalls; ties by mean rank."""
        if self.task == "recognition":
            return self.figures["top1"]
        recalls = [self.figures[f"t2v.r{k}"] for k in (1, 5, 10)]
        return float(np.prod(recalls) ** (1 / 3)) - 1e-4 * self.figures["t2v.mean_rank"]


def evaluate(
    model: VideoText, data: Dataset, frames: dict[str, Any] | FrameSource, protocol: str = "sentence",
    normalise: str | None = None, bank: Sequence[str] = (), batch: int = 64,
) -> Evaluation:  # fmt: skip
    """Recognition where every clip has a class and none a caption, retrieval otherwise.

    protocol: 'sentence', or 'paragraph' (a video's captions joined). normalise: None, 'dsl' (looks at all
    queries at once) or 'qb-norm' (with `bank`, training captions). Raises VsearchError.
    """
    model.eval()
    if is_recognition(data.clips):
        return recognise(model, data.clips, frames, data.labels, batch)
    return retrieve(model, data.clips, frames, protocol, normalise, bank, batch)


def is_recognition(clips: Sequence[Clip]) -> bool:
    return all(clip.label is not None and not clip.captions for clip in clips)


def retrieve(
    model: VideoText, clips: Sequence[Clip], frames: dict[str, Any] | FrameSource, protocol: str = "sentence",
    normalise: str | None = None, bank: Sequence[str] = (), batch: int = 64,
) -> Evaluation:  # fmt: skip
    texts = [text for clip in clips for text in clip.captions]
    owner = [i for i, clip in enumerate(clips) for _ in clip.captions]
    if protocol == "paragraph":
        texts, owner = metrics.paragraphs(texts, owner)
    scores = score_matrix(model, clips, frames, texts, batch)
    if normalise == "dsl":
        scores = metrics.dual_softmax(scores)
    elif normalise == "qb-norm":
        if not bank:
            raise VsearchError("QB-Norm needs a bank of training captions; give --bank ANNOTATIONS")
        scores = metrics.qb_norm(scores, score_matrix(model, clips, frames, bank, batch))
    elif normalise is not None:
        raise VsearchError(f"unknown normalisation {normalise!r}; use dsl or qb-norm")
    figures: dict[str, Any] = {}
    for name, found in (
        ("t2v", metrics.text_to_video(scores, owner)),
        ("v2t", metrics.video_to_text(scores, owner)),
    ):
        figures |= {f"{name}.{k}": v for k, v in found.as_dict().items() if k != "queries"}
    stated = {
        "unit": protocol, "normalise": normalise, "frames": model.recipe.frames, "ranks": "1 + strictly greater + half of ties",
        "v2t": "best sentence of each video",
    }  # fmt: skip
    return Evaluation("retrieval", figures, len(clips), len(texts), stated)


def recognise(
    model: VideoText, clips: Sequence[Clip], frames: dict[str, Any] | FrameSource, labels: Sequence[str],
    batch: int = 64,
) -> Evaluation:  # fmt: skip
    """Top-1 and top-5 among `labels` by similarity: probabilities averaged over templates."""
    number = {label: i for i, label in enumerate(labels)}
    per_template = [_embed_texts(model, sentences, batch) for sentences in model.class_sentences(labels)]
    found = []
    with torch.inference_mode():
        for side in _videos(model, clips, frames, batch):
            if model.recipe.similarity.kind == "cosine":
                unit = torch.nn.functional.normalize
                texts = torch.stack([unit(t, dim=-1) for t in per_template])
                scale = float(model.scale)
                found.append(template_probabilities(unit(side.vectors, dim=-1), texts, scale).cpu().numpy())
            else:
                found.append(sum(model.logits(side, t).softmax(-1) for t in per_template).cpu().numpy())  # type: ignore[union-attr]
    scores, right = np.concatenate(found), [number[str(clip.label)] for clip in clips]
    figures = {"top1": metrics.top_k(scores, right, 1), "top5": metrics.top_k(scores, right, 5)}
    trained = sorted(set(model.labels) & set(labels))
    protocol = {
        "classes": len(labels), "classes_seen_in_training": len(trained), "views": 1,
        "templates": len(per_template),
    }  # fmt: skip
    return Evaluation("recognition", figures, len(clips), len(clips), protocol)


def score_matrix(
    model: VideoText,
    clips: Sequence[Clip],
    frames: dict[str, Any] | FrameSource,
    texts: Sequence[str],
    batch: int = 64,
) -> npt.NDArray[np.float64]:
    """(texts, videos): cosines, so that bank normalisation means what it should, or the pair scores of a re-ranker."""
    vectors = _embed_texts(model, texts, batch)
    columns = []
    with torch.inference_mode():
        for side in _videos(model, clips, frames, batch):
            scale = 1.0 if "tight" in model.new else float(model.scale)
            parts = [model.logits(side, t) for t in vectors.split(256)]
            columns.append((torch.cat(parts, dim=1) / scale).double().cpu().numpy())
    return np.concatenate(columns).T


def _embed_texts(model: VideoText, texts: Sequence[str], batch: int) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.embed_text(texts[i : i + batch]) for i in range(0, len(texts), batch)])


def _videos(
    model: VideoText, clips: Sequence[Clip], frames: dict[str, Any] | FrameSource, batch: int
) -> list[VideoSide]:
    sides = []
    with torch.inference_mode():
        for i in range(0, len(clips), batch):
            chosen = []
            for clip in clips[i : i + batch]:
                own = frames_of(frames, clip)
                chosen.append(own[pick(len(own), model.recipe.frames, None)])
            video, mask = pad(chosen)
            sides.append(model.embed_video(video.to(model.device), mask.to(model.device)))
    return sides


def refuse_leak(trained: dict[str, Any], test: Dataset) -> None:
    """A checkpoint must not have been trained on the videos it is tested on: 9k and 7k lists, 'Full' and 1k-A mix easily."""
    seen = set(trained.get("videos", ()))
    both = [clip.video for clip in test.clips if clip.video in seen]
    if both:
        raise VsearchError(
            f"{len(both)} of {len(test.clips)} test videos were trained on (e.g. {both[0]}): the training list "
            f"{trained.get('name')} {trained.get('split')} belongs to another protocol; choose a split that fits"
        )
