"""The figures of the built-in model's card: accuracy with 95 % bootstrap intervals, size and speed.

    python benchmarks/mini.py --data ../shared/data [--model ViT-B-32:/path/to/weights] [--json out.json]

Columns: `mini`, ImageNet class-name matching and every `--model`: any name that vsearch takes, or the folder of another
build of `mini` (`config.json` and `weights.safetensors`; for versions before the fourth take the commit that the card names).
A rank is 1 + the number of candidates that score higher than the right one, ties counting half. Intervals
resample the queries 2,000 times. Videos are the mean of unit frame vectors; clips are sampled at 2 frames a second.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vsearch.models import Backbone
from vsearch.models.mini.train.data import held_out_photos, photo_captions
from vsearch.models.mini.train.teacher import imagenet_names, spaced

Encode = Callable[[list[Image.Image]], np.ndarray]
EncodeText = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One gallery of pictures-per-item and its queries: `answers[i]` is the item that query i wants."""

    items: list[list[Image.Image]]
    queries: list[str]
    answers: np.ndarray


@dataclass(frozen=True)
class Model:
    name: str
    images: Encode
    texts: EncodeText


def frames_test(data: Path) -> Task:
    """218 MSR-VTT videos of the 1k-A test list, one sentence each."""
    archive = zipfile.ZipFile(data / "msrvtt/frames-test.zip")
    frames: dict[str, list[Image.Image]] = {}
    for member in sorted(n for n in archive.namelist() if not n.endswith("/")):
        frames.setdefault(member.split("/")[0], []).append(open_picture(archive.read(member)))
    with open(data / "msrvtt/MSRVTT_JSFUSION_test.csv", encoding="utf8") as file:
        sentences = {row["video_id"]: row["sentence"] for row in csv.DictReader(file)}
    names = sorted(frames)
    return Task([frames[n] for n in names], [sentences[n] for n in names], np.arange(len(names)))


def clips(data: Path) -> tuple[Task, np.ndarray]:
    """63 real clips with all their captions, and which captions are their clip's first."""
    captions: dict[str, list[str]] = {}
    with open(data / "videos/clips.csv", encoding="utf8") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["video"], []).append(row["caption"])
    rows = [(c, i, j == 0) for i, own in enumerate(captions.values()) for j, c in enumerate(own)]
    items = [sample(data / "videos/clips" / name) for name in captions]
    task = Task(items, [c for c, _, _ in rows], np.array([i for _, i, _ in rows]))
    return task, np.array([first for _, _, first in rows])


def ucf101(data: Path) -> tuple[Task, list[str]]:
    """86 clips as items and queries of the 101 names: `answers` index the names here."""
    lines = (data / "annotations/ucf101/classInd.txt").read_text().split("\n")
    classes = [line.split()[1] for line in lines if line]
    with open(data / "videos/ucf101.csv", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    items = [sample(data / "videos/ucf101" / row["video"]) for row in rows]
    answers = np.array([classes.index(row["label"]) for row in rows])
    return Task(items, [], answers), [spaced(name) for name in classes]


def photos(data: Path) -> Task:
    """The photos that training never sees, with all their captions."""
    archive, captions = zipfile.ZipFile(data / "images/images.zip"), photo_captions(data)
    names = held_out_photos(data)
    pairs = [(c, i) for i, name in enumerate(names) for c in captions[name]]
    items = [[open_picture(archive.read(name))] for name in names]
    return Task(items, [c for c, _ in pairs], np.array([i for _, i in pairs]))


def imagenet_sample(data: Path) -> tuple[Task, list[str]]:
    """486 pictures as items, one for each of so many classes, and the 1,000 class names: `answers` index these."""
    archive = zipfile.ZipFile(data / "images/imagenet-sample.zip")
    members = sorted(n for n in archive.namelist() if not n.endswith("/"))
    classes = imagenet_names("imagenet")
    number = {synset: i for i, synset in enumerate(classes)}
    answers = np.array([number[Path(member).stem] for member in members])
    items = [[open_picture(archive.read(member))] for member in members]
    return Task(items, [], answers), [names[0] for names in classes.values()]


def open_picture(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def sample(path: Path, fps: float = 2.0) -> list[Image.Image]:
    """Pictures of a video at about `fps`, the short side at most 256 px."""
    import av

    taken: list[Image.Image] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        due, start = 0.0, None
        for frame in container.decode(stream):
            now = frame.time or 0.0
            start = now if start is None else start
            if now - start + 1e-6 < due:
                continue
            due += 1 / fps
            shrink = min(1.0, 256 / min(frame.width, frame.height))
            size = (round(frame.width * shrink), round(frame.height * shrink))
            taken.append(frame.to_image().resize(size, Image.Resampling.BICUBIC))
    return taken


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def gallery(model: Model, task: Task) -> np.ndarray:
    """(items, D) unit mean vectors"""
    counts = [len(item) for item in task.items]
    vectors = unit(model.images([picture for item in task.items for picture in item]))
    return unit(np.stack([part.mean(0) for part in np.split(vectors, np.cumsum(counts)[:-1])]))


def ranks(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """1 + how many candidates score higher than the right one, and half of those that tie with it (a model that
    gives all candidates one score must not look good). scores (queries, candidates)"""
    right = scores[np.arange(len(scores)), answers][:, None]
    return (scores > right).sum(1) + ((scores == right).sum(1) + 1) / 2


def with_interval(
    values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean
) -> tuple[float, float, float]:
    """(value, 2.5 %, 97.5 %) by resampling queries."""
    rng = np.random.default_rng(0)
    draws = statistic(values[rng.integers(len(values), size=(2000, len(values)))], axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(statistic(values)), float(low), float(high)


def report(found: np.ndarray, at: tuple[int, ...]) -> dict[str, tuple[float, float, float]]:
    out = {f"R@{k}": with_interval(100.0 * (found <= k)) for k in at}
    out["MdR"] = with_interval(found.astype(float), np.median)
    return out


def measure(model: Model, data: Path) -> dict[str, dict[str, tuple[float, float, float]]]:
    task = frames_test(data)
    scores = unit(model.texts(task.queries)) @ gallery(model, task).T
    out = {
        "frames-test text to video": report(ranks(scores, task.answers), (1, 5, 10)),
        "frames-test video to text": report(ranks(scores.T, task.answers), (1, 5, 10)),
    }
    task, first = clips(data)
    found = ranks(unit(model.texts(task.queries)) @ gallery(model, task).T, task.answers)
    out["63 clips, first caption"] = report(found[first], (1, 5, 10))
    out["63 clips, all captions"] = report(found, (1, 5, 10))
    task, names = ucf101(data)
    scores = gallery(model, task) @ unit(model.texts(names)).T
    found = ranks(scores, task.answers)
    out["UCF101 by name"] = {f"top-{k}": with_interval(100.0 * (found <= k)) for k in (1, 5)}
    task = photos(data)
    found = ranks(unit(model.texts(task.queries)) @ gallery(model, task).T, task.answers)
    out["held-out photos text to image"] = report(found, (1, 5, 10))
    task, names = imagenet_sample(data)
    found = ranks(gallery(model, task) @ unit(model.texts(names)).T, task.answers)
    out["ImageNet sample by name"] = {f"top-{k}": with_interval(100.0 * (found <= k)) for k in (1, 5)}
    return out


def load(name: str) -> Backbone:
    """A model by vsearch's names, or another build of `mini` from a folder with `config.json`."""
    from vsearch.models import load_backbone
    from vsearch.models.backbone import load_mini

    return load_mini(Path(name)) if (Path(name) / "config.json").is_file() else load_backbone(name, "cpu")


def vsearch_model(name: str) -> Model:
    backbone = load(name)
    pre = backbone.preprocess

    def images(pictures: list[Image.Image]) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), 32):
            batch = [fit(p, pre.size, pre.resize_mode) for p in pictures[start : start + 32]]
            parts.append(backbone.encode_frames(np.stack(batch)))
        return np.concatenate(parts)

    return Model(name, images, backbone.encode_texts)


def fit(picture: Image.Image, size: int, mode: str) -> np.ndarray:
    """One picture as (size, size, 3) uint8: short side resized then centre crop, or squashed."""
    if mode == "squash":
        return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    scale = size / min(picture.size)
    w, h = (max(size, round(side * scale)) for side in picture.size)
    picture = picture.resize((w, h), Image.Resampling.BICUBIC)
    left, top = (w - size) // 2, (h - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def class_name_model() -> Model:
    """Baseline b: a picture is its ImageNet class probabilities, a sentence the classes that it names."""
    import re

    import torch

    from vsearch.models.mini.train.net import imagenet_weights

    _, classifier = imagenet_weights("tf_efficientnet_lite0")
    names = list(imagenet_names("imagenet").values())

    def images(pictures: list[Image.Image]) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), 32):
            x = torch.from_numpy(np.stack([fit(p, 224, "shortest") for p in pictures[start : start + 32]]))
            with torch.inference_mode():
                parts.append(classifier((x.permute(0, 3, 1, 2).float() - 127) / 128).softmax(-1).numpy())
        return np.concatenate(parts)

    words = [{w for name in own for w in re.findall(r"[a-z]+", name) if len(w) > 1} for own in names]

    def texts(sentences: list[str]) -> np.ndarray:
        said = [set(re.findall(r"[a-z]+", s.lower())) for s in sentences]
        stems = [s | {w.rstrip("s") for w in s} for s in said]
        return np.array([[len(s & own) / len(own) for own in words] for s in stems]) + 1e-9

    return Model("ImageNet class names", images, texts)


def speed(name: str) -> dict[str, float]:
    """On this machine: frames a second of the image tower, text latency and load time."""
    import resource

    import open_clip  # noqa: F401 - its import is not the model's loading
    import timm  # noqa: F401

    begun = time.perf_counter()
    backbone = load(name)
    loaded = time.perf_counter() - begun
    pixels = np.random.default_rng(0).integers(
        0, 255, (16, *[backbone.preprocess.size] * 2, 3), dtype=np.uint8
    )
    backbone.arrange()  # as `index` does before it encodes many frames
    backbone.encode_frames(pixels)
    begun = time.perf_counter()
    for _ in range(16):
        backbone.encode_frames(pixels)
    frames_per_s = 256 / (time.perf_counter() - begun)
    backbone.encode_texts(["a warm-up"])
    begun = time.perf_counter()
    for _ in range(20):
        backbone.encode_texts(["a dog running on grass"])
    towers = {
        "image": sum(p.numel() for p in backbone.clip.visual.parameters()),
        "all": sum(p.numel() for p in backbone.clip.parameters()),
    }
    return {
        "image tower, million parameters": towers["image"] / 1e6,
        "all, million parameters": towers["all"] / 1e6,
        "load, s": loaded,
        "frames/s": frames_per_s,
        "peak memory of this process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "text latency, ms": 1000 * (time.perf_counter() - begun) / 20,
    }


def show(name: str, table: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    print(f"\n{name}")
    for task, figures in table.items():
        cells = [f"{k} {v:.1f} [{low:.1f}, {high:.1f}]" for k, (v, low, high) in figures.items()]
        print(f"  {task:32s} " + "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--model", action="append", default=[], help="a further model to measure, by vsearch's names"
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument(
        "--threads", type=int, default=2, help="1 is faster when other programs use the cores"
    )
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    results: dict[str, object] = {}
    for model in [vsearch_model("mini"), class_name_model(), *map(vsearch_model, args.model)]:
        table = measure(model, args.data)
        show(model.name, table)
        results[model.name] = table
    for name in ("mini", *args.model):
        results[f"{name} speed"] = figures = speed(name)
        print(f"\n{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
