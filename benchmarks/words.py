"""Do "likely" and "not here" mean what they say? Things that are in a library and things that are not, asked of it.

    python benchmarks/words.py ../shared/data [--library DIR] [--model NAME_OR_FOLDER] [--picture docs/words.svg]

needs `videos/clips`, `videos/ucf101`, `videos/clips.csv`, `videos/present_absent.csv` and MSR-VTT's frames-test there. The
149 videos are indexed first, unless `--library` has them. Every figure is what `vsearch query` says: "found" is likely or
strong. Subsets of 20 and 60 videos are drawn five times; 10,000 others are made up from mixtures of the library's moments.
Captions of the clips and of frames-test are asked with and without their own video.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import mini
from benchmarks.product import run_index
from vsearch.library import Library
from vsearch.maths import normalise
from vsearch.models import Encoder
from vsearch.models.neutral import neutral_scores, neutral_vectors
from vsearch.retriever import live_encoder
from vsearch.retriever.calibrate import LIKELY, STRONG, Judge, probability
from vsearch.retriever.encoders import matching_encoder

MADE_UP = 10_000
DRAWS = 5
BINS = np.linspace(0, 1, 6)


class Moments(NamedTuple):
    """Unit vectors (N, D), and the video (N,) that each is of."""

    vectors: np.ndarray
    video: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = args.library or Path(scratch) / "library"
        if args.library is None:
            run_index(args.data / "videos", args.model, place)
        with Library.open(place) as library:
            encoder = matching_encoder(live_encoder(library))
            ids, vectors = (np.concatenate(part) for part in zip(*library.open_live().vectors(), strict=True))
            names = [moment.videos[0].path.name for moment in library.moments(ids.tolist())]
    report(args.data, encoder, Moments(vectors, np.asarray(names)), args.picture)


def report(data: Path, encoder: Encoder, moments: Moments, picture: Path | None) -> None:
    bank = neutral_vectors(encoder)
    rows = list(csv.DictReader((data / "videos/present_absent.csv").open(encoding="utf-8")))
    present = np.array([row["present"] == "1" for row in rows])
    queries = encoder.embed_texts([row["sentence"] for row in rows])
    found = chances(moments, queries, bank)
    show("present", found[present])
    show("absent", found[~present])
    told = np.array([probability(chance) for chance in found])
    print(f"AUROC {auroc(-found[present], -found[~present]):.3f}  ECE {calibration_error(told, present):.3f}")
    rng = np.random.default_rng(0)
    for size in (20, 60):
        draws = [rng.choice(np.unique(moments.video), size, replace=False) for _ in range(DRAWS)]
        some = [chances(of(moments, draw), queries[~present], bank) for draw in draws]
        show(f"absent, {size} videos", np.concatenate(some))
    show(f"absent, {MADE_UP:,} made-up moments", chances(made_up(moments, rng), queries[~present], bank))
    captions = list(csv.DictReader((data / "videos/clips.csv").open(encoding="utf-8")))
    own = np.array([row["video"] for row in captions])
    sentences = encoder.embed_texts([row["caption"] for row in captions])
    beside(f"{len(set(own))} clips", of(moments, own), sentences, own, bank)
    if encoder.backbone.name == "mini":
        beside("frames-test", *frames_test(data), bank)
    if picture is not None:
        picture.write_text(reliability_picture(told, present), encoding="utf-8")


def chances(
    moments: Moments, queries: np.ndarray, bank: np.ndarray, without: np.ndarray | None = None
) -> np.ndarray:
    """(Q,) chance of each sentence's likeliest moment; `without` (Q,): the video that is left out for each."""
    ids = np.arange(len(moments.vectors))
    scores = neutral_scores(ids, [(ids, moments.vectors)], bank)
    found = []
    for i, query in enumerate(queries):
        judge = Judge.of(scores, query, len(ids))
        assert judge is not None
        each = judge.chances(moments.vectors @ query, judge.hubs(ids))
        found.append(each.min() if without is None else each[moments.video != without[i]].min())
    return np.asarray(found)


def beside(name: str, moments: Moments, sentences: np.ndarray, own: np.ndarray, bank: np.ndarray) -> None:
    """Captions with their own video in the library, and without it."""
    there, away = chances(moments, sentences, bank), chances(moments, sentences, bank, own)
    show(f"{name}, own video there", there)
    show(f"{name}, own video left out", away)
    told = np.array([probability(chance) for chance in (*there, *away)])
    right = np.arange(len(told)) < len(there)
    print(f"{name}: AUROC {auroc(-there, -away):.3f}  ECE {calibration_error(told, right):.3f}")


def of(moments: Moments, videos: np.ndarray) -> Moments:
    kept = np.isin(moments.video, videos)
    return Moments(moments.vectors[kept], moments.video[kept])


def made_up(moments: Moments, rng: np.random.Generator) -> Moments:
    """Mixtures of three moments each, with some noise: other videos of the same kind of vectors."""
    picks = moments.vectors[rng.integers(len(moments.vectors), size=(MADE_UP, 3))]
    weights = rng.dirichlet((1, 1, 1), size=MADE_UP)[:, :, None]
    noise = rng.normal(0, 0.3 / np.sqrt(moments.vectors.shape[1]), (MADE_UP, moments.vectors.shape[1]))
    mixed = normalise((picks * weights).sum(1) + noise)
    return Moments(np.concatenate([moments.vectors, mixed]), np.arange(len(moments.vectors) + MADE_UP))


def frames_test(data: Path) -> tuple[Moments, np.ndarray, np.ndarray]:
    """MSR-VTT's test videos as the means of their frames, the first caption of each, and whose it is, by `mini`."""
    task, model = mini.frames_test(data), mini.vsearch_model("mini")
    vectors = mini.gallery(model, task)
    return Moments(vectors, np.arange(len(vectors))), normalise(model.texts(task.queries)), task.answers


def show(name: str, found: np.ndarray) -> None:
    print(
        f"{name}: {len(found)} sentences, found {100 * (found <= LIKELY).mean():.0f} %, "
        f"strong {100 * (found <= STRONG).mean():.0f} %"
    )


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    """How often a right one scores above a wrong one."""
    return float((right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean())


def reliability(told: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """Of each fifth of the scale: what was told on average, the share that was right, how many."""
    place = np.clip(np.digitize(told, BINS) - 1, 0, len(BINS) - 2)
    at = [place == k for k in range(len(BINS) - 1)]
    return [(float(told[k].mean()), float(right[k].mean()), int(k.sum())) for k in at if k.any()]


def calibration_error(told: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over five bins (Guo et al., ICML 2017)."""
    return sum(n / len(told) * abs(said - true) for said, true, n in reliability(told, right))


def reliability_picture(told: np.ndarray, right: np.ndarray) -> str:
    """An SVG: what was said across, what was right upwards; a point's area is how many there are."""
    side, edge = 240, 40

    def at(said: float, true: float) -> tuple[float, float]:
        return edge + said * side, edge / 2 + (1 - true) * side

    table = reliability(told, right)
    most = max(n for *_, n in table)
    points = "".join(
        f'<circle cx="{at(said, true)[0]:.1f}" cy="{at(said, true)[1]:.1f}" r="{3 + 9 * (n / most) ** 0.5:.1f}" fill="#2563eb" '
        f'fill-opacity=".75"><title>said {said:.2f}, right {true:.2f}, {n} times</title></circle>'
        for said, true, n in table
    )
    ticks = "".join(
        f'<text x="{at(v, 0)[0]:.0f}" y="{at(0, 0)[1] + 16:.0f}" text-anchor="middle">{v:g}</text>'
        f'<text x="{edge - 6}" y="{at(0, v)[1] + 4:.0f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + edge + 20} {side + edge + 20}" font-family="sans-serif" '
        f'font-size="11" fill="#666"><rect x="{x0}" y="{y1}" width="{side}" height="{side}" fill="none" stroke="#999"/>'
        f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="#999" stroke-dasharray="4"/>{points}{ticks}'
        f'<text x="{x0 + side / 2}" y="{y0 + 32}" text-anchor="middle">probability that was said</text>'
        f'<text transform="translate(12 {y1 + side / 2}) rotate(-90)" text-anchor="middle">share that was right</text></svg>\n'
    )


if __name__ == "__main__":
    main()
