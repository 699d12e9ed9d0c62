"""A live server over a real library of small real videos with made-up vectors."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import picture, write_video
from vsearch.indexer.fingerprint import fingerprint
from vsearch.library import Library
from vsearch.models import ZeroShotHead, plan_windows
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.webui.app import create_app
from vsearch.webui.http import Access

DIM = 16
HEAD = ZeroShotHead()
AXES = np.eye(DIM, dtype=np.float32)
QUERY = "the thing"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required"]  # fmt: skip


def add_clip(
    library: Library,
    file: Path,
    concepts: Sequence[int],
    media: MediaInfo,
    *,
    content: str = "",
    poster: bool | bytes = True,
) -> int:
    """A file whose t-th second shows the concept `concepts[t]` (an axis); not yet published. Gives its id."""
    times = np.arange(2 * len(concepts), dtype=np.int64) * 500
    rng = np.random.default_rng(len(concepts))
    frames = 9 * AXES[np.repeat(concepts, 2)] + rng.normal(0, 0.3, (len(times), DIM))
    windows = plan_windows(times, media.duration_ms, HEAD.window_s, HEAD.overlap)
    encoder = library.register_encoder("enc", "bb", HEAD.identity, {"model": "made-up", "head": HEAD.spec()})
    content = content or fingerprint(file)
    recorded = library.record_indexed(
        files=[FoundFile(file, file.stat().st_size, file.stat().st_mtime_ns)],
        fingerprint=content,
        media=media,
        covered_ms=media.duration_ms,
        frames=library.frame_store.put(content, "bb", 2.0, frames, times),
        encoder_id=encoder,
        moments=[NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows],
        poster=poster if isinstance(poster, bytes) else a_poster() if poster else None,
    )
    return recorded.video_ids[0]


def a_poster(size: tuple[int, int] = (160, 120)) -> bytes:
    from PIL import Image

    jpeg = io.BytesIO()
    Image.fromarray(picture(1, size)).save(jpeg, "JPEG")
    return jpeg.getvalue()


def publish(library: Library) -> None:
    (encoder,) = library.encoders()
    library.publish_update(encoder.id, (), HEAD.embed_windows)
    library.cache_text(encoder.id, QUERY, AXES[0])


def h264(seconds: int) -> MediaInfo:
    return MediaInfo("mp4", "h264", 160, 120, 0, 1000 * seconds, 10.0)


def make_library(folder: Path) -> dict[str, int]:
    """early.mp4 shows the thing in its first 6 s, late.webm from 30 s on, old.avi needs a preview."""
    videos = folder / "videos"
    videos.mkdir()
    ids = {}
    with Library.open(folder / "library", create=True) as library:
        file = write_video(videos / "early.mp4", frames=400, fps=10, muxer={"movflags": "faststart"})
        ids["early"] = add_clip(library, file, [0] * 6 + [2] * 34, h264(40))
        file = write_video(videos / "late.webm", "libvpx-vp9", frames=420, fps=10)
        webm = MediaInfo("matroska", "vp9", 160, 120, 0, 42_000, 10.0)
        ids["late"] = add_clip(library, file, [3] * 30 + [0] * 12, webm)
        file = write_video(videos / "old.avi", "mpeg4", frames=200, fps=10)
        avi = MediaInfo("avi", "mpeg4", 160, 120, 0, 20_000, 10.0)
        ids["old"] = add_clip(library, file, [4] * 12 + [0] * 8, avi)
        hostile = videos / '"><img src=x onerror=document.title="owned">.mp4'
        hostile.write_bytes((videos / "early.mp4").read_bytes())
        ids["hostile"] = add_clip(library, hostile, [0] * 3 + [5] * 37, h264(40), content="hostile")
        broken = videos / "broken.mp4"
        broken.write_bytes(b"not a video at all")
        stat = broken.stat()
        library.record_failed(
            [FoundFile(broken, stat.st_size, stat.st_mtime_ns)], "broken", "not a video: no known container"
        )
        publish(library)
    return ids


@contextlib.contextmanager
def running(
    library: Path, access: Access | None = None, heads: Path | None = None, port: int = 0
) -> Iterator[str]:
    """The server in a thread; gives its address. `port` 0: any."""
    import uvicorn

    from vsearch.webui.http import configured

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = configured(
        create_app(library, access or Access(), heads), log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def a_browser() -> Iterator[Any]:
    """Chromium, headless. Skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


def shot(page: Any, name: str) -> None:
    """A screenshot, where the environment names a folder for them."""
    if folder := os.environ.get("VSEARCH_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
