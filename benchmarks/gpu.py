"""Indexing on a GPU: frames a second by number of decoder processes, beside decoding alone and the encoder alone.

    python -m benchmarks.gpu FOLDER [--device cuda:0,cuda:1] [--decoder nvdec] [--models ViT-B-32:openai] [--batch 64]

FOLDER holds a few videos, which are decoded over and over. Models without a tag get random weights, which take as long as
trained ones and need no network. For each model:

- the encoder alone, fed with frames from memory through the same lanes as indexing, and how far half precision's vectors
  are from those of float32 on the CPU;
- by number of decoder processes: decoding alone, decoding and encoding together, its share of the encoder alone, and how
  busy the GPUs were meanwhile by NVIDIA's own count (needs nvidia-ml-py). Decoding is the limit where more processes help;
- `vsearch index` as a whole (loading the model left out, the first pass over keyframes not) on up to 256 MB of FOLDER.

Meant to take less than ten minutes. `--device cpu` runs the same without a GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WARM_S = 2.0  # before counting begins: decoders fill their queue, kernels are chosen
INDEX_BYTES = 256_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-L-14"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="the first one for indexing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--workers", type=int, nargs="+", default=worker_counts())
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args(arguments)
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured (--device cpu runs the same on the CPU)")
        return
    from vsearch.models import load_backbone, resolve_devices

    devices = resolve_devices(options.device)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {' and '.join(map(name_of, devices))}")
    if options.decoder == "nvdec":
        from vsearch.indexer.decode import check_torchcodec

        check_torchcodec(devices)
    with tempfile.TemporaryDirectory() as scratch:
        decoding_alone: dict[Any, float] = {}
        for model in options.models:
            place = random_model(model, Path(scratch) / model) if is_bare(model) else model
            backbones = load_backbone(place, devices[0]).replicas(devices)
            print(f"\n{model}{', random weights' if place != model else ''}")
            check_precision(backbones[0], place)
            alone = {size: encoder_alone(backbones, size, options.seconds) for size in options.batch}
            by_processes(backbones, options, devices, alone[options.batch[0]], decoding_alone)
            whole_index(place, options)


def name_of(device: str) -> str:
    import torch

    return device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"


def worker_counts() -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    cores = os.cpu_count() or 1
    return [2**i for i in range(cores.bit_length()) if 2**i < cores] + [cores]


def is_bare(model: str) -> bool:
    """An architecture without weights."""
    import open_clip

    return model in open_clip.list_models()


def random_model(architecture: str, folder: Path) -> str:
    """A folder as open_clip reads it, with weights as they are before training."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = open_clip.create_model(architecture).state_dict()
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    return str(folder)


def check_precision(backbone: Any, place: str) -> None:
    from vsearch.models import load_backbone

    frames = noise(backbone, 8, 1)[0]
    backbone.arrange()
    exact = load_backbone(place, "cpu").encode_frames(frames)
    print(f"  cosine with float32 on the CPU: {cosine(backbone.encode_frames(frames), exact):.5f} at least")


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    product = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return float(product.min())


def noise(backbone: Any, batch: int, count: int) -> list[np.ndarray]:
    shape = batch, backbone.preprocess.size, backbone.preprocess.size, 3
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def encoder_alone(backbones: Sequence[Any], batch: int, seconds: float) -> float:
    """Frames a second as indexing encodes them."""
    from vsearch.indexer.encoding import Lanes

    batches = noise(backbones[0], batch, 8)
    with Lanes(*backbones) as lanes:
        for future in [lanes.submit(frames) for frames in batches]:  # kernels are chosen
            future.result()
        began, futures = time.perf_counter(), []
        while time.perf_counter() - began < seconds:
            futures.append(lanes.submit(batches[len(futures) % len(batches)]))
        for future in futures:
            future.result()
        rate = len(futures) * batch / (time.perf_counter() - began)
    print(f"  encoder alone, batches of {batch}: {rate:.0f} frames/s", flush=True)
    return rate


def by_processes(
    backbones: Sequence[Any],
    options: argparse.Namespace,
    devices: Sequence[str],
    alone: float,
    decoding_alone: dict[Any, float],
) -> None:
    from vsearch.indexer.encoding import Lanes, encoded

    batch, per_process = options.batch[0], []
    pre = backbones[0].preprocess
    print("  processes  decoding alone     together  of the encoder  GPU busy")
    for workers in options.workers:
        kind = workers, pre.size, pre.resize_mode, pre.interpolation
        if kind not in decoding_alone:  # models that take the same pictures share it
            with decoding(backbones[0], options, devices, workers) as events:
                decoding_alone[kind] = rate(
                    lambda count, events=events: drain(events, count), options.seconds
                )
        decoded = decoding_alone[kind]
        with (
            decoding(backbones[0], options, devices, workers) as events,
            Lanes(*backbones) as lanes,
            busy(devices) as shares,
        ):
            together = rate(
                lambda count, events=events, lanes=lanes: encoded(events, lanes, batch, count),
                options.seconds,
            )
        per_process.append(decoded / workers)
        used = f"{statistics.mean(shares):.0f} %" if shares else "unknown"
        print(
            f"  {workers:9} {decoded:8.0f} frames/s {together:8.0f} /s {together / alone:15.0%} {used:>9}",
            flush=True,
        )
    needed = alone / max(per_process)
    print(
        f"  one process decodes {max(per_process):.0f} frames/s at best: the encoder takes {needed:.1f} such"
    )


@contextlib.contextmanager
def decoding(
    backbone: Any, options: argparse.Namespace, devices: Sequence[str], workers: int
) -> Iterator[Iterator[Any]]:
    """Events of the folder's videos, over and over."""
    from vsearch.indexer.decode import DecodeJob, DecodeOptions, DecodePool, FrameShape

    pre = backbone.preprocess
    how = DecodeOptions(
        shape=FrameShape(pre.size, pre.resize_mode, pre.interpolation), decoder=options.decoder,
        gpus=tuple(devices), memory_limit_bytes=0 if options.decoder == "nvdec" else 6 << 30,
    )  # fmt: skip
    paths = itertools.cycle(videos_in(options.folder))
    with DecodePool(how, workers) as pool:
        yield sound(pool.run(DecodeJob(i, path) for i, path in enumerate(paths)))


def sound(events: Iterable[Any]) -> Iterator[Any]:
    """The events; ends the benchmark at a video that fails, for with nothing else there would be no end."""
    for event in events:
        if reason := getattr(event, "reason", None):
            raise SystemExit(f"a video cannot be decoded: {reason}; take it out of the folder")
        yield event


def videos_in(folder: Path) -> list[Path]:
    from vsearch.indexer.discover import find_videos

    found = [video.path for video in find_videos([folder], lambda path, reason: None)]
    if not found:
        raise SystemExit(f"no videos in {folder}")
    return found


def drain(events: Iterable[Any], count: Callable[[int], None]) -> Iterator[Any]:
    for event in events:
        if hasattr(event, "frames") and hasattr(event, "times_ms"):
            count(len(event.times_ms))
        yield event


def rate(work: Callable[[Callable[[int], None]], Iterator[Any]], seconds: float) -> float:
    """Frames a second that `work` counts, from `WARM_S` after the first on."""
    counted: list[tuple[float, int]] = []  # when, how many
    total = 0

    class Enough(Exception):
        pass

    def count(frames: int) -> None:
        nonlocal total
        total += frames
        counted.append((time.perf_counter(), total))
        if counted[-1][0] - counted[0][0] > min(WARM_S, seconds) + seconds:
            raise Enough

    with contextlib.suppress(Enough):
        for _ in work(count):
            pass
    warm = [entry for entry in counted if entry[0] - counted[0][0] >= min(WARM_S, seconds)]
    (began, before), (ended, after) = warm[0], warm[-1]
    return (after - before) / (ended - began)


@contextlib.contextmanager
def busy(devices: Sequence[str]) -> Iterator[list[float]]:
    """Percent of time with a kernel at work, mean of the devices, every half second; empty where nobody counts."""
    import torch

    shares: list[float] = []
    over = threading.Event()

    def watch() -> None:
        with contextlib.suppress(Exception):  # no nvidia-ml-py, no GPU: unknown
            while not over.wait(0.5):
                shares.append(statistics.mean(torch.cuda.utilization(device) for device in devices))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield shares
    finally:
        over.set()
        thread.join()
        del shares[: len(shares) // 4]  # decoders were starting


def whole_index(model: str, options: argparse.Namespace) -> None:
    from vsearch.indexer import IndexOptions, index_videos
    from vsearch.indexer.decode import default_workers
    from vsearch.models import resolve_devices

    some, size = [], 0
    for path in videos_in(options.folder):
        size += path.stat().st_size
        if not some or size <= INDEX_BYTES:
            some.append(path)
    how = IndexOptions(
        model=model, device=options.device, decoder=options.decoder, batch_size=options.batch[0]
    )
    with tempfile.TemporaryDirectory() as scratch:
        done = index_videos(Path(scratch) / "library", some, how, lambda progress: None)
    workers = min(default_workers(resolve_devices(options.device), options.decoder), len(some))
    print(
        f"  vsearch index, {done.indexed} videos, {workers} processes: {done.frames / done.seconds:.0f} frames/s "
        f"({done.frames} frames in {done.seconds:.1f} s)"
    )


if __name__ == "__main__":
    main()
