"""Other caption sets: MSVD, LSMDC, DiDeMo, ActivityNet Captions, VATEX, COCO (and Karpathy's form)."""

from __future__ import annotations

import pickle  # only for a reader that can make nothing but strings, numbers and lists
from pathlib import Path
from typing import Any, NoReturn

from vsearch.errors import VsearchError
from vsearch.models.training.datasets.base import (
    Clip,
    Dataset,
    field,
    one,
    read_json,
    read_lines,
    split_name,
    wrong,
)

_SPLITS = ("train", "val", "test")
# What reading a damaged pickle may raise (documentation of the pickle module); UnicodeError is a ValueError.
_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError)


def msvd(path: Path, split: str) -> Dataset:
    """A folder with {train,val,test}_list.txt and raw-captions.pkl (id -> lists of tokens)."""
    split_name(split, path, *_SPLITS)
    texts = _load_strings(one(path, "raw-captions.pkl"))
    lists = [path / f"{s}_list.txt" for s in ((split,) if split else _SPLITS)]
    clips = []
    for file in lists:
        for line, video in read_lines(file):
            if video not in texts:
                raise wrong(file, line, "an id that raw-captions.pkl knows", video)
            clips.append(Clip(video, tuple(" ".join(tokens) for tokens in texts[video])))
    return Dataset("msvd", split, tuple(clips))


class _OnlyData(pickle.Unpickler):
    """A pickle may name any function to call; this one may name none."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def _load_strings(path: Path) -> dict[str, list[list[str]]]:
    try:
        with path.open("rb") as file:
            content = _OnlyData(file, encoding="utf-8").load()
    except _DAMAGE as fault:
        raise VsearchError(f"{path}: expected a pickle of plain lists of words ({fault})") from fault
    fits = isinstance(content, dict) and all(
        isinstance(k, str) and isinstance(v, list) and all(isinstance(t, list) for t in v)
        for k, v in content.items()
    )
    if not fits:
        raise VsearchError(f"{path}: expected a mapping from video id to lists of words")
    return content


def lsmdc(path: Path, split: str) -> Dataset:
    """LSMDC16's tab-separated files without header: clip, four times, sentence. The test list is the 1,000 one."""
    split_name(split, path, *_SPLITS)
    names = {
        "train": "LSMDC16_annos_training.csv",
        "val": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }
    file = one(path, names[split or "train"])
    captions: dict[str, list[str]] = {}
    for line, text in read_lines(file):
        parts = text.split("\t")
        if len(parts) != 6:
            raise wrong(file, line, "6 fields separated by tabs", text)
        captions.setdefault(parts[0], []).append(parts[5])
    return Dataset("lsmdc", split, tuple(Clip(video, tuple(texts)) for video, texts in captions.items()))


def didemo(path: Path, split: str) -> Dataset:
    """*_data.json: descriptions of 5-second chunks; a query is a video's descriptions joined."""
    split_name(split, path, *_SPLITS)
    file = one(path, f"{split or 'train'}_data.json")
    captions: dict[str, list[str]] = {}
    for i, item in enumerate(_list(file)):
        video = field(item, "video", str, file, f"[{i}]")
        captions.setdefault(video, []).append(field(item, "description", str, file, f"[{i}]"))
    clips = tuple(Clip(video, (" ".join(texts),)) for video, texts in captions.items())
    return Dataset("didemo", split, clips, "paragraph")


def activitynet(path: Path, split: str) -> Dataset:
    """train.json, val_1.json or val_2.json: id -> duration, timestamps, sentences; a query is the paragraph."""
    split_name(split, path, "train", "val", "val_1", "val_2")
    name = {"": "train", "val": "val_1"}.get(split, split)
    file = one(path, f"{name}.json")
    content = read_json(file)
    if not isinstance(content, dict):
        raise VsearchError(f"{file}: expected an object from video id to its sentences")
    clips = []
    for video, item in content.items():
        sentences = field(item, "sentences", list, file, repr(video))
        if len(sentences) != len(field(item, "timestamps", list, file, repr(video))):
            raise VsearchError(
                f"{file}, {video!r}: {len(sentences)} sentences but another number of timestamps"
            )
        clips.append(Clip(video, (" ".join(str(s).strip() for s in sentences),)))
    return Dataset("activitynet-captions", split, tuple(clips), "paragraph")


def vatex(path: Path, split: str) -> Dataset:
    """A list of videoID '<youtube>_<start>_<end>' with ten English captions."""
    file = one(path, f"vatex_{split}_v1.0.json", "vatex.json")
    clips = []
    for i, item in enumerate(_list(file)):
        video = field(item, "videoID", str, file, f"[{i}]")
        clips.append(Clip(video, tuple(field(item, "enCap", list, file, f"[{i}]"))))
    return Dataset("vatex", split, tuple(clips))


def coco(path: Path, split: str) -> Dataset:
    """COCO's captions, its video flavour ('videos' for 'images'), or Karpathy's file with splits inside."""
    content = read_json(path)
    media = "videos" if isinstance(content, dict) and "videos" in content else "images"
    items = field(content, media, list, path, "top")
    if "annotations" not in content:
        return Dataset("coco", split, tuple(_karpathy(items, path, split)))
    names = {}
    for i, item in enumerate(items):
        names[field(item, "id", (int, str), path, f"{media}[{i}]")] = field(
            item, "file_name", str, path, f"{media}[{i}]"
        )
    captions: dict[Any, list[str]] = {}
    key = f"{media[:-1]}_id"
    for i, item in enumerate(field(content, "annotations", list, path, "top")):
        owner = item.get(key, item.get("image_id")) if isinstance(item, dict) else None
        if owner not in names:
            raise VsearchError(f"{path}, annotations[{i}]: {key} {owner!r} is not among the {media}")
        captions.setdefault(owner, []).append(field(item, "caption", str, path, f"annotations[{i}]"))
    return Dataset("coco", split, tuple(Clip(names[k], tuple(v)) for k, v in captions.items()))


def _karpathy(items: list[Any], path: Path, split: str) -> list[Clip]:
    clips = []
    for i, item in enumerate(items):
        if split in ("", field(item, "split", str, path, f"images[{i}]")):
            texts = [
                field(s, "raw", str, path, f"images[{i}]")
                for s in field(item, "sentences", list, path, f"images[{i}]")
            ]
            clips.append(Clip(field(item, "filename", str, path, f"images[{i}]"), tuple(texts)))
    return clips


def _list(file: Path) -> list[Any]:
    content = read_json(file)
    if not isinstance(content, list):
        raise VsearchError(f"{file}: expected a list of objects, found {type(content).__name__}")
    return content
