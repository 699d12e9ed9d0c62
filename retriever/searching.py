"""Search: a sentence (or a frame) against the moments of a library.

embed -> nearest moments (FAISS) -> exact re-ranking with the stored frames -> merge and group -> words.
A sentence asked before costs no model: its vector is cached in the library.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from vsearch.errors import LibraryError, VsearchError
from vsearch.maths import normalise
from vsearch.retriever.answer import Answer, Hit, Scored, is_confident
from vsearch.retriever.calibrate import Judge, at_least, check_word, judged
from vsearch.retriever.encoders import Encoders, LazyEncoder, check_head
from vsearch.retriever.languages import unread_language
from vsearch.retriever.rank import (
    EVENT_CONTRAST,
    VideoAnswer,
    frame_cosines,
    group_by_video,
    mean_similarity,
    query_scored_similarity,
    score_spread,
    split_into_events,
)

if TYPE_CHECKING:
    from vsearch.library.catalogue import Reading
    from vsearch.library.index import IndexView
    from vsearch.models import TextEncoder
    from vsearch.records import EncoderInfo, FrameSet, Moment, NeutralScores, Video

# Candidates for re-ranking: enough that n videos remain after merging overlaps of long videos.
CANDIDATES_PER_VIDEO, MIN_CANDIDATES = 20, 200
_ROUNDING = 0.01  # between a score of the index, in half precision, and one of the frames
_SURELY_READ = 60  # bytes of a sentence; models read 64 or 77 tokens, each a byte or more

Only = Callable[["Video"], bool]  # which videos may answer
OpenIndex = Callable[["Reading"], "IndexView"]  # gives the live index, where a program keeps it open


def search(
    library: Reading,
    text: str,
    *,
    number: int = 10,
    threshold: float | None = None,
    encoder: TextEncoder | None = None,
    only: Only | None = None,
    view: OpenIndex | None = None,
    least: str | None = None,
    cache: bool = True,
) -> Answer:
    """The moments that a sentence describes, at most `number` videos, each with its best moment first.

    `encoder`: the library's, for a program that asks more than once; else it is loaded when the sentence is new.
    `only`: which videos may answer. `view`: gives the live index where a program keeps it open. `cache`: keep the vector
    of a new sentence in the library.
    `least`: 'weak', 'likely' or 'strong', leaves out what is less. Raises VsearchError for an empty sentence, LibraryError when there is no index,
    ModelError when the library's model is not the one at hand.
    """
    check_threshold(threshold)
    check_word(least)

    def question() -> tuple[Sentence, EncoderInfo, Answer]:
        live = live_encoder(library)
        sentence = sentence_vector(library, live, text, encoder, cache=False)
        found = _answer(
            library, live, sentence.text, sentence.vector, number, library.neutral_scores(live),
            threshold=threshold, only=only, view=view, least=least,
        )  # fmt: skip
        return sentence, live, found

    sentence, live, found = library.of_one_state(question)
    if cache:
        keep_sentence(library, live, sentence)
    return replace(found, cut=sentence.cut, language=unread_language(sentence.text, live.spec["model"]))


def search_similar(
    library: Reading,
    video: Video,
    time_ms: int,
    *,
    number: int = 10,
    only: Only | None = None,
    view: OpenIndex | None = None,
) -> Answer:
    """Moments that look like the frame of `video` at `time_ms`; the place itself is left out, in copies too."""

    def elsewhere(m: Moment) -> bool:
        return m.fingerprint != video.fingerprint or not m.start_ms <= time_ms <= m.end_ms

    # Scores between pictures are not on the scale of scores between sentences and pictures: no words for them.
    label = f"{video.path}@{time_ms / 1000:.3f}"

    def question() -> Answer:
        query = look_of(library, video, time_ms)
        encoder = live_encoder(library)
        return _answer(library, encoder, label, query, number, None, keep=elsewhere, only=only, view=view)

    return library.of_one_state(question)


def search_look(
    library: Reading,
    look: npt.NDArray[np.float32],
    label: str,
    *,
    number: int = 10,
    only: Only | None = None,
    view: OpenIndex | None = None,
) -> Answer:
    """Moments that look like `look`, a unit vector (D,) in the space of moments of the library's encoder."""
    return library.of_one_state(
        lambda: _answer(library, live_encoder(library), label, look, number, None, only=only, view=view)
    )


def look_of(library: Reading, video: Video, time_ms: int) -> npt.NDArray[np.float32]:
    """The picture of `video` at `time_ms` as a unit vector (D,) in the space of moments.

    Raises LibraryError for a video without stored frames, VsearchError for a time behind its end.
    """
    encoder = live_encoder(library)
    stored = library.frame_set_of(video, encoder.backbone)
    if stored is None or video.media is None:
        raise LibraryError(f"{video.path} has no frame vectors ({video.state}); index it first")
    if time_ms > video.media.duration_ms:
        raise VsearchError(
            f"the video ends before that time: it is {video.media.duration_ms / 1000:.1f} s long"
        )
    frames = library.frames(stored.id)
    i = max(0, int(np.searchsorted(frames.times_ms, time_ms, side="right")) - 1)
    return _look_of(encoder, frames, i)


def _look_of(encoder: EncoderInfo, frames: FrameSet, i: int) -> npt.NDArray[np.float32]:
    """Unit vector (D,) of frame i in the space of moments: its own, or of a window around it where a head pools."""
    head = encoder.spec["head"]
    if head.get("frame_space"):
        return normalise(frames.vectors[i])
    from vsearch.models import Window, load_head

    check_head(encoder)
    at, half = int(frames.times_ms[i]), round(head["window_s"] * 500)
    first, last = (int(k) for k in np.searchsorted(frames.times_ms, [at - half, at + half + 1]))
    window = Window(at - half, at + half, first, last)
    return load_head(head).embed_windows(frames.vectors, np.asarray(frames.times_ms), [window])[0]


def live_encoder(library: Reading) -> EncoderInfo:
    """The encoder that answers. Raises LibraryError when nothing is indexed yet."""
    encoder = library.live_encoder()
    if encoder is None:
        raise LibraryError("this library holds no index yet: run `vsearch index FOLDER` first")
    return encoder


class Sentence(NamedTuple):
    """A sentence with its spaces tidied, and its vector (D,). `cut`: its end lies behind what the model reads; `new`:
    the library does not remember it."""

    text: str
    vector: npt.NDArray[np.float32]
    cut: bool
    new: bool


def sentence_vector(
    library: Reading,
    live: EncoderInfo,
    text: str,
    encoder: TextEncoder | None = None,
    *,
    cache: bool = True,
) -> Sentence:
    """A sentence's vector: cached, or embedded now and cached then. One that is cut is embedded each time."""
    text = tidied(text)
    if not text:
        raise VsearchError("the query is empty; describe what should be seen, like a caption")
    known = library.cached_text(live.id, text)
    if known is not None:
        return Sentence(text, known, cut=False, new=False)
    sentence = Sentence(text, *_embedded(text, own_or_given(live, encoder)), new=True)
    if cache:
        keep_sentence(library, live, sentence)
    return sentence


def keep_sentence(library: Reading, live: EncoderInfo, sentence: Sentence) -> None:
    """Have the library remember it, where that is of use."""
    if sentence.new and not sentence.cut:
        library.cache_text(live.id, sentence.text, sentence.vector)


def _embedded(text: str, encoder: TextEncoder) -> tuple[npt.NDArray[np.float32], bool]:
    """A vector (D,), and whether the end of the sentence went unread: whatever the model and its words are, what it does
    not read changes nothing, be it less or more."""
    if len(text.encode()) < _SURELY_READ:
        return encoder.embed_texts([text])[0], False
    vector, less, more = encoder.embed_texts([text, text[:-1], f"{text} on grass"])
    return vector, bool(max(np.abs(vector - less).max(), np.abs(vector - more).max()) < 1e-5)


def tidied(text: str) -> str:
    """A sentence as it is cached and encoded: its spaces single. Raises VsearchError when it is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that the terminal's encoding did not know
        try:
            text = os.fsencode(text).decode()
        except UnicodeError:
            raise VsearchError("the query is not readable text: write it in UTF-8") from None
    return " ".join(text.split())


def own_or_given(live: EncoderInfo, given: TextEncoder | None) -> TextEncoder:
    """The encoder that was given if it is the library's, else the library's, from where the given one comes from."""
    if given is not None and given.identity == live.identity:
        return given
    return given.of(live) if isinstance(given, LazyEncoder) else Encoders().text(live)


def check_threshold(threshold: float | None) -> None:
    """Raises VsearchError for what nothing can be compared with."""
    if threshold is not None and not math.isfinite(threshold):
        raise VsearchError(f"the threshold must be a number such as 0.25, not {threshold}")


def files_there(videos: Sequence[Video]) -> tuple[str, tuple[str, ...], bool]:
    """Of files with one content: the path to name, the others, and whether all are gone from where they were.

    One that is there goes first, and those that are not are only named when none is.
    """
    paths = [str(video.path) for video in videos]
    there = [path for path in paths if os.path.exists(path)]
    first, *others = there or paths
    return first, tuple(others), not there


def _answer(
    library: Reading,
    encoder: EncoderInfo,
    label: str,
    query: npt.NDArray[np.float32],
    number: int,
    neutral: NeutralScores | None,
    *,
    threshold: float | None = None,
    least: str | None = None,
    keep: Callable[[Moment], bool] = lambda m: True,
    only: Only | None = None,
    view: OpenIndex | None = None,
) -> Answer:
    index = view(library) if view else library.open_live()
    judge = Judge.of(neutral, query, index.generation.count)
    wanted = max(MIN_CANDIDATES, CANDIDATES_PER_VIDEO * number)
    while True:
        scores, ids = index.search(query[None], wanted)
        nearest = dict(zip(ids[0].tolist(), scores[0].tolist(), strict=True))
        moments = [m for m in library.moments(list(nearest)) if only is None or any(map(only, m.videos))]
        enough = only is None or len({m.fingerprint for m in moments}) >= number
        if enough or wanted >= index.generation.count:
            break
        wanted *= 4  # what may answer lies further off
    # A damaged file costs its own re-ranking, not the query.
    frames = library.sound_frames(moment.frame_set_id for moment in moments)
    re_ranks = bool(encoder.spec["head"].get("frame_space"))
    averages = encoder.spec["head"].get("recipe") == "zero-shot"
    scored, kept = [], []
    chances = {} if judge is None else judge.chances_of([m.id for m in moments], nearest)
    chance_of: dict[int, float] = {}  # by video id: of its likeliest moment
    files: dict[int, tuple[Video, ...]] = {}
    frames_of: dict[int, FrameSet | None] = {}  # by video id
    coarse: set[int] = set()  # video ids
    for moment in moments:
        score = nearest[moment.id]
        found_frames = frames.get(moment.frame_set_id)
        if found_frames is not None and not _within(moment, found_frames):
            library.report_moments(moment)
            continue
        if found_frames is not None and re_ranks:
            window = found_frames.vectors[moment.first_frame : moment.last_frame]
            if averages and abs(mean_similarity(window, query) - score) > _ROUNDING:
                library.report_moments(moment)
                continue
            score = query_scored_similarity(window, query)
        copies = tuple(v for v in moment.videos if only is None or only(v))
        video = copies[0]  # copies of one content are one answer, under the first path
        files[video.id] = copies
        frames_of[video.id] = found_frames if re_ranks else None
        coarse |= {video.id} if moment.coarse else set()
        scored.append(Scored(video.id, moment.start_ms, moment.end_ms, score))
        if moment.id in chances:
            chance_of[video.id] = min(chances[moment.id], chance_of.get(video.id, 1.0))
        if keep(moment) and (threshold is None or score >= threshold):
            kept.append(scored[-1])
    contrast = EVENT_CONTRAST * score_spread(scored)
    hits = []
    groups = [g for g in group_by_video(kept) if at_least(least, chance_of.get(g.best.video_id))]
    for rank, found in enumerate(groups[:number], start=1):
        video_id = found.best.video_id
        shown = frames_of[video_id]
        if shown is not None:
            fit = frame_cosines(shown.vectors, query)
            split = (split_into_events(m, shown.times_ms, fit, contrast) for m in found.moments)
            events = [e for e in itertools.chain(*split) if threshold is None or e.score >= threshold]
            found = VideoAnswer(tuple(sorted(events, key=lambda m: (-m.score, m.start_ms))))
        library.report_changed(files[video_id])
        hits.append(_hit(rank, found, files[video_id], chance_of.get(video_id), coarse=video_id in coarse))
    return Answer(label, str(encoder.spec["model"]), is_confident(hits), tuple(hits))


def _within(moment: Moment, frames: FrameSet) -> bool:
    """Whether a moment's frames are those of its time, neither fewer nor more."""
    times = frames.times_ms
    first, last = moment.first_frame, moment.last_frame
    return bool(
        (first == 0 or times[first - 1] < moment.start_ms)
        and moment.start_ms <= times[first]
        and times[last - 1] <= moment.end_ms
        and (last == len(times) or times[last] >= moment.end_ms)
    )


def _hit(
    rank: int,
    found: VideoAnswer,
    files: tuple[Video, ...],
    chance: float | None,
    *,
    coarse: bool,
) -> Hit:
    best = found.best
    path, also_at, gone = files_there(files)
    return Hit(
        rank,
        path,
        best.video_id,
        best.start_ms,
        best.end_ms,
        best.score,
        *judged(chance),
        found.moments[1:],
        also_at,
        coarse,
        gone,
    )
