"""Untrimmed videos whose seams are the truth: action clips between background clips, really concatenated.

Every source clip is re-encoded once to 320x240, 25 frames a second, H.264; a video is these streams one after
the other, copied packet by packet into one MP4. Training and test videos share no UCF101 group and no background
clip.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

FPS, WIDTH, HEIGHT = 25, 320, 240
BACKGROUND_S = 12.0  # longer background clips are cut
LEAST_CLIPS = 10  # of a class, for it to be one of the actions
LAST_TRAINING_GROUP = 12
LENGTH_S = (60.0, 150.0)  # before the last clips are added


def build(data: Path, out: Path, train: int, test: int, seed: int = 0) -> Path:
    """Make `train` + `test` videos of 1 to 4 minutes from `data` (clips/, ucf101/, ucf101.csv) in `out`.

    Gives the annotation file, in ActivityNet's form with subsets `training` and `testing`. Done already: nothing
    is made again.
    """
    annotations = out / "annotations.json"
    if annotations.is_file():
        return annotations
    (out / "parts").mkdir(parents=True, exist_ok=True)
    actions, background = _sources(data)
    rng = random.Random(seed)
    database = {}
    for subset, count in (("training", train), ("testing", test)):
        sources = [file for files in (*actions[subset].values(), background[subset]) for file in files]
        parts = {file: part_of(out / "parts", file) for file in sources}
        lengths = {file: frame_count(part) / FPS for file, part in parts.items()}
        for i in range(count):
            script = _script(rng, actions[subset], background[subset], lengths, rng.uniform(*LENGTH_S))
            name = f"{subset}_{i:03d}"
            concatenate([parts[file] for file, _ in script], out / f"{name}.mp4")
            total = sum(lengths[file] for file, _ in script)
            database[name] = {"subset": subset, "duration": total, "annotations": _truth(script, lengths)}
    shutil.rmtree(out / "parts")
    annotations.write_text(json.dumps({"version": "concatenated UCF101", "database": database}))
    return annotations


def spoken(label: str) -> str:
    """'PlayingPiano' -> 'playing piano'"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()


Sources = dict[str, dict[str, list[Path]]]


def _sources(data: Path) -> tuple[Sources, dict[str, list[Path]]]:
    """Action clips by subset and class, background clips by subset."""
    rows = list(csv.DictReader((data / "ucf101.csv").open(encoding="utf-8")))
    labels = [row["label"] for row in rows]
    actions: Sources = {"training": {}, "testing": {}}
    for row in rows:
        if labels.count(row["label"]) >= LEAST_CLIPS:
            group = int(row["video"].split("_g")[1][:2])
            subset = "training" if group <= LAST_TRAINING_GROUP else "testing"
            actions[subset].setdefault(row["label"], []).append(data / "ucf101" / row["video"])
    others = sorted(
        path for path in (data / "clips").iterdir() if path.suffix in (".mp4", ".webm", ".mkv", ".avi")
    )
    return actions, {"training": others[::2], "testing": others[1::2]}


Script = list[tuple[Path, str | None]]


def _script(
    rng: random.Random,
    actions: dict[str, list[Path]],
    background: Sequence[Path],
    lengths: Mapping[Path, float],
    length_s: float,
) -> Script:
    """Clips of one video with their labels (None: background); two to four classes, never twice in a row."""
    classes = rng.sample(sorted(actions), rng.randint(2, 4))
    script: Script = [(rng.choice(background), None)]
    last = None
    while sum(lengths[file] for file, _ in script) < length_s:
        label = rng.choice([c for c in classes if c != last])
        script.append((rng.choice(actions[label]), spoken(label)))
        script += [(rng.choice(background), None) for _ in range(rng.choice((0, 1, 1, 2)))]
        last = label
    return [*script, (rng.choice(background), None)]


def _truth(script: Script, lengths: Mapping[Path, float]) -> list[dict[str, object]]:
    found, start = [], 0.0
    for file, label in script:
        end = start + lengths[file]
        if label is not None:
            found.append({"segment": [round(start, 3), round(end, 3)], "label": label})
        start = end
    return found


def part_of(folder: Path, source: Path) -> Path:
    """The clip re-encoded, made once."""
    import av

    target = folder / f"{source.stem}.mp4"
    if target.is_file():
        return target
    temporary = target.with_suffix(".partial.mp4")
    with av.open(str(source)) as clip, av.open(str(temporary), "w") as made:
        stream = made.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "30", "g": str(FPS), "bf": "0"}
        written, first = 0, None
        for frame in clip.decode(video=0):
            first = frame.time if first is None else first
            time_s = frame.time - first
            if time_s >= BACKGROUND_S:
                break
            picture = frame.reformat(WIDTH, HEIGHT, "yuv420p")
            while written <= time_s * FPS:  # constant rate: a frame is repeated or left out
                copy = av.VideoFrame.from_ndarray(picture.to_ndarray(), "yuv420p")
                copy.pts, copy.time_base = written, Fraction(1, FPS)
                made.mux(stream.encode(copy))
                written += 1
        made.mux(stream.encode())
    return temporary.rename(target)


def frame_count(part: Path) -> int:
    import av

    with av.open(str(part)) as clip:
        return sum(packet.size > 0 for packet in clip.demux(video=0))


def concatenate(parts: Sequence[Path], target: Path) -> None:
    """One MP4 of the parts' packets, one after the other."""
    import av

    with av.open(str(target), "w") as made:
        stream, frames = None, 0
        for part in parts:
            with av.open(str(part)) as clip:
                source = clip.streams.video[0]
                stream = stream or made.add_stream_from_template(source)
                for packet in clip.demux(source):
                    if packet.size == 0:
                        continue
                    packet.stream, packet.time_base = stream, Fraction(1, FPS)
                    packet.pts = packet.dts = frames
                    packet.duration = 1
                    made.mux(packet)
                    frames += 1
