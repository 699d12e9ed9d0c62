"""Is an interval that `vsearch localize` calls p likely right in a share p of cases? Precision, recall and reliability.

    python -m benchmarks.reliability ../shared/data/videos --work ../untrimmed [--picture docs/localization.svg]

On the videos of `localization.py` (made here if need be), six UCF101 classes by name, as a user asks: intervals of a class
lie apart, from the default threshold on. An interval is right when it overlaps a stretch of its class by half or more that
no better one has taken. The scale of the score was set on the training videos.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.untrimmed import build
from benchmarks.words import calibration_error, reliability, reliability_picture
from vsearch.library import Library
from vsearch.maths import tiou
from vsearch.models.training import AnnotatedVideo, read_annotations
from vsearch.retriever.actions import Detection, Limits
from vsearch.retriever.actions.videos import localize_videos

SUBSETS = ("training", "testing")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where videos and library are kept")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    truth = read_annotations(build(args.data, args.work / "videos", 20, 60))
    index = [sys.executable, "-m", "vsearch", "index", str(args.work / "videos"), "--progress", "none"]
    subprocess.run([*index, "--library", str(args.work / "library")], check=True)
    for subset in SUBSETS:
        chosen = [video for video in truth if video.subset == subset]
        told, right, wanted = detected(args.work / "library", chosen)
        shown = told >= Limits().least_score
        print(
            f"{subset}: {shown.sum()} intervals, precision@IoU.5 {100 * right[shown].mean():.1f} %, "
            f"recall {100 * right[shown].sum() / wanted:.1f} %, ECE {calibration_error(told[shown], right[shown]):.3f} "
            f"(of all {len(told)} from 0.05 on: {calibration_error(told, right):.3f})"
        )
        for said, true, count in reliability(told, right):
            print(f"  said {said:.2f}  right {true:.2f}  {count}")
        if subset == "testing" and args.picture is not None:
            args.picture.write_text(reliability_picture(told, right), encoding="utf-8")


def detected(
    place: Path, videos: Sequence[AnnotatedVideo], least: float = 0.05
) -> tuple[np.ndarray, np.ndarray, int]:
    """(N,) scores, (N,) whether each is right, and how many stretches there are."""
    names = sorted({segment.label for video in videos for segment in video.segments})
    with Library.open(place) as library:
        known = {video.path.stem: video for video in library.videos("indexed")}
        found = localize_videos(
            library, [known[v.id] for v in videos], names, limits=Limits(least_score=least)
        )
        told, right = [], []
        for video in videos:
            told += [d.score for d in found[known[video.id]]]
            right += matched(video, found[known[video.id]])
    return np.array(told), np.array(right), sum(len(video.segments) for video in videos)


def matched(video: AnnotatedVideo, found: Sequence[Detection]) -> list[bool]:
    """Of each detection, best first, whether it has a stretch of its label for itself."""
    left = list(video.segments)
    right = []
    for d in found:
        same = [s for s in left if s.label == d.label]
        bounds = np.array([(1000 * s.start_s, 1000 * s.end_s) for s in same]).reshape(-1, 2)
        overlaps = tiou(np.array([[d.start_ms, d.end_ms]]), bounds)[0]
        hit = len(same) > 0 and float(overlaps.max()) >= 0.5
        right.append(hit)
        if hit:
            left.remove(same[int(overlaps.argmax())])
    return right


if __name__ == "__main__":
    main()
