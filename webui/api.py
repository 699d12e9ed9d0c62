"""The HTTP endpoints; records.py has what they answer, docs/api.md tells of them."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from vsearch.errors import VsearchError
from vsearch.webui import heads, media
from vsearch.webui.http import REFUSALS, send_bytes, send_file
from vsearch.webui.questions import Filters, PageQuestion, Visitors
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
    Refusal,
    Running,
    TimelineRecord,
    Videos,
    answer_record,
    seconds,
    text,
    video_record,
)
from vsearch.webui.uploads import received

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.retriever import Answer, Session

TIMELINE_POINTS = 400
MAX_ACTIONS, MAX_LISTED, MAX_TROUBLED, MAX_FOLDERS = 50, 5000, 500, 500
OTHER = "application/octet-stream"
FORMATS = {"csv": "text/csv", "srt": "application/x-subrip", "vtt": "text/vtt"}
router = APIRouter(responses=REFUSALS)


def _answers(*kinds: str, ranges: bool = True) -> dict[int | str, dict[str, Any]]:
    """What an address of a file may answer, for the OpenAPI description."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    whole: dict[int | str, dict[str, Any]] = {
        200: {"description": "All of it", "content": content},
        304: {"description": "What the asker has is still right"},
    }
    part: dict[int | str, dict[str, Any]] = {
        206: {"description": "The range that was asked for", "content": content},
        412: {"description": "What the asker has is no longer right", "model": Refusal},
        416: {"description": "No such range", "model": Refusal},
    }
    return {**whole, **part} if ranges else whole


Text = Annotated[str, Query(min_length=1, max_length=500, description="What is to be seen, like a caption.")]
Number = Annotated[int, Query(ge=1, le=1000, description="At most so many videos.")]
Seconds = Annotated[float, Query(ge=0, le=1e6)]
Date = Annotated[datetime.date | None, Query(description="YYYY-MM-DD, of the file's last change.")]
Content = Annotated[
    str | None, Query(max_length=64, description="`content` of the video: names what is asked for.")
]
Length = Annotated[float | None, Query(ge=0, le=1e6, description="Seconds.")]


def _visitors(request: Request) -> Visitors:
    return request.app.state.visitors


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
) -> PageQuestion:
    if sum(part is not None for part in (q, video, look)) != 1:
        raise VsearchError("ask with one of q (a sentence), video and t (a picture), or look (an upload)")
    return PageQuestion(q, video, round(t * 1000), look)


Asked = Annotated[PageQuestion, Depends(_question)]
Kept = Annotated[Filters, Depends(_filters)]


@router.get("/health")
def health(request: Request) -> Health:
    """Is the server up, and is there something to search?"""
    from vsearch.library import Library

    return Health(library=Library.exists(request.app.state.library))


@router.get("/api/search")
def search(request: Request, question: Asked, filters: Kept, n: Number = 24) -> AnswerRecord:
    """The moments that fit a sentence, a picture or an upload; each video's best one first."""
    visitors = _visitors(request)
    return _answered(visitors, visitors.search(question, n, filters))


@router.get("/api/similar")
def similar(request: Request, video: int, t: Seconds, filters: Kept, n: Number = 24) -> AnswerRecord:
    """Moments that look like a video's picture at `t` seconds."""
    visitors = _visitors(request)
    asked = PageQuestion(video=video, time_ms=round(t * 1000))
    return _answered(visitors, visitors.search(asked, n, filters))


def _answered(visitors: Visitors, answer: Answer) -> AnswerRecord:
    return answer_record(answer, visitors.library.videos_of([hit.video_id for hit in answer.hits]))


@router.post(
    "/api/look",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def look(request: Request) -> Look:
    """Take a picture (JPEG, PNG, WebP, GIF) or a clip of at most 60 s as the body; nothing of it stays on disk."""
    uploads = request.app.state.uploads
    async with received(request) as file:
        if not uploads.acquire(blocking=False):
            raise HTTPException(503, "other uploads are being looked at; try again", {"retry-after": "2"})
        try:
            return Look(look=await run_in_threadpool(_visitors(request).keep_look, file))
        finally:
            uploads.release()


@router.get("/api/timeline/{id}")
def timeline(request: Request, id: int, question: Asked) -> TimelineRecord:
    """How well each part of video `id` fits a question: at most 400 points, `score` a cosine."""
    import numpy as np

    from vsearch.retriever.actions import dense_timeline_of

    visitors = _visitors(request)
    library, video = visitors.library, visitors.video(id)
    frames = dense_timeline_of(library, video)
    fit = frames.unit @ np.asarray(visitors.vector(question), dtype=np.float32)  # (T,)
    runs = np.array_split(np.arange(len(fit)), max(1, min(TIMELINE_POINTS, len(fit))))
    points = [
        Point(time=float(frames.edges_ms[run[0]]) / 1000, score=round(float(fit[run].max()), 4))
        for run in runs
        if len(run)
    ]
    return TimelineRecord(points=points, duration=seconds(video))


@router.get(
    "/api/localize",
    response_model=Localized,
    responses={200: {"content": {kind: {} for kind in FORMATS.values()}}},
)
def localize(
    request: Request,
    video: int,
    actions: Text,
    threshold: Annotated[float, Query(ge=0, le=1)] = 0.4,
    format: Annotated[str, Query(pattern="^(json|csv|srt|vtt)$")] = "json",
) -> Localized | Response:
    """When the named actions (with commas between) happen in a video."""
    from vsearch.retriever import render
    from vsearch.retriever.actions import Limits

    names = [name for name in dict.fromkeys(" ".join(a.split()) for a in actions.split(",")) if name]
    if not 1 <= len(names) <= MAX_ACTIONS:
        raise VsearchError(f"give between one and {MAX_ACTIONS} action names with commas between")
    visitors = _visitors(request)
    source = visitors.video(video)
    session: Session[Library] = request.app.state.session
    detections = session.localize([source], names, limits=Limits(20, 100, threshold))[source]
    if format != "json":
        attach = {"content-disposition": f'attachment; filename="actions-{video}.{format}"'}
        body = render({str(source.path): detections}, format).encode("utf-8", "backslashreplace")
        return Response(body, headers={**attach, "content-type": f"{FORMATS[format]}; charset=utf-8"})
    return Localized(video=video_record(source), detections=[
        DetectionRecord(label=d.label, start=d.start_ms / 1000, end=d.end_ms / 1000, score=round(d.score, 4))
        for d in sorted(detections, key=lambda d: (d.start_ms, d.end_ms, d.label))
    ])  # fmt: skip


@router.get("/api/videos")
def videos(request: Request) -> Videos:
    """The first 5,000 videos of the library in path order."""
    listed = _visitors(request).library.videos()
    return Videos(total=len(listed), videos=[video_record(v) for v in listed[:MAX_LISTED]])


@router.get("/api/videos/{id}")
def video(request: Request, id: int) -> OneVideo:
    """One video: path, state, reason of a failure, duration, codec."""
    return OneVideo(video=video_record(_visitors(request).video(id)))


@router.get("/api/library")
def library(request: Request) -> LibraryRecord:
    """Videos by state, failures with reasons, the run at work, the model and heads."""
    from vsearch.indexer import running

    visitors = _visitors(request)
    opened = visitors.library
    state = opened.summary()
    every = opened.videos()
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
    known = _visitors(request).library.videos()
    failed = [v.path for name in ("failed", "partial") for v in _in_state(known, name)]
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
    from vsearch.indexer import rollback

    opened = _visitors(request).library
    if wanted.choice is None:
        rollback(opened)
    else:
        request.app.state.jobs.adopt(heads.checkpoint(opened, request.app.state.heads, wanted.choice))
    return library(request)


@router.get("/thumb/{id}", response_class=Response, responses=_answers("image/jpeg"))
def thumb(request: Request, id: int, v: Content = None) -> Response:
    """A video's poster, a JPEG."""
    visitors = _visitors(request)
    content = visitors.video(id, v).fingerprint or ""
    path = visitors.library.poster(content)
    try:
        file = path.open("rb") if path is not None else None
    except FileNotFoundError:
        file = None
    if file is None:
        raise HTTPException(404, "this video has no poster")
    return send_file(file, "image/jpeg", _tag(content, file), request.headers, named=v is not None)


@router.get("/still/{id}", response_class=Response, responses=_answers("image/jpeg", ranges=False))
def still(request: Request, id: int, t: Seconds, v: Content = None) -> Response:
    """What a video shows at `t` seconds, a JPEG."""
    jpeg = request.app.state.stills.get(_visitors(request).video(id, v), round(t * 1000))
    return send_bytes(jpeg, "image/jpeg", request.headers, named=v is not None)


@router.get("/media/{id}", response_class=Response, responses=_answers("video/mp4", "video/webm", OTHER))
def media_file(request: Request, id: int, v: Content = None) -> Response:
    """The video file, whole or one range of it."""
    source = _visitors(request).video(id, v)
    kind = media.TYPES.get(source.media.container if source.media else "", OTHER)
    file = media.open_source(source)
    return send_file(file, kind, source.fingerprint or "", request.headers, named=v is not None)


@router.get("/clip/{id}", response_class=Response, responses=_answers("video/mp4"))
def clip(
    request: Request, id: int, start: Seconds, end: Seconds, v: Content = None, download: bool = False
) -> Response:
    """A range of a video as H.264, at most 60 s, made now and kept for a while. A header `vsearch-note` says when its
    sound could not be had."""
    source = _visitors(request).video(id, v)
    start_ms, end_ms = round(start * 1000), round(end * 1000)
    file, word = request.app.state.previews.get(source, start_ms, end_ms)
    name = f"clip-{id}-{start:.1f}.mp4" if download else None
    tag = _tag(f"{source.fingerprint}-{start_ms}-{end_ms}", file)
    answer = send_file(file, "video/mp4", tag, request.headers, named=v is not None, attach=name)
    if word is not None:
        answer.headers["vsearch-note"] = word
    return answer


def _tag(content: str, file: BinaryIO) -> str:
    """For what is made from a content, and may be made otherwise one day."""
    return f"{content}-{os.fstat(file.fileno()).st_mtime_ns:x}"


def _in_state(videos: Any, state: str) -> list[Any]:
    return [video for video in videos if video.state == state]
