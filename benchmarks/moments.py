"""A sentence inside one video, `vsearch query TEXT --in VIDEO`: are the borders right, and does it say what is not there?

    python -m benchmarks.moments ../shared/data/videos --work ../joined

Each video joins seven clips of `clips/` and `ucf101/` (untrimmed.py says how they are re-encoded); each clip's caption, or
its class in words, is a query whose answer is that stretch, and no class is twice in a video. Two halves share no clip and
no UCF101 class: what `--in` goes by was chosen on the first and is shown for both. R1@IoU: the share of queries whose first
interval overlaps its stretch by that much. Absent: queries of the other half, asked of a video.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.product import bootstrap, spoken
from benchmarks.untrimmed import FPS, concatenate, frame_count, part_of
from vsearch.library import Library
from vsearch.retriever import Answer, Session

VIDEOS, CLIPS = 24, 7  # of each half; joined in each
HALVES = ("tuned on", "test")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where videos and library are kept")
    args = parser.parse_args()
    truth = build(args.data, args.work / "videos")
    index = [sys.executable, "-m", "vsearch", "index", str(args.work / "videos"), "--progress", "none"]
    subprocess.run([*index, "--library", str(args.work / "library")], check=True)
    with Library.open(args.work / "library") as library:
        session = Session.of(library)
        videos = {video.path.stem: video for video in library.videos("indexed")}
        sentences = {
            half: [t for v in truth.values() if v["half"] == half for _, _, t in v["stretches"]]
            for half in HALVES
        }
        for half, other in (HALVES, HALVES[::-1]):
            overlaps: list[float] = []
            words: list[str | None] = []
            absent: list[bool] = []
            for name, about in truth.items():
                if about["half"] != half:
                    continue
                for start, end, text in about["stretches"]:
                    answer = session.search(text, within=videos[name], keep=False)
                    overlaps.append(first_overlap(answer, start, end))
                    words.append(answer.hits[0].strength)
                strangers = random.Random(name).sample(sorted({*sentences[other]}), CLIPS)
                for text in strangers:
                    absent.append(session.search(text, within=videos[name], keep=False).confident)
            for limit in (0.5, 0.7):
                mean, low, high = bootstrap([overlap >= limit for overlap in overlaps])
                print(
                    f"{half}: {len(overlaps)} queries, R1@{limit} {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                )
            likely = [word in ("likely", "strong") for word in words]
            unlikely = [word == "unlikely" for word in words]
            print(
                f"{half}: of what is there {100 * np.mean(likely):.0f} % likely, {100 * np.mean(unlikely):.0f} % unlikely; "
                f"of what is not there {100 * np.mean(absent):.0f} % likely"
            )


def build(data: Path, out: Path) -> dict[str, dict]:
    """Make the videos; gives for each its half and its stretches: start and end in ms, sentence. Done already: nothing is
    made again."""
    noted = out / "stretches.json"
    if noted.is_file():
        return json.loads(noted.read_text(encoding="utf-8"))
    (out / "parts").mkdir(parents=True, exist_ok=True)
    sentences = {data / "ucf101" / row["video"]: spoken(row["label"]) for row in _rows(data / "ucf101.csv")}
    for row in reversed(_rows(data / "clips.csv")):
        sentences[data / "clips" / row["video"]] = row["caption"]  # the first of each
    groups = sorted({*sentences.values()})
    rng = random.Random(0)
    rng.shuffle(groups)
    truth = {}
    for k, half in enumerate(HALVES):
        mine = {*groups[k::2]}
        files = [file for file, text in sorted(sentences.items()) if text in mine]
        for i in range(VIDEOS):
            chosen = _differing(rng.sample(files, len(files)), sentences)
            name, at, stretches = f"{half.replace(' ', '-')}_{i:03d}", 0.0, []
            parts = [part_of(out / "parts", file) for file in chosen]
            for file, part in zip(chosen, parts, strict=True):
                end = at + 1000 * frame_count(part) / FPS
                stretches.append((at, end, sentences[file]))
                at = end
            concatenate(parts, out / f"{name}.mp4")
            truth[name] = {"half": half, "stretches": stretches}
    for part in (out / "parts").iterdir():
        part.unlink()
    (out / "parts").rmdir()
    noted.write_text(json.dumps(truth), encoding="utf-8")
    return truth


def first_overlap(answer: Answer, start_ms: float, end_ms: float) -> float:
    """tIoU of the first interval with the true one."""
    hit = answer.hits[0]
    inside = max(0.0, min(end_ms, hit.end_ms) - max(start_ms, hit.start_ms))
    return inside / (max(end_ms, hit.end_ms) - min(start_ms, hit.start_ms))


def _differing(files: Sequence[Path], sentences: dict[Path, str]) -> list[Path]:
    """The first few of which no two have one sentence."""
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(sentences[file], file)
    return list(found.values())[:CLIPS]


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


if __name__ == "__main__":
    main()
