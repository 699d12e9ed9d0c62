"""Cut a moment out of a video as an H.264/AAC file that plays in every browser and player.

The cut is exact to the frame, so pictures are encoded anew. Decoding happens in a child process, as everywhere:
a damaged or hostile file can end that process, not this one.
"""

from __future__ import annotations

import json
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch import process
from vsearch.errors import MediaError, VsearchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import av

BASE_S, PER_SECOND_S = 60.0, 20.0  # deadline: encoding 4K can run well under real time on one core
MEMORY_BYTES = 6 << 30
TICKS = 90_000
SEEKABLE = ("mov", "matroska")  # elsewhere a seek can land behind its target (measured in .ts and .avi)


def export_clip(source: Path, target: Path, start_ms: int, end_ms: int, *, overwrite: bool = False) -> None:
    """Write [start_ms, end_ms) of `source` to `target` (.mp4), in one piece or not at all.

    Raises VsearchError when the target exists or cannot be written, MediaError when the source cannot be read.
    """
    if target.suffix.lower() != ".mp4":
        raise VsearchError(f"clips are written as .mp4; give a name such as {target.stem}.mp4")
    if target.exists() and not overwrite:
        raise VsearchError(f"{target} is there already; choose another name or add --force")
    if not source.is_file():
        raise MediaError(f"{source} is no longer there; run `vsearch index` so that the library knows")
    if not target.parent.is_dir():
        raise VsearchError(f"there is no folder {target.parent} to write the clip into")
    part = target.absolute().with_name(f".{os.getpid()}.part.mp4")
    order = [os.fspath(source.resolve()), os.fspath(part), start_ms, end_ms]
    deadline = BASE_S + PER_SECOND_S * (end_ms - start_ms) / 1000
    try:
        done = process.run(
            "vsearch.indexer.export:main", order, deadline_s=deadline, memory_bytes=MEMORY_BYTES
        )
        if done.returncode != 0:
            raise MediaError(f"cannot cut {source}: {done.last_line or 'the decoder crashed'}")
        os.replace(part, target)
    except process.Overdue:
        raise MediaError(f"cannot cut {source}: gave up after {deadline:.0f} s") from None
    finally:
        part.unlink(missing_ok=True)


def _cut(source: str, target: str, start_ms: int, end_ms: int) -> None:
    import av
    import numpy as np

    from vsearch.indexer.decode import DecodeOptions
    from vsearch.indexer.picture import orientation_of
    from vsearch.indexer.probe import open_video

    media, video, kind = open_video(Path(source), DecodeOptions().max_pixels)
    with media, av.open(target, "w", options={"movflags": "+faststart"}) as out:
        audio = next(iter(media.streams.audio), None)
        video.thread_type = "AUTO"
        rate = video.average_rate or Fraction(25)
        picture = out.add_stream(
            "libx264", rate=min(rate, Fraction(120)), options={"crf": "20", "preset": "veryfast"}
        )
        picture.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", rate=audio.rate or 48_000) if audio is not None else None
        zero = Fraction(max(0, media.start_time or 0), av.time_base)  # what players call 0:00
        begin, end = zero + Fraction(start_ms, 1000), zero + Fraction(end_ms, 1000)
        if kind in SEEKABLE:
            media.seek(max(0, int((begin - 1) * av.time_base)))
        wanted = [video] + ([audio] if audio is not None else [])
        shown = -1
        for frame in _frames(media, wanted, end):
            if frame.pts is None:
                continue
            at = frame.pts * frame.time_base - begin
            if isinstance(frame, av.VideoFrame):
                if at < -Fraction(1, 2) / rate or at >= end - begin:
                    continue
                ticks = max(round(at * TICKS), 0)
                if ticks <= shown:
                    continue
                shown = ticks
                upright = frame
                if (turn := orientation_of(frame)).rotation:
                    upright = av.VideoFrame.from_ndarray(
                        turn.apply(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)), "rgb24"
                    )
                if not picture.codec_context.is_open:
                    picture.width, picture.height = upright.width // 2 * 2, upright.height // 2 * 2
                    picture.codec_context.time_base = Fraction(1, TICKS)
                upright = upright.reformat(picture.width, picture.height, "yuv420p")
                upright.pts, upright.time_base = ticks, Fraction(1, TICKS)
                out.mux(picture.encode(upright))
            elif sound is not None and 0 <= at < end - begin:
                frame.pts = round(at / frame.time_base)
                out.mux(sound.encode(frame))
        if shown < 0:
            raise MediaError("no picture could be decoded there")
        out.mux(picture.encode())
        if sound is not None and sound.codec_context.is_open:
            out.mux(sound.encode())


def _frames(media: av.container.InputContainer, streams: list[Any], end: Fraction) -> Iterator[Any]:
    """Frames of all streams until the video passes `end`; what cannot be decoded is passed over."""
    import av

    for packet in media.demux(streams):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        yield from frames
        late = packet.pts is not None and packet.pts * packet.time_base > end + 1
        if late and packet.stream.type == "video":
            return


def main() -> None:
    """Of the child."""
    try:
        _cut(*json.load(sys.stdin))
    except Exception as error:  # its text is the reason that the parent shows
        sys.exit(str(error))
