"""MSR-VTT in all its forms: official JSON, both CSV families, the Hugging-Face list, the mmaction2 object."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from vsearch.errors import VsearchError
from vsearch.models.training.datasets.base import (
    Clip,
    Dataset,
    field,
    read_json,
    read_table,
    read_text,
    split_name,
)

_OFFICIAL = (
    "MSRVTT_data.json",
    "train_val_videodatainfo.json",
    "train_val_annotation.zip",
    "test_videodatainfo.json",
    "test_videodatainfo.json.zip",
)
_LISTS = {"9k": "MSRVTT_train.9k.csv", "7k": "MSRVTT_train.7k.csv"}


def read(path: Path, split: str) -> Dataset:
    """`path`: a file, or a folder with the official files. Splits: 1k-A (test of the CSV), 9k, 7k (training lists
    with the JSON's captions), train, validate, test (the JSON's own)."""
    split_name(split, path, "1k-A", "9k", "7k", "train", "validate", "test")
    if path.is_dir():
        return _from_folder(path, split)
    clips = _from_csv(path) if path.suffix == ".csv" else _from_json(path, split)
    return Dataset("msrvtt", split, tuple(clips))


def _from_folder(folder: Path, split: str) -> Dataset:
    if split == "1k-A":
        return Dataset("msrvtt", split, tuple(_from_csv(folder / "MSRVTT_JSFUSION_test.csv")))
    files = [folder / name for name in _OFFICIAL if (folder / name).is_file()]
    if not files:
        raise VsearchError(f"{folder}: expected one of {', '.join(_OFFICIAL)} in it")
    if split not in _LISTS:
        clips = {clip.video: clip for file in files for clip in _from_json(file, split)}
        return Dataset("msrvtt", split, tuple(clips.values()))
    # The training lists of 1k-A reach into the official test part, so every file is looked at.
    known = {clip.video: clip for file in files for clip in _from_json(file, "")}
    wanted = _ids(folder / _LISTS[split])
    lacking = [video for video in wanted if video not in known]
    if lacking:
        raise VsearchError(
            f"{folder}: {len(lacking)} videos of {_LISTS[split]} have no captions, e.g. {lacking[0]}"
        )
    return Dataset("msrvtt", split, tuple(known[video] for video in wanted))


def _ids(path: Path) -> list[str]:
    return [row["video_id"] for _, row in read_table(path, "video_id")]


def _from_csv(path: Path) -> list[Clip]:
    header = next(csv.reader(io.StringIO(read_text(path))), [])
    if "sentence" in header:
        return [
            Clip(row["video_id"], (row["sentence"],)) for _, row in read_table(path, "video_id", "sentence")
        ]
    raise VsearchError(
        f"{path}, line 1: expected the columns video_id and sentence; a training list carries no captions, "
        "give the folder that holds it together with the official JSON"
    )


def _from_json(path: Path, split: str) -> list[Clip]:
    content = read_json(path)
    if isinstance(content, dict) and "sentences" in content:
        return _official(content, path, split)
    if isinstance(content, list):
        return [_hugging_face(item, path, i) for i, item in enumerate(content)]
    if isinstance(content, dict) and content:
        return [_mmaction(name, content[name], path) for name in content]
    raise VsearchError(f"{path}: expected MSR-VTT's JSON: an object with 'videos' and 'sentences', or a list")


def _official(content: dict[str, Any], path: Path, split: str) -> list[Clip]:
    captions: dict[str, list[tuple[int, str]]] = {}
    for i, item in enumerate(field(content, "sentences", list, path, "top")):
        where = f"sentences[{i}]"
        video = field(item, "video_id", str, path, where)
        captions.setdefault(video, []).append(
            (field(item, "sen_id", int, path, where), field(item, "caption", str, path, where))
        )
    clips = []
    for i, item in enumerate(field(content, "videos", list, path, "top")):
        video = field(item, "video_id", str, path, f"videos[{i}]")
        own = split in ("", "9k", "7k", "1k-A") or item.get("split") == split
        if own and video in captions:
            clips.append(Clip(video, tuple(text for _, text in sorted(captions[video]))))
    return clips


def _hugging_face(item: Any, path: Path, i: int) -> Clip:
    caption = field(item, "caption", (str, list), path, f"[{i}]")
    return Clip(
        field(item, "video_id", str, path, f"[{i}]"),
        (caption,) if isinstance(caption, str) else tuple(caption),
    )


def _mmaction(name: str, captions: Any, path: Path) -> Clip:
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise VsearchError(f"{path}, {name!r}: expected a list of captions, found {captions!r:.60}")
    return Clip(Path(name).stem, tuple(captions))
