"""Indexing: frames a second end to end beside the encoder alone and beside the usual pipeline, and where time goes.

    python -m benchmarks.indexing FOLDER [--model mini] [--rounds 3] [--videos 20] [--copies 5] [--fps 2]
        [--ways index encoder]

Each way runs in a process of its own, taking turns:
    index     `index_videos` into a new library in one pass at full rate: find, decode, encode, store, publish
    in two    the same with a first pass over keyframes, as larger folders are indexed
    encoder   the same encoder fed with frames from memory, in the same batches and threads: what indexing may reach
    towers    open_clip's own tower in plain torch, fed the same way, one batch after the other
    usual     one process: PyAV reads every picture, open_clip's PIL preprocessing, its tower, batch by batch
Seconds without finding files and loading the model; these are printed apart.
CPU time is that of all processes: on a machine busy with other work its ratios say more than those of wall time.
`--videos` takes so many, spread over the folder; `--ways` runs only these, `index` among them. `--copies` indexes each
video so many times, as files that differ in some bytes that no decoder looks at: what a run costs once, such as
starting decoder processes, then weighs as little as in a folder of that size.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

COMPARED = ["index", "in two", "encoder", "towers", "usual"]
Frames = npt.NDArray[np.uint8]
BATCH, REFERENCE_BATCH = 8, 16  # what `index` takes on a CPU; what suits the plain towers
ENOUGH_S = 8.0  # the ways without decoding go on for so long


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--ways", nargs="+", choices=COMPARED, default=COMPARED)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(WAYS[options.way](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found, profile = compare(options, Path(folder))
    print(
        f"{found['index'][0]['frames']} frames, model {options.model}, {options.rounds} rounds taking turns"
    )
    print(
        f"{'':9}{'frames/s':>9}{'CPU ms a frame':>24}{'index / it, CPU':>22}{'index / it, wall':>22}{'before, s':>11}"
    )
    for way, results in found.items():
        cpu = [1000 * r["cpu"] / r["frames"] for r in results]
        rate = statistics.median(r["frames"] / r["seconds"] for r in results)
        before = statistics.median(r["before"] for r in results)
        ratios = [spread(found["index"], results, unit) for unit in ("cpu", "seconds")]
        cost = f"{statistics.median(cpu):.1f} [{min(cpu):.1f}, {max(cpu):.1f}]"
        print(f"{way:9}{rate:9.1f}{cost:>24}{ratios[0]:>22}{ratios[1]:>22}{before:11.1f}")
    frames = profile.pop("frames")
    print(f"\n{'where the time of index goes':30}{'CPU ms':>8}{'share':>8}")
    for stage, seconds in profile.items():
        print(f"{stage:30}{1000 * seconds / frames:8.2f}{seconds / sum(profile.values()):8.0%}")


def spread(index: list[dict[str, Any]], other: list[dict[str, Any]], unit: str) -> str:
    """Median [smallest, largest] of frames per `unit` of indexing over the other way's, round by round."""
    ratios = [o[unit] / o["frames"] * i["frames"] / i[unit] for i, o in zip(index, other, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def compare(
    options: argparse.Namespace, scratch: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The rounds, by way, and the profile."""
    chosen = ["--videos", str(options.videos)] if options.videos else []
    if options.copies > 1:
        write_copies(videos(options), options.copies, scratch)
        chosen = []
    folder = scratch if options.copies > 1 else options.folder
    told = [str(folder), "--model", options.model, "--fps", str(options.fps), *chosen]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in COMPARED if way in options.ways}
    for _ in range(options.rounds):
        for way, results in found.items():
            results.append(run(way, told))
    return found, run("profile", told)


def write_copies(paths: list[Path], count: int, folder: Path) -> None:
    """Each with something to skip at its end, by container: RIFF's JUNK, Matroska's Void, MP4's free."""
    for i, path in enumerate(paths):
        data = path.read_bytes()
        for n in range(count):
            if data[:4] == b"RIFF":
                skipped = b"JUNK" + (4).to_bytes(4, "little")
            elif data[:4] == b"\x1a\x45\xdf\xa3":
                skipped = b"\xec\x84"
            else:
                skipped = (12).to_bytes(4, "big") + b"free"
            copy = folder / f"{n}-{i}-{path.name}"
            copy.write_bytes(data + skipped + n.to_bytes(4, "big"))
            shutil.copystat(path, copy)  # what has just changed may still be growing


def run(way: str, told: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.indexing", *told, "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def index(
    options: argparse.Namespace, at_begin: Callable[[], None] = lambda: None, *, first_pass: bool = False
) -> dict[str, Any]:
    """`at_begin` is called when files are found and the model is loaded."""
    from vsearch.indexer import run as indexing

    indexing.FIRST_PASS_FROM_BYTES = 0 if first_pass else sys.maxsize
    begun: list[float] = []
    register = indexing._Run._register_encoder

    def stamped(run: Any) -> int:
        encoder_id = register(run)
        at_begin()
        begun.append(cpu_s())
        return encoder_id

    indexing._Run._register_encoder = stamped  # type: ignore[method-assign]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        how = indexing.IndexOptions(model=options.model, fps=options.fps, batch_size=BATCH)
        done = indexing.index_videos(Path(folder) / "library", videos(options), how, lambda progress: None)
    whole = time.perf_counter() - begin
    return {
        "frames": done.frames, "seconds": done.seconds, "cpu": cpu_s() - begun[0], "before": whole - done.seconds,
    }  # fmt: skip


def in_two(options: argparse.Namespace) -> dict[str, Any]:
    return index(options, first_pass=True)


def encoder(options: argparse.Namespace) -> dict[str, Any]:
    from vsearch.indexer.encoding import Lanes

    backbone, load = loaded(options.model)
    batches = some_batches(options, backbone.preprocess, BATCH)
    with Lanes(backbone) as lanes:
        for future in [lanes.submit(batch) for batch in batches[:4]]:
            future.result()
        begin, cpu = time.perf_counter(), cpu_s()
        futures = []
        while time.perf_counter() - begin < ENOUGH_S:
            futures.append(lanes.submit(batches[len(futures) % len(batches)]))
        frames = sum(len(future.result()) for future in futures)
        return {
            "frames": frames,
            "seconds": time.perf_counter() - begin,
            "cpu": cpu_s() - cpu,
            "before": load,
        }


def towers(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    backbone, load = loaded(options.model)
    pre = backbone.preprocess
    mean, std = torch.tensor(pre.mean).view(3, 1, 1), torch.tensor(pre.std).view(3, 1, 1)
    pixels = []
    for batch in some_batches(options, pre, REFERENCE_BATCH)[:4]:
        pixels.append((torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 255 - mean) / std)
    frames = 0
    with torch.inference_mode():
        backbone.clip.encode_image(pixels[0])
        begin, cpu = time.perf_counter(), cpu_s()
        while time.perf_counter() - begin < ENOUGH_S:
            frames += len(backbone.clip.encode_image(pixels[frames // REFERENCE_BATCH % len(pixels)]))
    return {"frames": frames, "seconds": time.perf_counter() - begin, "cpu": cpu_s() - cpu, "before": load}


def usual(options: argparse.Namespace) -> dict[str, Any]:
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    backbone, load = loaded(options.model)
    pre = backbone.preprocess
    how = PreprocessCfg(
        size=pre.size,
        mean=pre.mean,
        std=pre.std,
        interpolation=pre.interpolation,
        resize_mode=pre.resize_mode,
    )
    preprocess: Any = image_transform_v2(how, is_train=False)
    assert open_clip
    frames = 0
    begin, cpu = time.perf_counter(), cpu_s()
    with torch.inference_mode():
        for path in videos(options):
            batch: list[Any] = []
            for picture in sampled(path, options.fps):
                batch.append(preprocess(picture))
                if len(batch) == REFERENCE_BATCH:
                    frames += len(backbone.clip.encode_image(torch.stack(batch)).numpy())
                    batch = []
            if batch:
                frames += len(backbone.clip.encode_image(torch.stack(batch)).numpy())
    return {"frames": frames, "seconds": time.perf_counter() - begin, "cpu": cpu_s() - cpu, "before": load}


def profile(options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds by stage: from one indexing run, and decoding once more in this process to split it."""
    from vsearch.indexer import run as indexing
    from vsearch.models import Backbone

    spent: Counter[str] = Counter()
    frames = decode_parts(options, spent)
    decoding = dict(spent)
    for owner, name, stage in (
        (Backbone, "encode_frames", "encode"), (Backbone, "arrange", "arrange the tower"),
        (indexing._Run, "_record", "store"), (indexing._Run, "_publish", "publish"),
    ):  # fmt: skip
        timed(owner, name, stage, spent)
    result = index(options, spent.clear)
    assert result["frames"] == frames
    stages = {**decoding, **spent}
    return {"frames": frames, **stages, "start of decoders, hand-over": result["cpu"] - sum(stages.values())}


def decode_parts(options: argparse.Namespace, spent: Counter[str]) -> int:
    import av.logging

    from vsearch.errors import MediaError
    from vsearch.indexer.decode import DecodeOptions
    from vsearch.indexer.decode import pyav as decode_pyav
    from vsearch.indexer.decode.sampling import decode

    class Nowhere:
        frames = 0

        def info(self, info: Any) -> None: ...
        def progress(self, time_ms: int) -> None: ...
        def poster(self, jpeg: bytes) -> None: ...
        def frame(self, time_ms: int, image: Any) -> None:
            self.frames += 1

    av.logging.set_level(av.logging.PANIC)
    timed(decode_pyav, "render", "scale, convert", spent)
    timed(decode_pyav, "render_poster", "poster", spent)
    sink = Nowhere()
    begin = time.thread_time()
    for path in videos(options):
        try:
            decode(path, DecodeOptions(fps=options.fps), sink)
        except MediaError as error:
            print(f"{path}: {error}", file=sys.stderr)
    spent["decode"] = time.thread_time() - begin - spent["scale, convert"] - spent["poster"]
    return sink.frames


def timed(owner: Any, name: str, stage: str, spent: Counter[str]) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        begin = time.thread_time()
        try:
            return call(*args, **kwargs)
        finally:
            spent[stage] += time.thread_time() - begin  # type: ignore[assignment]

    setattr(owner, name, measured)


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def videos(options: argparse.Namespace) -> list[Path]:
    from vsearch.indexer.discover import find_videos

    found = [file.path.resolve() for file in find_videos([options.folder], lambda path, why: None)]
    count = min(options.videos or len(found), len(found))
    return [found[i * len(found) // count] for i in range(count)]


def loaded(model: str) -> tuple[Any, float]:
    begin = time.perf_counter()
    from vsearch.models import load_backbone

    return load_backbone(model, "cpu"), time.perf_counter() - begin


def some_batches(options: argparse.Namespace, pre: Any, size: int) -> list[Frames]:
    """Sixteen whole batches of the first videos' frames, repeated where there are fewer."""
    import torchvision.transforms.functional as F

    pictures: list[Frames] = []
    for path in videos(options):
        for picture in sampled(path, options.fps):
            pictures.append(np.asarray(F.center_crop(F.resize(picture, pre.size), [pre.size, pre.size])))
        if len(pictures) >= 16 * size:
            break
    while len(pictures) < size:
        pictures += pictures
    whole = min(16, len(pictures) // size)
    return [np.stack(pictures[i * size : (i + 1) * size]) for i in range(whole)]


def sampled(path: Path, fps: float) -> Iterator[Any]:
    """PIL pictures, every 1 / fps seconds, with one reader from the first picture to the last."""
    import av

    with av.open(str(path)) as container:
        target = None
        for frame in container.decode(video=0):
            now = frame.time if frame.time is not None else 0.0
            target = now if target is None else target
            if now >= target:
                target += 1 / fps
                yield frame.to_image()


WAYS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "index": index, "in two": in_two, "encoder": encoder, "towers": towers, "usual": usual, "profile": profile,
}  # fmt: skip


if __name__ == "__main__":
    main()
