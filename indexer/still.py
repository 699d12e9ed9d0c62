"""One picture: of a picture file, for a search by example, or of a video at a time. Decoded in a child with limits.

Only picture formats whose content cannot make a decoder follow other files are read, known by their first bytes.
"""

from __future__ import annotations

import json
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch import process
from vsearch.errors import MediaError

if TYPE_CHECKING:
    from vsearch.indexer.decode import FrameShape, Image

MAX_PIXELS = 64_000_000
DEADLINE_S = 30.0
MEMORY_BYTES, VIDEO_MEMORY_BYTES = 4 << 30, 6 << 30
REASON_GIVEN = 4  # a child's exit code: the last line that it wrote says to the person why
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_LONG_SIDE = 1536  # reduced to this before the exact resize


def is_picture(path: Path) -> bool:
    """Whether a file begins like a JPEG, PNG, WebP or GIF."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


def read_still(path: Path, shape: FrameShape) -> Image:
    """(size, size, 3) uint8 RGB, upright as the camera meant it. Raises MediaError."""
    import numpy as np

    order = [os.path.abspath(path), shape.size, shape.mode, shape.interpolation]
    try:
        done = process.run(
            "vsearch.indexer.still:main", order, deadline_s=DEADLINE_S, memory_bytes=MEMORY_BYTES
        )
    except process.Overdue:
        raise MediaError(
            f"this picture took more than {DEADLINE_S:.0f} s to read; use a smaller one"
        ) from None
    _need_memory(done)
    if done.returncode != 0 or len(done.stdout) != 3 * shape.size**2:
        raise MediaError("this picture cannot be read; use a JPEG, PNG, WebP or GIF that other programs open")
    return np.frombuffer(done.stdout, np.uint8).reshape(shape.size, shape.size, 3).copy()


def _need_memory(done: process.Finished) -> None:
    if done.lacked_memory:
        raise MediaError(
            "there is not enough memory to decode this picture; close other programs and try again"
        )


def _read(path: str, size: int, mode: str, interpolation: str) -> bytes:
    import av
    from PIL import Image as Pillow
    from PIL import ImageOps

    from vsearch.indexer.decode import FrameShape, render

    with Pillow.open(path, formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            raise MediaError("too many pixels")
        file.draft("RGB", (_LONG_SIDE, _LONG_SIDE))
        upright = ImageOps.exif_transpose(file)
        upright.thumbnail((_LONG_SIDE, _LONG_SIDE))
        flat = Pillow.new("RGB", upright.size, "white")  # what is see-through shows as on a page
        layered = upright.convert("RGBA")
        flat.paste(layered, mask=layered.getchannel("A"))
    frame = av.VideoFrame.from_image(flat)
    return render(frame, FrameShape(size, mode, interpolation), Fraction(1)).tobytes()


def still_at(path: Path, time_ms: int, height: int) -> bytes:
    """JPEG, `height` pixels high, of what a video shows at `time_ms`: upright, in shape, the picture that the index
    has at that time. Past the end it is the last one. Raises MediaError."""
    order = [os.path.abspath(path), time_ms, height]
    try:
        done = process.run(
            "vsearch.indexer.still:video_main",
            order,
            deadline_s=2 * DEADLINE_S,
            memory_bytes=VIDEO_MEMORY_BYTES,
        )
    except process.Overdue:
        raise MediaError(f"this picture took more than {2 * DEADLINE_S:.0f} s to find") from None
    if done.returncode == REASON_GIVEN:
        raise MediaError(done.last_line)
    _need_memory(done)
    if done.returncode != 0 or not done.stdout:
        raise MediaError("no picture could be decoded there")
    return done.stdout


def picture_at(path: Path, time_ms: int, height: int) -> bytes:
    """`still_at`, in this process."""
    from vsearch.indexer.decode import DecodeOptions, Shown, open_pyav

    source = open_pyav(path, DecodeOptions(fps=float("inf"), poster_height=height))
    try:
        at: Shown | None = None
        for shown in source.frames(lambda: time_ms / 1000):
            if at is not None and round(shown.start_s * 1000) > time_ms:
                break
            at = shown
        if at is None:
            raise MediaError("no picture could be decoded there")
        return at.draw_poster()
    finally:
        source.close()


def video_main() -> None:
    """Of the child of `still_at`."""
    path, time_ms, height = json.load(sys.stdin)
    try:
        jpeg = picture_at(Path(path), time_ms, height)
    except MediaError as error:
        print(error, file=sys.stderr)
        sys.exit(REASON_GIVEN)
    sys.stdout.buffer.write(jpeg)


def main() -> None:
    """Of the child."""
    sys.stdout.buffer.write(_read(*json.load(sys.stdin)))
