"""A picture file as one frame, for a search by example. Decoded in a child process with limits.

Only formats whose content cannot make a decoder follow other files are read, known by their first bytes.
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
    from vsearch.indexer.picture import FrameShape, Image

MAX_PIXELS = 64_000_000
DEADLINE_S = 30.0
MEMORY_BYTES = 4 << 30
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
    if done.returncode != 0 or len(done.stdout) != 3 * shape.size**2:
        raise MediaError("this picture cannot be read; use a JPEG, PNG, WebP or GIF that other programs open")
    return np.frombuffer(done.stdout, np.uint8).reshape(shape.size, shape.size, 3).copy()


def _read(path: str, size: int, mode: str, interpolation: str) -> bytes:
    import av
    from PIL import Image as Pillow
    from PIL import ImageOps

    from vsearch.indexer.picture import FrameShape, render

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


def main() -> None:
    """Of the child."""
    sys.stdout.buffer.write(_read(*json.load(sys.stdin)))
