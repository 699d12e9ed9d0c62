"""The HTTP endpoints. Records have the shapes of docs/json.md, with ids and addresses added; see docs/api.md."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from vsearch.errors import VsearchError
from vsearch.webui import media
from vsearch.webui.engine import Engine

if TYPE_CHECKING:
    from vsearch.library import Video
    from vsearch.retriever import Answer, Hit

SCHEMA_VERSION = 1
TIMELINE_POINTS = 400
MAX_ACTIONS, MAX_LISTED = 50, 5000
router = APIRouter()

Text = Annotated[str, Query(min_length=1, max_length=500, description="What is to be seen, like a caption.")]
Number = Annotated[int, Query(ge=1, le=1000, description="At most so many videos.")]
Seconds = Annotated[float, Query(ge=0, le=1e6)]


@router.get("/health")
def health(request: Request) -> dict[str, Any]:
    """Is the server up, and is there something to search?"""
    from vsearch.library import Library

    return _versioned(status="ok", library=Library.exists(_engine(request).path))


@router.get("/api/search")
def search(request: Request, q: Text, n: Number = 24) -> Response:
    """The moments that a sentence describes, each video's best one first."""
    return _answer(_engine(request).search(q, n))


@router.get("/api/similar")
def similar(request: Request, video: int, t: Seconds, n: Number = 24) -> Response:
    """Moments that look like a video's picture at `t` seconds."""
    from vsearch.retriever import search_similar

    engine = _engine(request)
    return _answer(search_similar(engine.library(), engine.video(video), round(t * 1000), number=n))


@router.get("/api/timeline/{id}")
def timeline(request: Request, id: int, q: Text) -> Response:
    """How well each part of a video fits a sentence asked before: at most 400 points, `score` a cosine."""
    import numpy as np

    from vsearch.retriever import live_encoder
    from vsearch.retriever.actions import timeline_of

    engine = _engine(request)
    library, video = engine.library(), engine.video(id)
    query = library.cached_text(live_encoder(library).id, " ".join(q.split()))
    if query is None:
        raise VsearchError("search for this sentence first")
    frames = timeline_of(library, video)
    fit = frames.unit @ np.asarray(query, dtype=np.float32)  # (T,)
    runs = np.array_split(np.arange(len(fit)), max(1, min(TIMELINE_POINTS, len(fit))))
    points = [
        {"time": float(frames.edges_ms[run[0]]) / 1000, "score": round(float(fit[run].max()), 4)}
        for run in runs
        if len(run)
    ]
    return _json(_versioned(points=points, duration=_seconds(video)))


@router.get("/api/localize")
def localize(request: Request, video: int, actions: Text, threshold: float = 0.5) -> Response:
    """When the named actions (with commas between) happen in a video."""
    from vsearch.retriever.actions import localize_videos
    from vsearch.retriever.localize import Limits

    names = [name for name in dict.fromkeys(" ".join(a.split()) for a in actions.split(",")) if name]
    if not 1 <= len(names) <= MAX_ACTIONS:
        raise VsearchError(f"give between one and {MAX_ACTIONS} action names with commas between")
    if not 0 <= threshold <= 1:
        raise VsearchError("the threshold is a probability, from 0 to 1")
    engine = _engine(request)
    source = engine.video(video)
    with engine.model:
        found = localize_videos(engine.library(), [source], names, limits=Limits(20, 100, threshold))[source]
    detections = [
        {"label": d.label, "start": d.start_ms / 1000, "end": d.end_ms / 1000, "score": round(d.score, 4)}
        for d in found
    ]
    return _json(_versioned(video=_video_record(source), detections=detections))


@router.get("/api/videos")
def videos(request: Request) -> Response:
    """The first 5,000 videos of the library in path order."""
    listed = _engine(request).library().videos()
    return _json(_versioned(total=len(listed), videos=[_video_record(v) for v in listed[:MAX_LISTED]]))


@router.get("/api/videos/{id}")
def video(request: Request, id: int) -> Response:
    """One video: path, state, reason of a failure, duration, codec."""
    return _json(_versioned(video=_video_record(_engine(request).video(id))))


@router.get("/api/library")
def library(request: Request) -> Response:
    """Videos by state, failures with reasons, the model and whether the index is up to date."""
    opened = _engine(request).library()
    state = opened.summary()
    troubled = [
        _video_record(v) for name in ("failed", "partial", "missing") for v in opened.videos(name)[:500]
    ]
    return _json(
        _versioned(
            videos=state.videos,
            duration=state.duration_ms / 1000,
            frames=state.frame_count,
            moments=state.moment_count,
            bytes=sum(state.bytes.values()),
            model=state.encoder.identity if state.encoder else None,
            up_to_date=state.up_to_date,
            troubled=troubled,
        )
    )


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


def _engine(request: Request) -> Engine:
    return request.app.state.engine


def _answer(answer: Answer) -> Response:
    hits = [_hit_record(hit) for hit in answer.hits]
    head = {"query": _text(answer.query), "model": answer.model, "confident": answer.confident}
    return _json(_versioned(**head, hits=hits))


def _hit_record(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "video": hit.video_id,
        "path": _text(hit.path),
        "start": hit.start_ms / 1000,
        "end": hit.end_ms / 1000,
        "score": round(hit.score, 6),
        "strength": hit.strength,
        "more": [
            {"start": m.start_ms / 1000, "end": m.end_ms / 1000, "score": round(m.score, 6)} for m in hit.more
        ],
        "also_at": [_text(path) for path in hit.also_at],
    }


def _video_record(video: Video) -> dict[str, Any]:
    return {
        "id": video.id,
        "path": _text(os.fspath(video.path)),
        "state": video.state,
        "reason": _text(video.reason or "") or None,
        "duration": _seconds(video),
        "codec": video.media.codec if video.media else None,
        "width": video.media.width if video.media else None,
        "height": video.media.height if video.media else None,
        "playable": media.plays_in_browsers(video),
    }


def _seconds(video: Video) -> float:
    return video.media.duration_ms / 1000 if video.media else 0.0


def _text(text: str) -> str:
    """Bytes of a name that are not UTF-8 become \\udcXX in letters: JSON on the wire must be valid UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _versioned(**fields: Any) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, **fields}


def _json(value: dict[str, Any]) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-store"})
