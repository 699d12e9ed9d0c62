"""Localization on untrimmed videos built from UCF101 clips: mAP and average recall of proposals, and speed.

    python benchmarks/localization.py ../shared/data/videos --work ../untrimmed

`untrimmed.py` says how the videos are made; they go through `vsearch index`. Ways to get intervals: fixed windows
(8 s, every 4 s), runs of frames with the same best name, both proposal makers, and the true intervals (oracle).
Settings: closed-set (learned prompts: Efficient-Prompt's vectors around the names, trained on the training videos
with both towers frozen), "closed, instances" (a vector a class: its name in templates and the mean of its instances,
half and half, both away from their means), "closed, both" (the same with learned prompts in the templates' place, as
`vsearch train-proposals --vocabulary` keeps it), open-set (3 of the 6 classes at a time, the mean of 10 splits;
generator trained without them, names in templates), zero-shot (names in templates; the generator saw instances of
these classes in the training videos, the training-free maker nothing). What unrelated footage scores is taken from
the videos themselves, without labels, as in the product.
"+-" is the standard error of .3-.7 over test videos (jackknife over ten groups of them); for open-set it is the
standard deviation over the splits.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from untrimmed import build

from vsearch.library import Library
from vsearch.models import TrainingVideo, load_backbone, train_generator
from vsearch.models.training import AnnotatedVideo, read_annotations
from vsearch.models.training.localization_metrics import (
    THUMOS_IOUS,
    MapResult,
    OpenSetResult,
    average_recall,
    mean_average_precision,
    open_set,
)
from vsearch.models.training.segments import Prediction
from vsearch.retriever import live_encoder
from vsearch.retriever.actions import Limits, generated_by
from vsearch.retriever.actions.learn import (
    annotated_pairs,
    frame_ranges,
    prompted,
    training_video,
    with_instances,
)
from vsearch.retriever.actions.localize import REJECT, background_from, localize, reference_windows
from vsearch.retriever.actions.proposals import Floats, Proposals, Timeline, propose, select
from vsearch.retriever.actions.videos import embed_actions, timeline_of, vocabulary

EVERYTHING = Limits(per_class=100, per_video=1000, least_score=0.0, overlapping=True)
Maker = Callable[[str], Proposals]  # proposals of a video by name
SPLITS, GROUPS = 10, 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where videos and library are kept")
    parser.add_argument("--train", type=int, default=20)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    truth = read_annotations(build(args.data, args.work / "videos", args.train, args.test))
    index = [sys.executable, "-m", "vsearch", "index", str(args.work / "videos"), "--progress", "none"]
    subprocess.run([*index, "--library", str(args.work / "library"), "--model", args.model], check=True)
    with Library.open(args.work / "library") as library:
        bench = Bench(library, truth)
        bench.table(args.model)
        bench.speed(library)


class Bench:
    def __init__(self, library: Library, videos: Sequence[AnnotatedVideo]) -> None:
        self.timelines = {v.path.stem: timeline_of(library, v) for v in library.videos("indexed")}
        self.train = [v for v in videos if v.subset == "training"]
        self.test = [v for v in videos if v.subset == "testing"]
        self.annotated = [(self.timelines[v.id], v.segments) for v in self.train]
        self.truth = [s for v in self.test for s in v.segments]
        self.names = sorted({s.label for s in self.truth})
        self.backbone = live_encoder(library).backbone
        mean = embed_actions(library, self.names).mean(axis=0)
        self.texts = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        self.references = reference_windows([self.timelines[v.id] for v in self.test])

    def table(self, model: str) -> None:
        minutes = sum(v.duration_s for v in self.test) / 60
        print(
            f"{len(self.test)} test videos ({minutes:.0f} min, {len(self.truth)} instances), "
            f"{len(self.train)} training videos, {len(self.names)} classes"
        )
        print(
            f"{'setting':<18} {'intervals':<16} {'mAP@.3':>7} {'@.5':>6} {'@.7':>6} {'.3-.7':>6} {'+-':>5} {'AR@50':>7}"
        )
        generator = generated_by(train_generator(self.training_videos(self.names), self.backbone))
        makers: dict[str, Maker] = {
            "fixed windows": lambda v: fixed_windows(self.timelines[v]),
            "training-free": lambda v: propose(self.timelines[v]),
            "trained": lambda v: generator(self.timelines[v]),
            "oracle": self.oracle,
        }
        made = {way: {v.id: maker(v.id) for v in self.test} for way, maker in makers.items()}
        texts = prompted(load_backbone(model), self.annotated, self.names)
        pairs = annotated_pairs(self.annotated, self.names)
        settings = {
            "closed-set": texts,
            "closed, instances": with_instances(self.texts, pairs),
            "closed, both": with_instances(texts, pairs),
            "zero-shot": self.texts,
        }
        for setting, vectors in settings.items():
            for way, proposals in made.items():
                found = self.detect(proposals, self.names, vectors)
                self.mean_line(setting, way, found, self.recall(proposals))
            runs = self.frame_runs(self.names, vectors)
            self.mean_line(setting, "frame runs", runs, average_recall(self.truth, runs, 50))
        self.open_set_lines(made)

    def mean_line(self, setting: str, way: str, found: Sequence[Prediction], recall: float) -> None:
        left_out = []
        for k in range(GROUPS):
            group = {v.id for v in self.test[k::GROUPS]}
            rest = mean_average_precision(
                [s for s in self.truth if s.video not in group], [p for p in found if p.video not in group]
            )
            left_out.append(rest.average)
        error = float(np.std(left_out) * np.sqrt(GROUPS - 1))
        self.line(setting, way, mean_average_precision(self.truth, found), recall, error)

    def open_set_lines(self, made: dict[str, dict[str, Proposals]]) -> None:
        halves = [set(c) for c in combinations(self.names, len(self.names) // 2)]
        splits = [halves[i] for i in np.random.default_rng(0).permutation(len(halves))[:SPLITS]]
        for way in (*made, "frame runs"):
            recalls = []

            def predict(
                unseen: Collection[str], way: str = way, recalls: list[float] = recalls
            ) -> list[Prediction]:
                names = sorted(unseen)
                texts = self.texts[[self.names.index(name) for name in names]]
                here = [s for s in self.truth if s.label in unseen]
                if way == "frame runs":
                    found = self.frame_runs(names, texts)
                    recalls.append(average_recall(here, found, 50))
                    return found
                proposals = made[way]
                if way == "trained":
                    seen = [name for name in self.names if name not in unseen]
                    maker = generated_by(train_generator(self.training_videos(seen), self.backbone))
                    proposals = {v.id: maker(self.timelines[v.id]) for v in self.test}
                recalls.append(average_recall(here, as_predictions(proposals), 50))
                return self.detect(proposals, names, texts)

            result = open_set(self.truth, splits, predict, THUMOS_IOUS)
            self.line("open-set", way, result, float(np.mean(recalls)), result.deviation)

    def line(
        self, setting: str, way: str, result: MapResult | OpenSetResult, recall: float, spread: float
    ) -> None:
        shares = (result.at(0.3), result.at(0.5), result.at(0.7), result.average, spread, recall)
        numbers = "{:>7.1f} {:>6.1f} {:>6.1f} {:>6.1f} {:>5.1f} {:>7.1f}".format(*(100 * x for x in shares))
        print(f"{setting:<18} {way:<16} {numbers}", flush=True)

    def detect(
        self, proposals: dict[str, Proposals], names: Sequence[str], vectors: Floats
    ) -> list[Prediction]:
        background = background_from(self.references, vectors)
        return [
            Prediction(video, d.start_ms / 1000, d.end_ms / 1000, d.label, d.score)
            for video, found in proposals.items()
            for d in localize(self.timelines[video], found, names, vectors, background, EVERYTHING)
        ]

    def recall(self, proposals: dict[str, Proposals]) -> float:
        return average_recall(self.truth, as_predictions(proposals), 50)

    def oracle(self, video: str) -> Proposals:
        segments = next(v.segments for v in self.test if v.id == video)
        spans = frame_ranges(self.timelines[video], segments)
        bounds = np.asarray([(s.start_s * 1000, s.end_s * 1000) for s in segments]).round().astype(np.int64)
        ones = np.ones(len(spans), dtype=np.float32)
        return Proposals(spans[:, 0], spans[:, 1], bounds[:, 0], bounds[:, 1], ones)

    def frame_runs(self, names: Sequence[str], vectors: Floats) -> list[Prediction]:
        """Runs of frames (smoothed over 2.5 s) whose best name is the same and stands out."""
        background = background_from(self.references, vectors)
        found = []
        for video in self.test:
            timeline = self.timelines[video.id]
            at = np.arange(len(timeline))
            smooth = timeline.means(np.maximum(0, at - 2), np.minimum(len(timeline), at + 3))
            cosines = smooth @ vectors.T / np.linalg.norm(smooth, axis=1, keepdims=True)
            fit = (cosines - background.middle) / background.deviation
            best = np.where(fit.max(axis=1) > REJECT, fit.argmax(axis=1), -1)
            cuts = np.flatnonzero(np.diff(best, prepend=-2, append=-2))
            for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
                if best[a] >= 0:
                    start, end = timeline.edges_ms[a] / 1000, timeline.edges_ms[b] / 1000
                    score = float(fit[a:b, best[a]].mean())
                    found.append(Prediction(video.id, start, end, names[best[a]], score))
        return found

    def training_videos(self, names: Collection[str]) -> list[TrainingVideo]:
        return [training_video(self.timelines[v.id], v.segments, names) for v in self.train]

    def speed(self, library: Library) -> None:
        """An hour of stored frames (the test videos end to end) against 100 names, text vectors cached."""
        names = vocabulary("kinetics400")[:100]
        embed_actions(library, names)
        unit = np.concatenate([self.timelines[v.id].unit for v in self.test]).astype(np.float16)
        hour = np.resize(unit, (7200, unit.shape[1]))
        begin = time.perf_counter()
        texts = embed_actions(library, names).mean(axis=0)
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        timeline = Timeline.of(hour, np.arange(7200, dtype=np.int64) * 500, 3_600_000)
        background = background_from(reference_windows([timeline]), texts)
        proposals = propose(timeline)
        found = localize(timeline, proposals, names, texts, background)
        took = time.perf_counter() - begin
        print(
            f"an hour (7,200 frames) against 100 names: {took:.2f} s, {len(proposals)} proposals, {len(found)} found"
        )


def fixed_windows(timeline: Timeline, width: int = 16) -> Proposals:
    first = np.arange(0, max(1, len(timeline) - width // 2), width // 2)
    spans = np.stack([first, np.minimum(first + width, len(timeline))], axis=1)
    # No window is better than another: their order does not follow time, which would favour early ones.
    scores = np.random.default_rng(0).permutation(len(spans)).astype(np.float32) * 1e-6 + 1
    return select(timeline, spans, scores, len(spans))


def as_predictions(proposals: dict[str, Proposals]) -> list[Prediction]:
    return [
        Prediction(video, start / 1000, end / 1000, "", float(score))
        for video, p in proposals.items()
        for start, end, score in zip(p.start_ms.tolist(), p.end_ms.tolist(), p.score.tolist(), strict=True)
    ]


if __name__ == "__main__":
    main()
