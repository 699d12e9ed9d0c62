"""Videos of a moving shape, where only the order of frames tells classes apart, in MSR-VTT's file format.

A square crosses the picture from left to right or from right to left (or up, down). Each pair of opposite
directions shows the same set of pictures, so an average over frames cannot tell them apart.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

DIRECTIONS = ("left to right", "right to left", "top to bottom", "bottom to top")
FRAMES = 6


def write_corpus(folder: Path, videos: int = 48, seed: int = 0, size: int = 64, directions: int = 4) -> Path:
    """`MSRVTT_data.json`, the two lists, and `frames.zip`; a quarter of the videos are the test list."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    info, sentences, tested = [], [], []
    with zipfile.ZipFile(folder / "frames.zip", "w") as archive:
        for number in range(videos):
            name, direction = f"video{number}", DIRECTIONS[number % directions]
            for i, picture in enumerate(clip(direction, rng, size)):
                buffer = io.BytesIO()
                Image.fromarray(picture).save(buffer, "PNG")
                archive.writestr(f"{name}/0_{i:03d}.png", buffer.getvalue())
            test = number >= videos * 3 // 4
            tested += [name] if test else []
            info.append({"video_id": name, "split": "test" if test else "train", "category": 0, "id": number,
                         "start time": 0.0, "end time": 3.0, "url": ""})  # fmt: skip
            sentences.append(
                {"caption": f"a square moves from {direction}", "video_id": name, "sen_id": number}
            )
    (folder / "MSRVTT_data.json").write_text(json.dumps({"info": {}, "videos": info, "sentences": sentences}))
    train = [item["video_id"] for item in info if item["video_id"] not in tested]
    (folder / "MSRVTT_train.9k.csv").write_text("video_id\n" + "\n".join(map(str, train)) + "\n")
    rows = [f"ret{i},msr,{v},{s['caption']}" for i, (v, s) in enumerate((s["video_id"], s) for s in sentences)
            if v in tested]  # fmt: skip
    (folder / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\n" + "\n".join(rows) + "\n"
    )
    for split, wanted in (("train", False), ("test", True)):
        lines = [
            f"{s['video_id']},{s['caption'].split('from ')[1]}"
            for s in sentences
            if (s["video_id"] in tested) == wanted
        ]
        (folder / f"labels-{split}.csv").write_text("video,label\n" + "\n".join(lines) + "\n")
    return folder


def clip(direction: str, rng: np.random.Generator, size: int = 64) -> list[np.ndarray]:
    """FRAMES pictures (size, size, 3) uint8 of one crossing; lane, brightness and shape of steps vary."""
    side, lane = size // 4, int(rng.integers(0, size * 3 // 4))
    colour = rng.integers(200, 256, 3)
    steps = np.linspace(0, size - side, FRAMES).round().astype(int)
    if direction in ("right to left", "bottom to top"):
        steps = steps[::-1]
    pictures = []
    for at in steps:
        picture = np.full((size, size, 3), 20, np.uint8)
        across = direction in ("left to right", "right to left")
        y, x = (lane, at) if across else (at, lane)
        picture[y : y + side, x : x + side] = colour
        pictures.append(picture)
    return pictures
