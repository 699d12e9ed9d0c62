"""The HTTP endpoints; records.py has what they answer, docs/api.md tells of them."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, PlainTextResponse, Response
from pydantic import BaseModel

from vsearch.errors import VsearchError
from vsearch.webui import heads, media
from vsearch.webui.engine import Engine, Question
from vsearch.webui.filters import Filters
from vsearch.webui.records import (
    AnswerRecord,
    DetectionRecord,
    Folder,
    Health,
    JobRecord,
    LibraryRecord,
    Localized,
    Look,
    OneVideo,
    Point,
    Running,
    TimelineRecord,
    Videos,
    answer_record,
    seconds,
    text,
    video_record,
)
from vsearch.webui.refusals import REFUSALS
from vsearch.webui.uploads import received

if TYPE_CHECKING:
    from vsearch.retriever.localize import Detection

TIMELINE_POINTS = 400
MAX_ACTIONS, MAX_LISTED, MAX_TROUBLED, MAX_FOLDERS = 50, 5000, 500, 500
router = APIRouter(responses=REFUSALS)

Text = Annotated[str, Query(min_length=1, max_length=500, description="What is to be seen, like a caption.")]
Number = Annotated[int, Query(ge=1, le=1000, description="At most so many videos.")]
Seconds = Annotated[float, Query(ge=0, le=1e6)]
Date = Annotated[datetime.date | None, Query(description="YYYY-MM-DD, of the file's last change.")]
Length = Annotated[float | None, Query(ge=0, le=1e6, description="Seconds.")]


def _engine(request: Request) -> Engine:
    return request.app.state.engine


def _filters(
    folder: Annotated[str | None, Query(max_length=4096)] = None,
    after: Date = None,
    before: Date = None,
    shortest: Length = None,
    longest: Length = None,
) -> Filters:
    return Filters(folder or None, after, before, shortest, longest)


def _question(
    q: Annotated[str | None, Query(max_length=500, description="A sentence")] = None,
    video: Annotated[int | None, Query(description="or the picture of this video")] = None,
    t: Seconds = 0.0,
    look: Annotated[str | None, Query(max_length=64, description="or an upload, see POST /api/look")] = None,
) -> Question:
    if sum(part is not None for part in (q, video, look)) != 1:
        raise VsearchError("ask with one of q (a sentence), video and t (a picture), or look (an upload)")
    return Question(q, video, round(t * 1000), look)


Asked = Annotated[Question, Depends(_question)]
Kept = Annotated[Filters, Depends(_filters)]


@router.get("/health")
def health(request: Request) -> Health:
    """Is the server up, and is there something to search?"""
    from vsearch.library import Library

    return Health(library=Library.exists(_engine(request).path))


@router.get("/api/search")
def search(request: Request, question: Asked, filters: Kept, n: Number = 24) -> AnswerRecord:
    """The moments that fit a sentence, a picture or an upload; each video's best one first."""
    engine = _engine(request)
    return answer_record(engine.search(question, n, filters), engine.videos())


@router.get("/api/similar")
def similar(request: Request, video: int, t: Seconds, filters: Kept, n: Number = 24) -> AnswerRecord:
    """Moments that look like a video's picture at `t` seconds."""
    engine = _engine(request)
    asked = Question(video=video, time_ms=round(t * 1000))
    return answer_record(engine.search(asked, n, filters), engine.videos())


@router.post(
    "/api/look",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def look(request: Request) -> Look:
    """Take a picture (JPEG, PNG, WebP, GIF) or a clip of at most 60 s as the body; nothing of it stays on disk."""
    if not request.app.state.uploads.acquire(blocking=False):
        raise HTTPException(503, "other uploads are being looked at; try again", {"retry-after": "2"})
    try:
        async with received(request) as file:
            return Look(look=await run_in_threadpool(_engine(request).keep_look, file))
    finally:
        request.app.state.uploads.release()


@router.get("/api/timeline/{id}")
def timeline(request: Request, id: int, question: Asked) -> TimelineRecord:
    """How well each part of video `id` fits a question: at most 400 points, `score` a cosine."""
    import numpy as np

    from vsearch.retriever import live_encoder
    from vsearch.retriever.actions import dense_timeline_of, timeline_of

    engine = _engine(request)
    library, video = engine.library(), engine.video(id)
    plain = live_encoder(library).spec["head"].get("frame_space")
    frames = (timeline_of if plain else dense_timeline_of)(library, video)
    fit = frames.unit @ np.asarray(engine.vector(question), dtype=np.float32)  # (T,)
    runs = np.array_split(np.arange(len(fit)), max(1, min(TIMELINE_POINTS, len(fit))))
    points = [
        Point(time=float(frames.edges_ms[run[0]]) / 1000, score=round(float(fit[run].max()), 4))
        for run in runs
        if len(run)
    ]
    return TimelineRecord(points=points, duration=seconds(video))


@router.get("/api/localize", response_model=Localized)
def localize(
    request: Request,
    video: int,
    actions: Text,
    threshold: Annotated[float, Query(ge=0, le=1)] = 0.5,
    format: Annotated[str, Query(pattern="^(json|csv|srt|vtt)$")] = "json",
) -> Localized | Response:
    """When the named actions (with commas between) happen in a video."""
    from vsearch.retriever.formats import render

    names = [name for name in dict.fromkeys(" ".join(a.split()) for a in actions.split(",")) if name]
    if not 1 <= len(names) <= MAX_ACTIONS:
        raise VsearchError(f"give between one and {MAX_ACTIONS} action names with commas between")
    engine = _engine(request)
    source = engine.video(video)
    found: list[Detection] = engine.localize(source, names, threshold)
    if format != "json":
        attach = {"content-disposition": f'attachment; filename="actions-{video}.{format}"'}
        return PlainTextResponse(render({str(source.path): found}, format), headers=attach)
    return Localized(video=video_record(source), detections=[
        DetectionRecord(label=d.label, start=d.start_ms / 1000, end=d.end_ms / 1000, score=round(d.score, 4))
        for d in sorted(found, key=lambda d: (d.start_ms, d.end_ms, d.label))
    ])  # fmt: skip


@router.get("/api/videos")
def videos(request: Request) -> Videos:
    """The first 5,000 videos of the library in path order."""
    listed = list(_engine(request).videos().values())
    return Videos(total=len(listed), videos=[video_record(v) for v in listed[:MAX_LISTED]])


@router.get("/api/videos/{id}")
def video(request: Request, id: int) -> OneVideo:
    """One video: path, state, reason of a failure, duration, codec."""
    return OneVideo(video=video_record(_engine(request).video(id)))


@router.get("/api/library")
def library(request: Request) -> LibraryRecord:
    """Videos by state, failures with reasons, the run at work, the model and heads."""
    from vsearch.indexer.shared_progress import running

    engine = _engine(request)
    opened = engine.library()
    state = opened.summary()
    every = list(engine.videos().values())
    troubled = [v for name in ("failed", "partial", "missing") for v in _in_state(every, name)[:MAX_TROUBLED]]
    folders = Counter(v.path.parent for v in every if v.state in ("indexed", "partial"))
    at_work, job = running(opened.path), request.app.state.jobs.state()
    return LibraryRecord(
        videos=state.videos, coarse=state.coarse, duration=state.duration_ms / 1000, frames=state.frame_count,
        moments=state.moment_count, bytes=sum(state.bytes.values()),
        model=str(state.encoder.spec["model"]) if state.encoder else None,
        head=state.encoder.head if state.encoder else None,
        generation=state.generation.id if state.generation else None, up_to_date=state.up_to_date,
        troubled=[video_record(v) for v in troubled],
        folders=[Folder(path=text(str(f)), videos=n) for f, n in sorted(folders.items())[:MAX_FOLDERS]],
        running=Running.model_validate(at_work) if at_work else None,
        job=JobRecord(name=job.name, running=job.running, error=job.error) if job else None,
        heads=heads.listed(opened, request.app.state.heads),
        can_roll_back=any(g.encoder_id != state.encoder.id for g in opened.generations()) if state.encoder else False,
    )  # fmt: skip


@router.post("/api/retry")
def retry(request: Request) -> LibraryRecord:
    """Index again what failed or could be read only in part (500 files at most)."""
    failed = [
        v.path for name in ("failed", "partial") for v in _in_state(_engine(request).videos().values(), name)
    ]
    present = [path for path in failed if path.exists()]
    if not present:
        raise VsearchError("nothing has failed here whose file is still there")
    request.app.state.jobs.retry(present)
    return library(request)


class HeadChoice(BaseModel):
    """`choice` of one of `heads` in /api/library; null: back to the head before."""

    choice: str | None


@router.post("/api/head")
def head(request: Request, wanted: HeadChoice) -> LibraryRecord:
    """Adopt a head, or go back to the one before. No video is opened for it."""
    from vsearch.indexer.adopt import rollback

    opened = _engine(request).library()
    if wanted.choice is None:
        rollback(opened)
    else:
        request.app.state.jobs.adopt(heads.checkpoint(opened, request.app.state.heads, wanted.choice))
    return library(request)


@router.get("/thumb/{id}")
def thumb(request: Request, id: int) -> Response:
    """A video's poster, a JPEG."""
    engine = _engine(request)
    path = engine.library().poster(engine.video(id).fingerprint or "")
    if path is None:
        raise HTTPException(404, "this video has no poster")
    return FileResponse(path, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.get("/media/{id}")
def media_file(request: Request, id: int) -> Response:
    """The video file, whole or one range of it."""
    source = _engine(request).video(id)
    kind = media.TYPES.get(media.container_family(source), "application/octet-stream")
    return media.send_file(media.open_source(source), kind, request.headers.get("range"))


@router.get("/clip/{id}")
def clip(request: Request, id: int, start: Seconds, end: Seconds, download: bool = False) -> Response:
    """A range of a video as H.264, at most 60 s, made now and kept for a while."""
    source = _engine(request).video(id)
    file = request.app.state.previews.get(source, round(start * 1000), round(end * 1000))
    name = f"clip-{id}-{start:.1f}.mp4" if download else None
    return media.send_file(file, "video/mp4", request.headers.get("range"), name=name)


def _in_state(videos: Any, state: str) -> list[Any]:
    return [video for video in videos if video.state == state]
