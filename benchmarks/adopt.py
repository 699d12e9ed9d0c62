"""Another head for a library that has been indexed: how long, and does anything but the head change.

    python -m benchmarks.adopt [--frames 24000] [--minutes 1] [--recipe efficient-prompt]

Frame vectors of the built-in model's shape are recorded for videos of so many minutes that do not exist, so there is
nothing that could be decoded; the head has random weights, as time does not depend on them. Started processes are
counted all the same. Where the time goes: moments (planned and recorded), the head, and the rest, most of it the index.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vsearch.indexer.adopt as adoption
from vsearch.indexer.adopt import adopt, rollback
from vsearch.indexer.moments import embedder, register
from vsearch.library import FoundFile, Library, MediaInfo, NewMoment
from vsearch.models import Encoder, ZeroShotHead, load_backbone, plan_windows
from vsearch.models.checkpoint import save
from vsearch.models.recipe import load_recipe
from vsearch.models.trained_head import TrainedHead
from vsearch.models.video_text import VideoText
from vsearch.retriever import search

QUERY = "a man playing the drums"
started: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=24_000)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--recipe", default="efficient-prompt")
    options = parser.parse_args()
    frames_each = round(options.minutes * 120)
    videos = max(1, options.frames // frames_each)
    with tempfile.TemporaryDirectory() as scratch:
        run = random_checkpoint(Path(scratch) / "run", options.recipe)
        with Library.open(Path(scratch) / "library", create=True) as library:
            fill(library, videos, frames_each)
            before, index = search(library, QUERY), index_bytes(library)
            sys.addaudithook(lambda event, _: started.append(event) if event in PROCESS else None)
            seconds = {
                "moments": timed(adoption, "renew_moments"),
                "the head": timed(TrainedHead, "embed_windows"),
            }
            began = time.process_time()
            done = adopt(library, run)
            cpu_s = time.process_time() - began
            after = search(library, QUERY)
            began = time.monotonic()
            rollback(library)
            back_s = time.monotonic() - began
            same = search(library, QUERY) == before and index_bytes(library) == index
            frames = library.summary().frame_count
    print(f"{videos} videos, {frames} frames, {done.moments} moments, {options.recipe}")
    print(
        f"adopted in {done.seconds:.1f} s ({cpu_s:.1f} s of CPU) with the model's loading; {len(started)} processes started"
    )
    parts = {name: sum(spent) for name, spent in seconds.items()}
    parts["loading, reading, index"] = done.seconds - sum(parts.values())
    print("of that " + ", ".join(f"{name} {spent:.1f} s" for name, spent in parts.items()))
    flop = head_flop(options.recipe, 16) * done.moments
    if flop:
        print(f"products of the head: {flop / 1e9:.0f} GFLOP, {flop / parts['the head'] / 1e9:.0f} GFLOP/s")
    top = [{hit.path for hit in answer.hits} for answer in (before, after)]
    print(f"of the first ten videos {len(top[0] - top[1])} are others now")
    print(f"rolled back in {back_s:.2f} s; index and answers as before, bit for bit: {same}")


PROCESS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system")


def timed(owner: Any, name: str) -> list[float]:
    """Seconds of each later call of that function."""
    original, spent = getattr(owner, name), []

    def measured(*values: Any) -> Any:
        began = time.monotonic()
        try:
            return original(*values)
        finally:
            spent.append(time.monotonic() - began)

    setattr(owner, name, measured)
    return spent


def head_flop(recipe: str, window: int) -> float:
    """Floating-point operations in the matrix products of a temporal transformer, a window of so many frames."""
    chosen, dim = load_recipe(recipe), load_backbone("mini", "cpu").dim
    frames = min(window, chosen.frames)
    layers = chosen.temporal.layers if chosen.temporal.kind == "transformer" else 0
    return layers * frames * (24 * dim**2 + 4 * frames * dim)


def random_checkpoint(folder: Path, name: str) -> Path:
    backbone = load_backbone("mini", "cpu")
    model = VideoText(load_recipe(name).on_frozen_frames(), backbone)
    with torch.no_grad():
        for _, parameter in model.trained():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save(folder, model, backbone, {"name": "random"}, {}, 0)
    return folder


def fill(library: Library, videos: int, frames: int) -> None:
    """Videos of `frames` frames, 2 a second."""
    encoder = Encoder(load_backbone("mini", "cpu"), ZeroShotHead())
    encoder_id = register(library, encoder)
    times, length_ms = np.arange(frames, dtype=np.int64) * 500, frames * 500
    windows = plan_windows(times, length_ms, encoder.head.window_s, encoder.head.overlap)
    rng = np.random.default_rng(0)
    with library.writing():
        for i in range(videos):
            vectors = rng.normal(0, 1, (1, encoder.backbone.dim)) + rng.normal(
                0, 0.5, (frames, encoder.backbone.dim)
            )
            library.record_indexed(
                files=[FoundFile(library.path.parent / "none" / f"{i}.mp4", 1, 1)],
                fingerprint=f"content {i}",
                media=MediaInfo("mp4", "h264", 640, 360, 0, length_ms, 25.0),
                covered_ms=length_ms,
                frames=library.frame_store.put(
                    f"content {i}", encoder.backbone.identity, 2.0, vectors, times
                ),
                encoder_id=encoder_id,
                moments=[NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows],
            )
        library.publish_update(encoder_id, embed=embedder(library, encoder_id))


def index_bytes(library: Library) -> bytes:
    live = library.live_generation()
    assert live is not None
    return (library.path / "index" / live.file).read_bytes()


if __name__ == "__main__":
    main()
