"""Detections as files for evaluators, spreadsheets, players and editors.

ActivityNet prediction JSON, CSV, SubRip (SRT), WebVTT and CMX 3600 edit decision lists (EDL). Labels and file
names are hostile input: control characters go, and nothing can end a cue or run as a formula.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from vsearch.errors import VsearchError
from vsearch.retriever.actions import Detection

FORMATS = ("activitynet", "csv", "srt", "vtt", "edl")

MOST_EVENTS = 999  # event numbers of CMX 3600 have three digits
DEFAULT_FPS = 25.0
_RESERVED = ("AX", "BL")  # reels that mean an auxiliary source and black

Found = Mapping[str, Sequence[Detection]]  # detections by the video's name or path


def render(found: Found, fmt: str, rates: Mapping[str, float] | None = None) -> str:
    """Text in one of FORMATS but activitynet. SRT and VTT hold one video. Raises VsearchError.

    rates: frames a second of the videos, for an EDL; of one that is not named there, 25.
    """
    if fmt == "csv":
        return to_csv(found)
    if fmt == "edl":
        return to_edl(found, rates or {})
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


def to_edl(found: Found, rates: Mapping[str, float]) -> str:
    """CMX 3600, one cut a detection, one after the other on the record side; non-drop-frame timecode.

    A source is counted at its own rate, the record side at the rate of most cuts; where the two differ, an `M2` line
    says how many of the source's frames a second are played. Raises VsearchError for more cuts than are numbered.
    """
    cuts = [(video, d) for video, detections in found.items() for d in _in_time(detections)]
    if len(cuts) > MOST_EVENTS:
        raise VsearchError(
            f"an EDL numbers {MOST_EVENTS} events and no more, and {len(cuts)} intervals were found: raise the "
            "threshold, or name fewer videos"
        )
    for video in dict.fromkeys(video for video, _ in cuts):
        if not rates.get(video, DEFAULT_FPS) > 0:
            raise VsearchError(f"an EDL needs frame rates, and that of {video} is not known: leave it out")
    counted = {video: _counted(rates.get(video, DEFAULT_FPS)) for video, _ in cuts}
    reels = _reels(counted)
    (record_fps, _), *_ = Counter(counted[video] for video, _ in cuts).most_common(1) or [(DEFAULT_FPS, 0)]
    lines = ["TITLE: vsearch", "FCM: NON-DROP FRAME", ""]
    record = 0
    for number, (video, d) in enumerate(cuts, start=1):
        fps = counted[video]
        first, last = round(d.start_ms * fps / 1000), round(d.end_ms * fps / 1000)
        last = max(last, first + 1)
        apart = f"{fps:.1f}" != f"{record_fps:.1f}"
        length = max(1, round((last - first) * record_fps / fps)) if apart else last - first
        source = f"{_timecode(first, fps)} {_timecode(last, fps)}"
        target = f"{_timecode(record, record_fps)} {_timecode(record + length, record_fps)}"
        lines.append(f"{number:03d}  {reels[video]:<8} V     C        {source} {target}")
        if apart:
            lines.append(f"M2   {reels[video]:<8}       {fps:05.1f}                {_timecode(first, fps)}")
        lines.append(f"* FROM CLIP NAME: {_plain(PurePath(video).name)}")
        lines.append(f"* SOURCE FILE: {_plain(video)}")
        lines.append(f"* COMMENT: {_plain(d.label)} {d.score:.3f}")
        record += length
    return "\n".join(lines) + "\n"


def _counted(fps: float) -> float:
    """The rate that timecode counts a source at: two digits hold no more than 99, so of faster ones every second
    frame, or fourth …"""
    while round(fps) > 99:
        fps /= 2
    return fps


def _reels(videos: Iterable[str]) -> dict[str, str]:
    """A reel's name for each video: eight capital letters and digits at most, none twice."""
    reels: dict[str, str] = {}
    for video in videos:
        name = re.sub("[^A-Z0-9]", "", PurePath(video).stem.upper())[:8] or "REEL"
        taken, number = set(reels.values()), 1
        reel = name
        while reel in taken or reel in _RESERVED:
            reel = f"{name[: 8 - len(str(number))]}{number}"
            number += 1
        reels[video] = reel
    return reels


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
