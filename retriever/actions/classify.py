"""Trimmed clips against a list of actions: names in words, or a few example clips a name.

By name: probabilities averaged over sentence templates (ActionCLIP, section 3.2). By examples: each class is the
mean of its clips, away from the mean of all; the temperature of the probabilities is the one that fits the
examples best when each in turn is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vsearch.errors import VsearchError
from vsearch.maths import normalise, softmax
from vsearch.retriever.actions.localize import background_of_model
from vsearch.retriever.actions.proposals import Floats, Timeline
from vsearch.retriever.actions.videos import (
    Learned,
    check_backbone,
    dense_timeline_of,
    embed_actions,
    sound_videos,
    timeline_of,
    vocabularies,
)
from vsearch.retriever.searching import live_encoder

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.library.catalogue import Reading
    from vsearch.models import TextEncoder
    from vsearch.records import Video

TEMPERATURES = np.geomspace(0.01, 1.0, 25)


@dataclass(frozen=True)
class Guess:
    """A label and its probability among all labels asked for."""

    label: str
    probability: float


def classify(
    library: Reading,
    videos: Sequence[Video],
    names: Sequence[str],
    *,
    learned: Learned | None = None,
    number: int = 5,
    encoder: TextEncoder | None = None,
) -> dict[Video, list[Guess]]:
    """The `number` likeliest labels of each clip, by names or by a learned vocabulary."""
    videos = sound_videos(library, videos)
    clips = clip_vectors(library, videos, timeline_of if learned is not None else dense_timeline_of)
    if learned is not None:
        check_backbone(library, learned)
        shares = softmax(clips @ learned.vectors.T / learned.temperature)
        names = learned.names
    else:
        texts = embed_actions(library, names, encoder)  # (K, C, D)
        live = live_encoder(library)
        background = background_of_model(live.spec.get("calibration"), len(names))
        per_template = [
            softmax((clips @ text.T - background.middle) / background.deviation) for text in texts
        ]
        shares = np.mean(per_template, axis=0)
    return {video: _best(names, row, number) for video, row in zip(videos, shares, strict=True)}


def learn(library: Reading, examples: Mapping[str, Sequence[Video]]) -> Learned:
    """A vocabulary from example clips by label. Raises VsearchError for fewer than two labels, or an empty one."""
    sound = set(sound_videos(library, [video for videos in examples.values() for video in videos]))
    examples = {name: [video for video in videos if video in sound] for name, videos in examples.items()}
    bare = [label for label, videos in examples.items() if not videos]
    if bare or len(examples) < 2:
        why = f"{bare[0]!r} has no clip that can be read" if bare else "at least two labels are needed"
        raise VsearchError(f"cannot learn from these examples: {why}; give a folder of clips for each label")
    names = tuple(examples)
    owners = np.repeat(np.arange(len(names)), [len(examples[name]) for name in names])
    clips = clip_vectors(library, [video for name in names for video in examples[name]], timeline_of)
    temperature, accuracy = leave_one_out(clips, owners, len(names))
    vectors = class_vectors(clips, owners, len(names))
    return Learned(names, vectors, live_encoder(library).backbone, temperature, accuracy, len(clips))


def leave_one_out(clips: Floats, owners: np.ndarray, classes: int) -> tuple[float, float]:
    """(temperature, accuracy) over examples, each judged by vectors made without it.

    A class's only example cannot be found without it: it counts as wrong and does not fit the temperature.
    """
    scores, truth = [], []
    for i, own in enumerate(owners):
        rest = np.arange(len(owners)) != i
        if (owners[rest] == own).any():
            scores.append(clips[i] @ class_vectors(clips[rest], owners[rest], classes).T)
            truth.append(own)
    if not scores:
        return 0.1, 0.0
    table, right = np.stack(scores), np.asarray(truth)
    return fit_temperature(table, right), float((table.argmax(axis=1) == right).sum() / len(owners))


def fit_temperature(table: Floats, right: np.ndarray) -> float:
    """The one of TEMPERATURES that makes the right names (N,) likeliest under held-out scores (N, C)."""
    losses = [-np.log(softmax(table / t)[np.arange(len(right)), right] + 1e-12).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def class_vectors(clips: Floats, owners: np.ndarray, classes: int) -> Floats:
    """(N, D) unit clips of (N,) classes -> (C, D) unit directions from the mean of all classes to each one.

    A class without clips gets a zero row.
    """
    counts = np.bincount(owners, minlength=classes)[:, None]
    sums = np.zeros((classes, clips.shape[1]), dtype=np.float32)
    np.add.at(sums, owners, clips)
    means = sums / np.maximum(counts, 1)
    away = np.where(counts > 0, means - means[counts[:, 0] > 0].mean(axis=0), 0)
    return normalise(away)


def clip_vectors(
    library: Reading, videos: Sequence[Video], view: Callable[[Reading, Video], Timeline]
) -> Floats:
    """(N, D) unit: the mean of each clip's unit features."""
    rows = []
    for video in videos:
        timeline = view(library, video)
        rows.append(timeline.sums[-1] / len(timeline))
    return normalise(np.asarray(rows, dtype=np.float32))


def check_name(name: str) -> None:
    """Raises VsearchError for what cannot name a vocabulary."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise VsearchError(f"{name!r} is no name for a vocabulary; use letters, digits, - and _")
    if name in vocabularies():
        raise VsearchError(f"{name!r} is the vocabulary of a data set; take another name")


def save(library: Library, name: str, learned: Learned) -> Path:
    """Keep a learned vocabulary in the library under a name. Raises VsearchError for an unfit name."""
    from vsearch.library import write_vocabulary

    check_name(name)
    about = {
        "names": list(learned.names),
        "backbone": learned.backbone,
        "temperature": learned.temperature,
        "accuracy": learned.accuracy,
        "examples": learned.examples,
    }
    return write_vocabulary(library.path, name, about, learned.vectors)


def load(library: Library, name: str) -> Learned | None:
    """A kept vocabulary, or None. Raises VsearchError when it is damaged."""
    from vsearch.library import read_vocabulary

    kept = read_vocabulary(library.path, name) if Path(name).name == name else None
    if kept is None:
        return None
    about, vectors = kept
    try:
        return Learned(
            tuple(about["names"]), vectors, about["backbone"], about["temperature"], about["accuracy"],
            about["examples"],
        )  # fmt: skip
    except (LookupError, TypeError) as fault:
        raise VsearchError(f"the vocabulary {name!r} is damaged: learn it again from examples") from fault


def _best(names: Sequence[str], shares: Floats, number: int) -> list[Guess]:
    order = np.argsort(-shares, kind="stable")[:number]
    return [Guess(names[i], float(shares[i])) for i in order]
