"""PyAV against decord: are the frames and times right, and how long does it take?

    python benchmarks/decoders.py FOLDER... [--fps 2] [--made 60]

Decodes every video of the folders, and made ones in many formats (--made: seconds each; 0 for none), with both
decoders through `DecodePool`, as indexing does. The truth is PyAV reading the whole file in sequence in this
process: give it only files that you trust. A sample is right when its time is that of the picture shown then
(within 5 ms), and no other picture of the video looks clearly more like it than that one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vsearch.indexer.decode import (
    DecodeJob,
    DecodeOptions,
    DecodePool,
    FrameChunk,
    FrameShape,
    JobDone,
    open_video,
    render,
)
from vsearch.indexer.decode.probe import pixel_aspect
from vsearch.indexer.discover import find_videos

SHAPE = FrameShape(64, "squash", "bilinear")
DECODERS = ("pyav", "decord")


@dataclass
class Run:
    """One file through one decoder."""

    right: int = 0
    expected: int = 0
    wall_s: float = 0.0
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--fps", type=float, default=2.0, help="samples a second")
    parser.add_argument("--made", type=float, default=20.0, help="seconds of each made video, 0 for none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = make_videos(Path(folder), arguments.made) if arguments.made else []
        files = [(file.path, "") for file in find_videos(arguments.folders, lambda p, why: None, 0)]
        groups: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
        remarks = []
        for path, group in [*files, *made]:
            name, times_s, pictures = sequence(path)
            for decoder in DECODERS:
                run = compare(path, decoder, arguments.fps, times_s, pictures)
                groups[group or name][decoder].append(run)
                if run.note or run.right < run.expected:
                    remarks.append(f"{decoder:7} {run.right:4}/{run.expected:<4} {path.name}  {run.note}")
    print(
        f"at {arguments.fps:g} frames a second; right / expected samples, wall seconds, decord's time over PyAV's"
    )
    print(f"{'':28}{'files':>6}{'pyav':>12}{'decord':>12}{'pyav s':>9}{'decord s':>9}{'ratio':>7}")
    for name, runs in sorted(groups.items()):
        cells = [f"{sum(r.right for r in runs[d])}/{sum(r.expected for r in runs[d])}" for d in DECODERS]
        # Time is compared over the files that both decode.
        both = [i for i in range(len(runs["pyav"])) if not any(runs[d][i].note for d in DECODERS)]
        walls = [sum(runs[d][i].wall_s for i in both) for d in DECODERS]
        ratio = f"{walls[1] / walls[0]:.2f}" if walls[0] else "-"
        print(
            f"{name:28}{len(runs['pyav']):6}{cells[0]:>12}{cells[1]:>12}{walls[0]:9.2f}{walls[1]:9.2f}{ratio:>7}"
        )
    print("\n".join(["", "not all right:", *remarks]) if remarks else "")


def sequence(path: Path) -> tuple[str, npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """(container/codec, times (N,) from the first picture, pictures (N, 64, 64, 3)) of the whole file."""
    container, stream, name = open_video(path, 64_000_000)
    times: list[float] = []
    pictures: list[npt.NDArray[np.uint8]] = []
    with container:
        codec = stream.codec_context.name
        for frame in container.decode(stream):
            times.append(float(frame.pts * frame.time_base))
            pictures.append(render(frame, SHAPE, pixel_aspect(stream)))
    # AVI stores no times of presentation, only an order of decoding; FFmpeg's guesses are not monotonic.
    sorted_times = np.sort(np.array(times))
    return f"{name} {codec}", sorted_times - sorted_times[0], np.stack(pictures)


def compare(
    path: Path, decoder: str, fps: float, times_s: npt.NDArray[np.float64], pictures: npt.NDArray[np.uint8]
) -> Run:
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.04
    targets = np.arange(0, times_s[-1] + step - 1e-6, 1 / fps)
    shown = np.searchsorted(times_s, targets + 1e-6, side="right") - 1
    run = Run(expected=len(targets))
    got_times: list[float] = []
    got: list[npt.NDArray[np.uint8]] = []
    options = DecodeOptions(fps=fps, shape=SHAPE, decoder=decoder, stall_s=15.0)
    with DecodePool(options, 1) as pool:
        list(pool.run([DecodeJob(0, Path(__file__))]))  # starts the process, so that only decoding is timed
        begin = time.perf_counter()
        for event in pool.run([DecodeJob(0, path)]):
            if isinstance(event, FrameChunk):
                got_times += (event.times_ms / 1000).tolist()
                got += list(event.frames)
            else:
                run.note = (event.partial or "") if isinstance(event, JobDone) else event.reason
        run.wall_s = time.perf_counter() - begin
    grey = pictures.astype(np.float32).mean(axis=3).reshape(len(pictures), -1)
    last = -1
    for index, (target, number) in enumerate(zip(targets, shown, strict=True)):
        if index >= len(got):
            break
        expected_s = target if number == last else times_s[number]
        last = number
        distance = np.abs(grey - got[index].astype(np.float32).mean(axis=2).ravel()).mean(axis=1)
        on_time = abs(got_times[index] - got_times[0] - expected_s) < 0.005
        run.right += bool(on_time and distance[number] <= distance.min() + 1.0)
    return run


def make_videos(folder: Path, seconds: float) -> list[tuple[Path, str]]:
    """Videos with a barcode in every frame: (path, what it is)."""
    import pytest

    from tests import media

    frames = round(25 * seconds)
    large = {"frames": frames, "size": (640, 480), "gop": 50}
    kinds: list[tuple[str, str, dict[str, object]]] = [
        ("h264.mp4", "libx264", {}), ("h264.ts", "libx264", {}), ("sound.ts", "libx264", {"audio_s": seconds}),
        ("h264.avi", "libx264", {}), ("hevc.mp4", "libx265", {}), ("vp9.webm", "libvpx-vp9", {}),
        ("av1.mp4", "libsvtav1", {}), ("mpeg4.avi", "mpeg4", {}), ("mpeg2.mpg", "mpeg2video", {}),
        ("h264.flv", "libx264", {}), ("wmv2.wmv", "wmv2", {}), ("some.gif", "gif", {"pixels": "rgb8", "size": (160, 120)}),
        ("variable.mp4", "libx264", {"times": variable_times(frames)}),
    ]  # fmt: skip
    made = []
    for name, codec, how in kinds:
        try:
            made.append((media.write_video(folder / name, codec, **{**large, **how}), f"made {name}"))
        except pytest.skip.Exception as skipped:
            print(f"left out {name}: {skipped}", file=sys.stderr)
    edited = media.write_video(folder / "edited.mp4", **large)
    made.append((media.edit(edited, seconds / 4, seconds / 2), "made edited.mp4"))
    turned = media.rotate(media.write_video(folder / "turned.mp4", **large), 90)
    made.append((turned, "made turned.mp4"))
    return made


def variable_times(count: int) -> list[float]:
    def steps() -> Iterator[float]:
        now = 0.0
        for i in range(count):
            yield round(now, 3)
            now += (0.04, 0.02, 0.1, 0.033)[i // 7 % 4]

    return list(steps())


if __name__ == "__main__":
    main()
