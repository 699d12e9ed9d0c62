"""Coarse to fine: how soon a folder is searchable, how well, and what the first pass costs.

    python -m benchmarks.coarse FOLDER [--model mini] [--rounds 3]

expects `clips/` with `clips.csv` (video,caption,human) in the folder, as product.py. The command `vsearch index` is
stopped (SIGSTOP) when its first complete coarse index is published, the library is copied for the questions, and the
command goes on; the time of the copy does not count. Each round also indexes without a first pass, in turns. Times
count from the start of the command: Python, loading of the model and looking for videos are in them. Recall as in
product.py, first caption of each clip; intervals: 95 % bootstrap over queries, for the difference over pairs.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.product import bootstrap, rank_of
from vsearch.errors import LibraryError
from vsearch.indexer.decode import DecodeOptions, FrameShape, Image
from vsearch.indexer.decode.sampling import decode
from vsearch.library import Library
from vsearch.models import ZeroShotHead, load_backbone
from vsearch.records import MediaInfo
from vsearch.retriever import live_encoder
from vsearch.retriever.encoders import matching_encoder

_LOOK_EVERY_S = 0.1
_WITHOUT = "import vsearch.indexer.run as r; r.FIRST_PASS_FROM_BYTES = float('inf'); from vsearch.cli import main; main()"
_WITH = "from vsearch.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    clips = args.folder / "clips"
    decoding(clips, args.model)
    with tempfile.TemporaryDirectory() as scratch:
        rounds = [one_round(clips, args.model, Path(scratch) / str(i)) for i in range(args.rounds)]
        first, finished, cpu, alone, cpu_alone = zip(*rounds, strict=True)
        print(f"{len(rounds)} rounds, median [lowest, highest]:")
        print(f"  to the first search, of the time to the finished index: {spread(first, finished)}")
        print(f"  to the first search, of the time without a first pass:  {spread(first, alone)}")
        print(f"  to the finished index, with first pass / without:       {spread(finished, alone)}")
        print(f"  the same in CPU time of all processes:                  {spread(cpu, cpu_alone)}")
        medians = [statistics.median(some) for some in (first, finished, alone)]
        print("  seconds: first search {:.1f}, finished {:.1f}, without a first pass {:.1f}".format(*medians))
        quality(args.folder, Path(scratch) / "0")


def one_round(clips: Path, model: str, scratch: Path) -> tuple[float, float, float, float, float]:
    """Seconds to the first search; to the finished index, and of CPU; the same two without a first pass."""
    scratch.mkdir()
    first = 0.0
    videos = sum(1 for _ in clips.iterdir())

    def watch(begin: float, process: subprocess.Popen[bytes]) -> float:
        nonlocal first
        if first or not complete(scratch / "whole", videos):
            return 0.0
        first = time.perf_counter() - begin
        process.send_signal(signal.SIGSTOP)
        before = time.perf_counter()
        shutil.copytree(scratch / "whole", scratch / "coarse")
        process.send_signal(signal.SIGCONT)
        return time.perf_counter() - before

    finished, cpu = index(_WITH, clips, model, scratch / "whole", watch)
    if not first:
        raise SystemExit("there was no first pass: give a folder with more videos")
    alone, cpu_alone = index(_WITHOUT, clips, model, scratch / "alone", lambda *_: 0.0)
    return first, finished, cpu, alone, cpu_alone


def index(
    program: str,
    clips: Path,
    model: str,
    library: Path,
    watch: Callable[[float, subprocess.Popen[bytes]], float],
) -> tuple[float, float]:
    """Seconds that the command took, without those that `watch` held it up; CPU seconds of all its processes."""
    arguments = ["index", str(clips), "--library", str(library), "--model", model, "--progress", "none"]
    begin, cpu = time.perf_counter(), cpu_of_children()
    held_up = 0.0
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            held_up += watch(begin, process)
            time.sleep(_LOOK_EVERY_S)
    if process.returncode:
        raise SystemExit(f"vsearch index ended with {process.returncode}")
    return time.perf_counter() - begin - held_up, cpu_of_children() - cpu


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def complete(path: Path, videos: int) -> bool:
    """Whether an index answers in which every video is."""
    if not Library.exists(path):
        return False
    try:
        with Library.open(path) as library:
            if library.live_generation() is None:
                return False
            state = library.summary()
            return (
                state.up_to_date and state.videos.get("indexed", 0) + state.videos.get("partial", 0) >= videos
            )
    except LibraryError:  # just being made
        return False


def quality(folder: Path, libraries: Path) -> None:
    """Recall of the first search, and of the finished index."""
    captions: dict[str, str] = {}
    for row in csv.DictReader((folder / "clips.csv").open(encoding="utf-8")):
        captions.setdefault(row["video"], row["caption"])
    found = {name: ranks(libraries / name, captions) for name in ("coarse", "whole")}
    for k in (1, 5):
        hits = {name: [float(rank <= k) for rank in some] for name, some in found.items()}
        differences = [c - w for c, w in zip(hits["coarse"], hits["whole"], strict=True)]
        print(
            f"R@{k}, {len(captions)} queries: first search {percent(hits['coarse'])}, finished {percent(hits['whole'])}, "
            f"difference {percent(differences)}"
        )


def ranks(path: Path, captions: dict[str, str]) -> list[int]:
    with Library.open(path) as library:
        state = library.summary()
        print(
            f"{path.name}: {state.coarse} of {sum(state.videos.values())} videos coarse, {state.moment_count} moments"
        )
        encoder = matching_encoder(live_encoder(library))
        return [rank_of(library, encoder, text, video, len(captions)) for video, text in captions.items()]


def decoding(clips: Path, model: str) -> None:
    """CPU time of decoding in this process, a first look against the full rate."""
    backbone = load_backbone(model)
    pre = backbone.preprocess
    full = DecodeOptions(shape=FrameShape(pre.size, pre.resize_mode, pre.interpolation))
    every_s = ZeroShotHead().window_s / 2
    costs = []  # (length in ms, CPU s and frames of keyframes, the same at full rate) of each video
    for path in sorted(clips.iterdir()):
        row: list[float] = []
        for options in (replace(full, keyframes_every_s=every_s), full):
            begin = time.process_time()
            done = decode(path, options, _Nowhere())
            row += [time.process_time() - begin, done.frames]
        costs.append((done.info.duration_ms, *row))
    for name, least_ms in (("all", 0), ("of 30 s or more", 30_000)):
        some = [row for length_ms, *row in costs if length_ms >= least_ms]
        few_s, few, all_s, every = (sum(column) for column in zip(*some, strict=True))
        print(
            f"decoding, {len(some)} videos ({name}): full rate {all_s / few_s:.1f} times the CPU time of keyframes, "
            f"{every} frames for {few}"
        )


class _Nowhere:
    def info(self, info: MediaInfo) -> None: ...

    def frame(self, time_ms: int, image: Image) -> None: ...

    def progress(self, time_ms: int) -> None: ...

    def poster(self, jpeg: bytes) -> None: ...


def percent(values: Sequence[float]) -> str:
    mean, low, high = bootstrap(values)
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def spread(times: Any, others: Any) -> str:
    ratios = [mine / other for mine, other in zip(times, others, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    main()
