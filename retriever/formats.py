"""Detections as files for evaluators, spreadsheets, players and editors.

ActivityNet prediction JSON, CSV, SubRip (SRT), WebVTT and CMX 3600 edit decision lists (EDL). Labels and file
names are hostile input: control characters go, and nothing can end a cue or run as a formula.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from vsearch.errors import VsearchError
from vsearch.retriever.actions import Detection

FORMATS = ("activitynet", "csv", "srt", "vtt", "edl")

Found = Mapping[str, Sequence[Detection]]  # detections by the video's name or path


def render(found: Found, fmt: str, fps: float = 25.0) -> str:
    """Text in one of FORMATS but activitynet. SRT and VTT hold one video. Raises VsearchError.

    fps: that of the video, for the frame numbers of an EDL.
    """
    if fmt == "csv":
        return to_csv(found)
    if fmt == "edl":
        return to_edl(found, fps)
    if fmt not in ("srt", "vtt"):
        raise VsearchError(f"unknown format {fmt!r}; use {', '.join(FORMATS)}")
    if len(found) != 1:
        raise VsearchError(
            f"{fmt} subtitles belong to one video, not to {len(found)}; name one video, or use csv"
        )
    (detections,) = found.values()
    return to_srt(detections) if fmt == "srt" else to_vtt(detections)


def to_activitynet(found: Found) -> dict[str, Any]:
    """ActivityNet's prediction format: segments in seconds, best first."""
    results = {
        video: [
            {"label": d.label, "score": round(d.score, 6), "segment": [d.start_ms / 1000, d.end_ms / 1000]}
            for d in detections
        ]
        for video, detections in found.items()
    }
    return {"version": "VERSION 1.3", "results": results, "external_data": {}}


def to_csv(found: Found) -> str:
    """Columns video, start, end (seconds), label, score; with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "start", "end", "label", "score"])
    for video, detections in found.items():
        for d in detections:
            row = [f"{d.start_ms / 1000:.3f}", f"{d.end_ms / 1000:.3f}", _cell(d.label), f"{d.score:.4f}"]
            writer.writerow([_cell(video), *row])
    return text.getvalue()


def to_srt(detections: Sequence[Detection]) -> str:
    """One numbered cue a detection, in time order; cues may overlap."""
    cues = [
        f"{i}\n{_clock(d.start_ms, ',')} --> {_clock(d.end_ms, ',')}\n{_cue(d.label)}\n"
        for i, d in enumerate(_in_time(detections), start=1)
    ]
    return "\n".join(cues)


def to_vtt(detections: Sequence[Detection]) -> str:
    """WebVTT, one cue a detection, in time order."""
    cues = []
    for d in _in_time(detections):
        text = _cue(d.label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"\n{_clock(d.start_ms, '.')} --> {_clock(d.end_ms, '.')}\n{text}\n")
    return "WEBVTT\n" + "".join(cues)


def to_edl(found: Found, fps: float) -> str:
    """CMX 3600, one cut a detection, one after the other on the record side; non-drop-frame timecode."""
    if not fps > 0:
        raise VsearchError(f"an EDL needs the frame rate of the video, not {fps}")
    lines = ["TITLE: vsearch", "FCM: NON-DROP FRAME", ""]
    record, number = 0, 0
    for video, detections in found.items():
        for d in _in_time(detections):
            first, last = round(d.start_ms * fps / 1000), round(d.end_ms * fps / 1000)
            last = max(last, first + 1)
            number += 1
            source = f"{_timecode(first, fps)} {_timecode(last, fps)}"
            target = f"{_timecode(record, fps)} {_timecode(record + last - first, fps)}"
            lines.append(f"{number:03d}  AX       V     C        {source} {target}")
            lines.append(f"* FROM CLIP NAME: {_plain(video)}")
            lines.append(f"* COMMENT: {_plain(d.label)} {d.score:.3f}")
            record += last - first
    return "\n".join(lines) + "\n"


def _in_time(detections: Sequence[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda d: (d.start_ms, d.end_ms, d.label))


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{ms:03d}"


def _timecode(frame: int, fps: float) -> str:
    """Non-drop-frame: frames are counted at the nearest whole rate (29.97 at 30)."""
    rate = max(1, round(fps))
    seconds, frame = divmod(frame, rate)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}:{frame:02d}"


def _plain(text: str) -> str:
    """One line without control characters; bytes that are not UTF-8 become visible."""
    readable = text.encode("utf-8", "backslashreplace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in readable).split()) or "?"


def _cue(text: str) -> str:
    return _plain(text).replace("-->", "->")


def _cell(text: str) -> str:
    """A leading = + - or @ would run as a formula in a spreadsheet."""
    plain = _plain(text)
    return "'" + plain if plain.startswith(("=", "+", "-", "@")) else plain
