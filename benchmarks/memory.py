"""Memory of indexing, all processes together: a very long video, and very many files.

    python -m benchmarks.memory [--hours 10] [--fps 2] [--files 2000] [--model mini]

`--hours`: length of a 1080p H.264 video made for it (moving bars, as many pictures a second as are sampled, one at
least); `--fps`: how it is sampled.
`--files`: small videos of different content. Resident memory (RSS, shared pages counted in every process) is read
five times a second from /proc while `vsearch index` runs. 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

MB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.hours:
            folder = Path(scratch) / "long"
            folder.mkdir()
            write_long(folder / "long.mp4", options.hours, max(1, round(options.fps)))
            size = (folder / "long.mp4").stat().st_size / MB
            seen = index(folder, Path(scratch) / "library-long", options.model, options.fps)
            print(f"{options.hours:g} h of 1080p ({size:.0f} MB), {options.fps:g} frames a second")
            report(seen)
        if options.files:
            folder = Path(scratch) / "many"
            folder.mkdir()
            write_many(folder, options.files)
            seen = index(folder, Path(scratch) / "library-many", options.model, 2.0)
            print(f"{options.files} files")
            report(seen)
            later = seen[len(seen) // 2 :]
            slope = np.polyfit(later[:, 0] / later[-1, 0], later[:, 1], 1)[0]
            print(f"  over the second half of the time it grows by {slope / 2 / MB:.0f} MB")


def report(seen: Any) -> None:
    parts = [seen[round(q * (len(seen) - 1)), 1] / MB for q in (0.25, 0.5, 0.75, 1.0)]
    print(
        f"  {seen[-1, 0]:.0f} s; peak {seen[:, 1].max() / MB:.0f} MB, of it {seen[:, 2].max() / MB:.0f} MB decoding"
    )
    print(
        "  after a quarter, a half, three quarters, all of the time: "
        + ", ".join(f"{p:.0f}" for p in parts)
        + " MB"
    )


def index(folder: Path, library: Path, model: str, fps: float) -> Any:
    """Rows of (seconds, bytes of all processes, bytes of decoder processes) during `vsearch index`."""
    command = [sys.executable, "-m", "vsearch", "index", str(folder), "--library", str(library)]
    command += ["--model", model, "--fps", str(fps)]
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        rows = []
        while process.poll() is None:
            own = resident(process.pid)
            others = sum(resident(child) for child in children(process.pid) if begun(child, process.pid))
            rows.append((time.monotonic() - begin, own + others, others))
            time.sleep(0.2)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode(errors="replace"))
    return np.array([row for row in rows if row[1]])


def children(pid: int) -> list[int]:
    """Processes started by any thread of `pid`, and those started by them."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in tasks.read_text().split()]
        except OSError:
            continue
    return found + [deeper for child in found for deeper in children(child)]


def begun(child: int, parent: int) -> bool:
    """Whether it is a program of its own; before, it is its parent's memory that is seen in it."""
    try:
        return Path(f"/proc/{child}/cmdline").read_bytes() != Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def write_long(path: Path, hours: float, rate: int) -> None:
    """`rate` pictures a second. Encoded pictures are repeated from a short cycle, so that writing takes seconds."""
    import av

    cycle = 60
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(
            "libx264", rate=rate, options={"preset": "ultrafast", "crf": "32", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.gop_size = cycle
        packets = []
        for i in range(cycle):
            picture = np.full((1080, 1920, 3), 40, np.uint8)
            left = (
                420 + 16 * i
            )  # always within the square that is encoded: no picture is the one before it once more
            picture[:, left : left + 120] = 200, 60, 4 * i
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            packets += stream.encode(frame)
        packets += stream.encode(None)
        step = round(Fraction(1, rate) / packets[0].time_base)
        for n in range(round(hours * 3600 * rate)):
            packet = av.Packet(bytes(packets[n % cycle]))
            packet.stream, packet.time_base = stream, packets[0].time_base
            packet.pts = packet.dts = n * step
            packet.is_keyframe = n % cycle == 0
            out.mux(packet)


def write_many(folder: Path, count: int) -> None:
    """Copies of one second of video that differ in a free box at the end."""
    import av

    first = folder / "0.mp4"
    with av.open(str(first), "w") as out:
        stream: Any = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(10):
            picture = np.full((240, 320, 3), 25 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    data = first.read_bytes()
    for n in range(1, count):
        (folder / f"{n}.mp4").write_bytes(data + (16).to_bytes(4, "big") + b"free" + n.to_bytes(8, "big"))


if __name__ == "__main__":
    main()
