"""Action names against a library: names to text vectors, stored frames to detections and intervals.

Nothing is decoded here; text vectors are cached in the library, so a second question loads no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vsearch.errors import DamagedFramesError, LibraryError, VsearchError
from vsearch.maths import normalise
from vsearch.models import ACTION_TEMPLATES
from vsearch.retriever.actions.intervals import Interval, find_intervals
from vsearch.retriever.actions.localize import (
    DEFAULT_LIMITS,
    FEWEST_REFERENCES,
    Background,
    Detection,
    Limits,
    background_from,
    background_of_model,
    localize,
    reference_windows,
)
from vsearch.retriever.actions.proposals import Floats, Ints, Proposals, Timeline, Vectors, propose
from vsearch.retriever.answer import Answer, Hit, is_confident
from vsearch.retriever.calibrate import Judge, at_least, check_word, judged
from vsearch.retriever.encoders import check_head
from vsearch.retriever.languages import unread_language
from vsearch.retriever.searching import (
    Sentence,
    check_threshold,
    files_there,
    keep_sentence,
    live_encoder,
    own_or_given,
    sentence_vector,
)

if TYPE_CHECKING:
    from vsearch.library.catalogue import Reading
    from vsearch.models import TextEncoder
    from vsearch.records import EncoderInfo, NeutralScores, Video

TEMPLATES = ACTION_TEMPLATES
DENSE_MS = 4000  # what a temporal head sees around a frame
REFERENCE_VIDEOS = 50  # of a library, for what unrelated footage scores

Maker = Callable[[Timeline], Proposals]


@dataclass(frozen=True)
class Learned:
    """A vocabulary learned from example clips: unit vectors (C, D) in the space of a backbone's frames.

    `accuracy`: share of examples whose label is found when they are left out, 0..1.
    """

    names: tuple[str, ...]
    vectors: Floats
    backbone: str
    temperature: float
    accuracy: float
    examples: int


def named_actions(actions: str | None, name: str | None) -> list[str]:
    """Action names from what a user gave: a list, or a vocabulary's name. Raises VsearchError."""
    if (actions is None) == (name is None):
        raise VsearchError(
            'give either --actions "archery, playing piano" (or a file) or --vocabulary ucf101'
        )
    return parse_actions(actions) if actions is not None else vocabulary(str(name))


def vocabulary(name: str) -> list[str]:
    """The action names of a known data set. Raises VsearchError."""
    known = vocabularies()
    if name not in known:
        raise VsearchError(f"there is no vocabulary {name!r}; there are {', '.join(known)}")
    return known[name]


def vocabularies() -> dict[str, list[str]]:
    """Names of actions by data set."""
    import vsearch.models

    (folder,) = vsearch.models.__path__
    return json.loads((Path(folder) / "vocabularies.json").read_text(encoding="utf-8"))


def parse_actions(text: str) -> list[str]:
    """'archery, playing piano', or the path of a file with one name a line -> names. Raises VsearchError."""
    from vsearch.models.training import read_names

    path = Path(text).expanduser()
    if "," not in text and path.is_file():
        names = read_names(path)
    else:
        names = list(dict.fromkeys(" ".join(part.split()) for part in text.split(",")))
    names = [name for name in names if name]
    if any(0xD800 <= ord(c) <= 0xDFFF for name in names for c in name):
        raise VsearchError("these action names hold bytes that are not UTF-8; write them in UTF-8")
    if not names:
        raise VsearchError(f"no action names in {text!r}; write names with commas between, or give a file")
    return names


def embed_actions(library: Reading, names: Sequence[str], encoder: TextEncoder | None = None) -> Floats:
    """(K, C, D) unit vectors: each name in each template. A trained head has templates of its own."""
    live = live_encoder(library)
    templates = _templates(live)
    cached = {name: library.cached_text(live.id, cache_key(templates, name)) for name in names}
    missing = [name for name, vector in cached.items() if vector is None]
    if missing:
        sentences = [template.format(name) for name in missing for template in templates]
        fresh = own_or_given(live, encoder).embed_texts(sentences).reshape(len(missing), -1)
        for name, vector in zip(missing, fresh, strict=True):
            library.cache_text(live.id, cache_key(templates, name), vector)
            cached[name] = vector
    flat = np.stack([np.asarray(cached[name], dtype=np.float32) for name in names])  # (C, K * D)
    return flat.reshape(len(names), len(templates), -1).transpose(1, 0, 2)


def _templates(encoder: EncoderInfo) -> tuple[str, ...]:
    """What names are put in."""
    return tuple(encoder.spec["head"].get("action_templates", ACTION_TEMPLATES))


def cache_key(templates: Sequence[str], name: str) -> str:
    """What an action's vectors are cached under. No query holds a tab, so none can be meant."""
    return "\t".join(["action", *templates, name])


def localize_videos(
    library: Reading,
    videos: Sequence[Video],
    names: Sequence[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    maker: Maker | None = None,
    learned: Learned | None = None,
    encoder: TextEncoder | None = None,
) -> dict[Video, list[Detection]]:
    """Detections of the named actions in each video, best first.

    `maker`: of proposals; without training by default. `learned`: a vocabulary from examples, whose vectors stand in
    for the names'. `encoder`: the library's, if it is at hand. Raises LibraryError for a video without stored frames,
    ModelError when the library's model is not at hand.
    """
    if learned is not None:
        check_backbone(library, learned)
        texts = learned.vectors
    else:
        texts = normalise(embed_actions(library, names, encoder).mean(axis=0))
    videos = sound_videos(library, videos)
    view = timeline_of if learned is not None else dense_timeline_of  # examples are learned from plain frames
    background = _background(library, videos, texts, view, named=learned is None)
    return {
        video: localize(
            view(library, video),
            (maker or propose)(timeline_of(library, video)),
            names,
            texts,
            background,
            limits,
        )
        for video in videos
    }


def search_in(
    library: Reading,
    video: Video,
    text: str,
    *,
    number: int = 10,
    threshold: float | None = None,
    encoder: TextEncoder | None = None,
    least: str | None = None,
    cache: bool = True,
) -> Answer:
    """Intervals of one video that a sentence describes, best first, each a hit of its own with its own borders. Words
    are judged by what this video scores for sentences that have nothing to do with it."""
    check_threshold(threshold)
    check_word(least)

    def question() -> tuple[EncoderInfo, Sentence, Timeline, NeutralScores | None]:
        live = live_encoder(library)
        sentence = sentence_vector(library, live, text, encoder, cache=False)
        library.report_changed([video])
        return live, sentence, dense_timeline_of(library, video), library.neutral_scores(live)

    live, sentence, timeline, neutral = library.of_one_state(question)
    if cache:
        keep_sentence(library, live, sentence)
    query = np.asarray(sentence.vector, dtype=np.float32)
    found = find_intervals(timeline, query, number)
    chances = chances_in(timeline, neutral, query, found)
    kept = [
        (i, chance)
        for i, chance in zip(found, chances, strict=True)
        if (threshold is None or i.score >= threshold) and at_least(least, chance)
    ]
    path, _, gone = files_there([video])
    hits = tuple(
        Hit(
            rank,
            path,
            video.id,
            i.start_ms,
            i.end_ms,
            i.score,
            *judged(chance),
            (),
            (),
            gone=gone,
        )
        for rank, (i, chance) in enumerate(kept, start=1)
    )
    model = str(live.spec["model"])
    unread = unread_language(sentence.text, model)
    return Answer(sentence.text, model, is_confident(hits), hits, sentence.cut, unread)


def chances_in(
    timeline: Timeline, neutral: NeutralScores | None, query: Floats, found: Sequence[Interval]
) -> Sequence[float | None]:
    """Of intervals of a video: how often its best would score as much for a sentence that has nothing to do with it."""
    if neutral is None or not found or not len(timeline):
        return [None] * len(found)
    from vsearch.models.neutral import hubs_of, neutral_scores

    proposals = propose(timeline)
    spans = np.stack([proposals.first, proposals.last], axis=1)
    means = normalise(timeline.means(spans[:, 0], spans[:, 1]))
    inside = neutral_scores(np.arange(len(means)), [(np.arange(len(means)), means)], neutral.vectors)
    # How far scores spread, and whether the model knows anything, tells the whole library better than one video.
    inside = replace(inside, lean=neutral.lean)
    judge = Judge.of(inside, query, len(means))
    if judge is None:
        return [None] * len(found)
    first = np.searchsorted(timeline.edges_ms, [i.start_ms for i in found])
    last = np.searchsorted(timeline.edges_ms, [i.end_ms for i in found])
    own = hubs_of(
        normalise(timeline.means(first, last)), neutral.vectors[::2].astype(np.float32), inside.spread
    )
    return judge.chances(np.asarray([i.score for i in found], np.float32), own).tolist()


def sound_videos(library: Reading, videos: Sequence[Video]) -> list[Video]:
    """Those whose stored frames are sound; the others are reported. Raises DamagedFramesError when none is left."""
    backbone = live_encoder(library).backbone
    library.report_changed(videos)
    sound = []
    for video in videos:
        stored = library.frame_set_of(video, backbone)
        try:
            if stored is not None:
                library.frames(stored.id)
            sound.append(video)
        except DamagedFramesError:
            library.report_frames(stored.frames.fingerprint if stored else "")
    if videos and not sound:
        raise DamagedFramesError(
            f"The stored frames of {videos[0].path} are missing or damaged: run `vsearch verify --repair`."
        )
    return sound


def timeline_of(library: Reading, video: Video) -> Timeline:
    """A video's stored frames, ready for questions about intervals."""
    return Timeline.of(*_stored(library, live_encoder(library), video))


def dense_timeline_of(library: Reading, video: Video) -> Timeline:
    """A video's dense features: its head's vector of the few seconds around each frame.

    These are the frame vectors themselves where the head only averages.
    """
    encoder = live_encoder(library)
    vectors, times_ms, duration_ms = _stored(library, encoder, video)
    if not encoder.spec["head"].get("frame_space") and len(vectors):
        from vsearch.models import Window, load_head

        check_head(encoder)
        first = np.searchsorted(times_ms, times_ms - DENSE_MS // 2)
        last = np.searchsorted(times_ms, times_ms + DENSE_MS // 2, side="right")
        windows = [
            Window(int(times_ms[a]), int(times_ms[b - 1]) + 1, a, b)
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]
        vectors = load_head(encoder.spec["head"]).embed_windows(vectors, times_ms, windows)
    return Timeline.of(vectors, times_ms, duration_ms)


def check_backbone(library: Reading, learned: Learned) -> None:
    """Raises VsearchError when a vocabulary was learned in another space than the library's."""
    backbone = live_encoder(library).backbone
    if learned.backbone != backbone:
        raise VsearchError(
            f"this vocabulary was learned with {learned.backbone}, but the library uses {backbone}; learn it again"
        )


def _background(
    library: Reading,
    videos: Sequence[Video],
    texts: Floats,
    view: Callable[[Reading, Video], Timeline],
    *,
    named: bool,
) -> Background:
    """From the library's own footage when there is enough of it, else from the model's calibration.

    named: the vectors are of names; those learned from examples have no calibration of the model's.
    """
    encoder = live_encoder(library)
    coarse = library.coarse_contents()
    others = [v for v in library.videos("indexed", "partial") if v.fingerprint not in coarse]
    some = others[:: max(1, len(others) // REFERENCE_VIDEOS)]
    if not named or len(others) > len(videos) or len(others) >= REFERENCE_VIDEOS:
        references = reference_windows([view(library, v) for v in sound_videos(library, some)])
        if len(references) >= (FEWEST_REFERENCES if named else 1):
            return background_from(references, texts)
    return background_of_model(encoder.spec.get("calibration"), len(texts))


def _stored(library: Reading, encoder: EncoderInfo, video: Video) -> tuple[Vectors, Ints, int]:
    """Frame vectors (T, D), times (T,) and length in ms."""
    stored = library.frame_set_of(video, encoder.backbone)
    if stored is None:
        raise LibraryError(f"{video.path} has no frame vectors ({video.state}); index it first")
    if stored.frames.coarse:
        raise LibraryError(
            f"only the keyframes of {video.path} are indexed so far, too few for this; let `vsearch index` finish"
        )
    frames = library.frames(stored.id)
    return frames.vectors, frames.times_ms, stored.duration_ms
