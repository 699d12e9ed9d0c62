"""Another head for a library that has been indexed: how long, and does anything but the head change.

    python -m benchmarks.adopt [--frames 24000] [--minutes 1] [--recipe efficient-prompt] [--model mini | vit-b-32]

Frame vectors of the model's shape (mini: 384, ViT-B/32 with random weights: 512 dimensions) are recorded for videos of
so many minutes that do not exist, so there is nothing that could be decoded; the head has random weights, as time does
not depend on them. Started processes are counted all the same. Where the CPU time goes: moments (planned and recorded),
the head (all threads), and the rest: loading, reading, most of it the index. At the end, how far moments are from those
of the head's layers as they were trained, over some windows of the library.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vsearch.indexer.adopt as adoption
from vsearch.indexer import rollback
from vsearch.indexer.adopt import adopt
from vsearch.indexer.upkeep import embedder, register
from vsearch.library import Library
from vsearch.maths import normalise
from vsearch.models import Encoder, ZeroShotHead, load_backbone, plan_windows
from vsearch.models.recipes import VideoText, load_recipe
from vsearch.models.recipes.checkpoint import save
from vsearch.models.recipes.frame_side import FrameSide
from vsearch.models.recipes.trained_head import TrainedHead, load_trained_head
from vsearch.models.training import pick
from vsearch.models.training.samples import pad
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever.searching import search

QUERY = "a man playing the drums"
started: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=24_000)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--recipe", default="efficient-prompt")
    parser.add_argument("--model", choices=("mini", "vit-b-32"), default="mini")
    options = parser.parse_args()
    frames_each = round(options.minutes * 120)
    videos = max(1, options.frames // frames_each)
    with tempfile.TemporaryDirectory() as scratch:
        name = "mini" if options.model == "mini" else str(random_model(Path(scratch) / "model"))
        run = random_checkpoint(Path(scratch) / "run", options.recipe, name)
        with Library.open(Path(scratch) / "library", create=True) as library:
            fill(library, videos, frames_each, name)
            before, index = search(library, QUERY), index_bytes(library)
            sys.addaudithook(lambda event, _: started.append(event) if event in PROCESS else None)
            seconds = {
                "moments": timed(adoption, "renew_moments"),
                "the head": timed(FrameSide, "embed_windows"),
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
            parts = {part: sum(spent) for part, spent in seconds.items()}
            head = load_trained_head(run, load_backbone(name, "cpu"))
            cosine = least_cosine(head, library)
    print(
        f"{videos} videos, {frames} frames of {head.card.dim} dimensions, {done.moments} moments, {options.recipe}"
    )
    print(
        f"adopted in {done.seconds:.1f} s ({cpu_s:.1f} s of CPU) with the model's loading; {len(started)} processes started"
    )
    parts["loading, reading, index"] = cpu_s - sum(parts.values())
    print("of the CPU time " + ", ".join(f"{part} {spent:.1f} s" for part, spent in parts.items()))
    flop = head_flop(options.recipe, 16, head.card.dim) * done.moments
    if flop:
        print(
            f"products of the head: {flop / 1e9:.0f} GFLOP, {flop / parts['the head'] / 1e9:.0f} GFLOP/s a core"
        )
    print(f"moments and those of the layers as trained: cosine {cosine:.7f} or more")
    top = [{hit.path for hit in answer.hits} for answer in (before, after)]
    print(f"of the first ten videos {len(top[0] - top[1])} are others now")
    print(f"rolled back in {back_s:.2f} s; index and answers as before, bit for bit: {same}")


PROCESS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system")


def timed(owner: Any, name: str) -> list[float]:
    """CPU seconds of each later call of that function, in whatever thread."""
    original, spent = getattr(owner, name), []

    def measured(*values: Any) -> Any:
        began = time.thread_time()
        try:
            return original(*values)
        finally:
            spent.append(time.thread_time() - began)

    setattr(owner, name, measured)
    return spent


def head_flop(recipe: str, window: int, dim: int) -> float:
    """Floating-point operations in the matrix products of a temporal transformer, a window of so many frames."""
    chosen = load_recipe(recipe)
    frames = min(window, chosen.frames)
    layers = chosen.temporal.layers if chosen.temporal.kind == "transformer" else 0
    return layers * frames * (24 * dim**2 + 4 * frames * dim)


def least_cosine(head: TrainedHead, library: Library) -> float:
    """Of moments of some videos and those that the head's layers make as they were trained, in float32."""
    least = 1.0
    for video in library.videos()[:10]:
        stored = library.frames(library.frame_set_of(video, library.live_encoder().backbone).id)
        vectors, times = np.asarray(stored.vectors), np.asarray(stored.times_ms)
        windows = plan_windows(times, len(times) * 500, head.window_s, head.overlap)
        chosen = [vectors[w.first_frame : w.last_frame].astype(np.float32) for w in windows]
        chosen = [own[pick(len(own), head.card.recipe.frames, None)] for own in chosen]
        with torch.inference_mode():
            expected = normalise(head.model.embed_video(*pad(chosen)).vectors.numpy())
        found = head.embed_windows(vectors, times, windows)
        least = min(least, float((found.astype(np.float64) * expected).sum(1).min()))
    return least


def random_model(folder: Path) -> Path:
    """A model folder with the shape of ViT-B/32 and random weights."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    config: Any = open_clip.get_model_config("ViT-B-32")
    pre = {"size": 224, "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pre}))
    save_file(open_clip.model.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def random_checkpoint(folder: Path, recipe: str, model_name: str) -> Path:
    backbone = load_backbone(model_name, "cpu")
    model = VideoText(load_recipe(recipe).on_frozen_frames(), backbone)
    with torch.no_grad():
        for _, parameter in model.trained():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save(folder, model, backbone, {"name": "random"}, {}, 0)
    return folder


def fill(library: Library, videos: int, frames: int, model_name: str) -> None:
    """Videos of `frames` frames, 2 a second."""
    encoder = Encoder(load_backbone(model_name, "cpu"), ZeroShotHead())
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
