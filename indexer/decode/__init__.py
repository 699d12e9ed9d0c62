"""One source of pictures and times: what a file is, its packets on one clock, its pictures, and the processes that decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.indexer.decode.joined import JoinedSource, open_pyav
    from vsearch.indexer.decode.nvdec import check_torchcodec
    from vsearch.indexer.decode.picture import FrameShape, Image, StoredPicture, render
    from vsearch.indexer.decode.pool import (
        DecodeJob,
        DecodePool,
        Event,
        FrameChunk,
        JobDone,
        JobFailed,
    )
    from vsearch.indexer.decode.probe import open_video
    from vsearch.indexer.decode.pyav import PyavSource
    from vsearch.indexer.decode.source import DECODERS, DecodeOptions, Shown, clock, default_workers
    from vsearch.indexer.decode.structure import Part

# fmt: off
__all__ = [
    "DECODERS", "DecodeJob", "DecodeOptions", "DecodePool", "Event", "FrameChunk", "FrameShape", "Image",
    "JobDone", "JobFailed", "JoinedSource", "Part", "PyavSource", "Shown", "StoredPicture",
    "check_torchcodec", "clock", "default_workers", "open_pyav", "open_video", "render",
]
__getattr__ = face(__name__, {
    "joined": "JoinedSource open_pyav",
    "nvdec": "check_torchcodec",
    "picture": "FrameShape Image StoredPicture render",
    "pool": "DecodeJob DecodePool Event FrameChunk JobDone JobFailed",
    "probe": "open_video",
    "pyav": "PyavSource",
    "source": "DECODERS DecodeOptions Shown clock default_workers",
    "structure": "Part",
})
