"""Search by a picture or a short clip: received into a private file, looked at, deleted.

Decoding happens in child processes, as everywhere; playlists and the like are refused before any decoder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from vsearch.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.indexer.decode import FrameShape
    from vsearch.models import Encoder, Preprocess

    Frames = npt.NDArray[np.uint8]
    Times = npt.NDArray[np.int64]

MAX_UPLOAD = 64_000_000  # bytes
LONGEST_S, FPS = 60.0, 2.0
DEADLINE_S = 60.0


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[Path]:
    """The body of a request in a private file that is gone afterwards. Raises HTTPException 413."""
    with tempfile.TemporaryDirectory(prefix="vsearch-upload-") as folder:  # mode 0700
        path = Path(folder) / "upload"
        size = 0
        with path.open("xb") as file:
            async for chunk in _chunks(request):
                size += len(chunk)
                if size > MAX_UPLOAD:
                    raise HTTPException(413, f"at most {MAX_UPLOAD // 1_000_000} MB can be searched with")
                file.write(chunk)
        yield path


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise HTTPException(400, "the upload was broken off") from None


def frames_of(path: Path, pre: Preprocess) -> tuple[Frames, Times]:
    """(T, S, S, 3) RGB of a picture or clip, and (T,) ms. Raises MediaError."""
    import numpy as np

    from vsearch.indexer import is_picture, read_still
    from vsearch.indexer.decode import FrameShape

    shape = FrameShape(pre.size, pre.resize_mode, pre.interpolation)
    if path.stat().st_size == 0:
        raise MediaError("this file is empty")
    if is_picture(path):
        return read_still(path, shape)[None], np.zeros(1, np.int64)
    return _read_clip(path, shape)


def look_of(encoder: Encoder, frames: Frames, times_ms: Times) -> npt.NDArray[np.float32]:
    """(D,) unit vector, in the space of moments."""
    import numpy as np

    from vsearch.models import Window

    vectors = encoder.backbone.encode_frames(frames)
    window = Window(0, int(times_ms[-1]) + round(1000 / FPS), 0, len(frames))
    return np.asarray(encoder.head.embed_windows(vectors, times_ms, [window])[0], np.float32)


def _read_clip(path: Path, shape: FrameShape) -> tuple[Frames, Times]:
    """(T, S, S, 3) RGB and (T,) ms of at most LONGEST_S seconds."""
    import numpy as np

    from vsearch.indexer.decode import DecodeJob, DecodeOptions, DecodePool, FrameChunk, JobFailed

    options = DecodeOptions(fps=FPS, shape=shape, deadline_s=DEADLINE_S, deadline_per_video_s=0.0)
    frames, times = [], []
    with DecodePool(options, workers=1) as pool:
        for event in pool.run([DecodeJob(0, path)]):
            if isinstance(event, JobFailed):
                raise MediaError(f"this upload cannot be used: {event.reason.replace(os.fspath(path), 'it')}")
            if isinstance(event, FrameChunk):
                frames.append(event.frames)
                times.append(event.times_ms)
                if times[-1][-1] > 1000 * LONGEST_S:
                    raise MediaError(f"this clip is too long: at most {LONGEST_S:.0f} s can be searched with")
    return np.concatenate(frames), np.concatenate(times)
