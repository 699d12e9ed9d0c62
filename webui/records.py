"""What the API answers, as it is documented in /openapi.json. Times in seconds, scores are cosines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from vsearch.webui.media import plays_in_browsers

if TYPE_CHECKING:
    from vsearch.records import Video
    from vsearch.retriever import Answer, Hit

SCHEMA_VERSION = 1


class Versioned(BaseModel):
    schema_version: int = SCHEMA_VERSION


class Health(Versioned):
    status: str = "ok"
    library: bool


class Refusal(Versioned):
    """`detail`: which values have the wrong form."""

    error: str
    detail: list[dict[str, Any]] | None = None


class MomentRecord(BaseModel):
    start: float
    end: float
    score: float


class HitRecord(MomentRecord):
    """`more`: the video's other moments, best first. `also_at`: copies of the file. `playable`: in browsers, as it is.
    `coarse`: found by keyframes alone, as the run at full rate has not come to the video yet. `content`: `v` in the
    addresses of its pictures."""

    rank: int
    video: int
    content: str | None
    path: str
    strength: str | None
    probability: float | None
    more: list[MomentRecord]
    also_at: list[str]
    playable: bool
    coarse: bool
    gone: bool


class AnswerRecord(Versioned):
    """`confident` is false when no hit is likely; `language`: that of the sentence, where the model does not read it; `cut` is true when the end of the
    sentence was not read, as it is longer than the model takes."""

    query: str
    model: str
    confident: bool
    cut: bool
    language: str | None
    hits: list[HitRecord]


class Look(Versioned):
    """`look` asks with the upload; only who knows it can."""

    look: str


class Point(BaseModel):
    time: float
    score: float


class TimelineRecord(Versioned):
    points: list[Point]
    duration: float


class VideoRecord(BaseModel):
    """`modified`: seconds since 1970. `playable`: whether browsers play the file; else ask /clip. `content`: names
    what is in the file, `v` in the addresses of its pictures; null for what could not be read."""

    id: int
    content: str | None
    path: str
    state: str
    reason: str | None
    duration: float
    modified: float
    codec: str | None
    width: int | None
    height: int | None
    playable: bool


class OneVideo(Versioned):
    video: VideoRecord


class Videos(Versioned):
    total: int
    videos: list[VideoRecord]


class DetectionRecord(BaseModel):
    """`score`: how likely, 0 to 1."""

    label: str
    start: float
    end: float
    score: float


class Localized(Versioned):
    video: VideoRecord
    detections: list[DetectionRecord]


class Running(BaseModel):
    """A run at work on the library, whoever started it."""

    stage: str
    videos: int
    videos_done: int
    frames: int
    frames_per_s: float
    eta_s: float | None
    warnings: int


class JobRecord(BaseModel):
    name: str
    running: bool
    error: str | None


class HeadRecord(BaseModel):
    """`choice` names it in POST /api/head; None: cannot be chosen (it is at work)."""

    name: str
    choice: str | None
    live: bool


class Folder(BaseModel):
    path: str
    videos: int


class LibraryRecord(Versioned):
    """`coarse`: videos of which only keyframes are indexed so far. `troubled`: failed, partial and missing videos,
    500 of each at most."""

    videos: dict[str, int]
    coarse: int
    duration: float
    frames: int
    moments: int
    bytes: int
    model: str | None
    head: str | None
    generation: int | None
    up_to_date: bool
    troubled: list[VideoRecord]
    folders: list[Folder]
    running: Running | None
    job: JobRecord | None
    heads: list[HeadRecord]
    can_roll_back: bool


def answer_record(answer: Answer, videos: Mapping[int, Video]) -> AnswerRecord:
    return AnswerRecord(
        query=text(answer.query), model=answer.model, confident=answer.confident, cut=answer.cut,
        language=answer.language,
        hits=[hit_record(hit, videos.get(hit.video_id)) for hit in answer.hits],
    )  # fmt: skip


def hit_record(hit: Hit, video: Video | None) -> HitRecord:
    return HitRecord(
        rank=hit.rank, video=hit.video_id, content=video.fingerprint if video is not None else None,
        path=text(hit.path), start=hit.start_ms / 1000, end=hit.end_ms / 1000,
        score=round(hit.score, 6), strength=hit.strength,
        probability=None if hit.probability is None else round(hit.probability, 4),
        more=[MomentRecord(start=m.start_ms / 1000, end=m.end_ms / 1000, score=round(m.score, 6)) for m in hit.more],
        also_at=[text(path) for path in hit.also_at],
        playable=video is not None and plays_in_browsers(video), coarse=hit.coarse, gone=hit.gone,
    )  # fmt: skip


def video_record(video: Video) -> VideoRecord:
    return VideoRecord(
        id=video.id, content=video.fingerprint, path=text(os.fspath(video.path)), state=video.state, reason=text(video.reason or "") or None,
        duration=seconds(video), modified=video.mtime_ns / 1e9, codec=video.media.codec if video.media else None,
        width=video.media.width if video.media else None, height=video.media.height if video.media else None,
        playable=plays_in_browsers(video),
    )  # fmt: skip


def seconds(video: Video) -> float:
    return video.media.duration_ms / 1000 if video.media else 0.0


def text(name: str) -> str:
    """Bytes of a name that are not UTF-8 become \\udcXX in letters: JSON on the wire must be valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
