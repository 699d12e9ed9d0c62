"""Stage 3: pooled features of the frozen ImageNet trunk, once a picture and view.

View 0 is the product's own preprocessing (short side to 224, centre crop); the others are random crops with
another shape, mirrored half of the time, with other brightness, contrast and colour.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

from vsearch.models.mini.train.data import Picture, list_pictures
from vsearch.models.mini.train.net import DEVICE, build_clip

SIZE = 224


def centre(picture: Image.Image) -> Image.Image:
    scale = SIZE / min(picture.size)
    w, h = (max(SIZE, round(side * scale)) for side in picture.size)
    left, top = (w - SIZE) // 2, (h - SIZE) // 2
    return picture.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + SIZE, top + SIZE))


def augmented(picture: Image.Image, rng: random.Random) -> Image.Image:
    w, h = picture.size
    box_w, box_h = w, h
    for _ in range(10):
        area = rng.uniform(0.45, 1) * w * h
        shape = float(np.exp(rng.uniform(np.log(0.7), np.log(1.5))))
        if (area * shape) ** 0.5 <= w and (area / shape) ** 0.5 <= h:
            box_w, box_h = int((area * shape) ** 0.5), int((area / shape) ** 0.5)
            break
    left, top = rng.randint(0, w - box_w), rng.randint(0, h - box_h)
    box = (left, top, left + box_w, top + box_h)
    picture = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(rng.uniform(0.7, 1.3))
    return picture


def to_input(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, 224, 224) float32, channels last, scaled as the ImageNet weights want it."""
    raw = np.stack([np.asarray(p) for p in pictures])
    return (torch.from_numpy(raw).permute(0, 3, 1, 2).float() - 127) / 128


def cache_features(data: Path, work: Path, views: int = 2, report: Callable[[str], None] = print) -> None:
    """`pooled_v{k}.npy` (pictures, 1280) float16, for the picture list of `data`; finished views are kept."""
    pictures = list_pictures(data)
    archives = {a: zipfile.ZipFile(data / a) for a in {p.archive for p in pictures}}
    trunk = build_clip().eval().visual.trunk.to(DEVICE).to(memory_format=torch.channels_last)

    def open_picture(picture: Picture) -> Image.Image:
        return Image.open(io.BytesIO(archives[picture.archive].read(picture.member))).convert("RGB")

    for view in range(views):
        path = work / f"pooled_v{view}.npy"
        if path.is_file():
            continue
        rng = random.Random(view)  # noqa: S311 - augmentation, no secret
        parts = []
        for start in range(0, len(pictures), 32):
            batch = [open_picture(p) for p in pictures[start : start + 32]]
            x = to_input([centre(p) if view == 0 else augmented(p, rng) for p in batch])
            with torch.inference_mode():
                parts.append(trunk(x.to(DEVICE)).half().cpu().numpy())
            if start // 32 % 50 == 0:
                report(f"view {view}: {start} of {len(pictures)} pictures")
        np.save(path, np.concatenate(parts))
