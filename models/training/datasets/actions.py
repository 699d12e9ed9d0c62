"""Action sets: Kinetics CSV, UCF101, HMDB51, Something-Something v2, and lists of files or frame folders."""

from __future__ import annotations

import re
from pathlib import Path

from vsearch.errors import VsearchError
from vsearch.models.training.datasets.base import (
    Clip,
    Dataset,
    field,
    one,
    read_json,
    read_lines,
    read_table,
    seconds,
    spaced,
    split_name,
    wrong,
)


def kinetics(path: Path, split: str) -> Dataset:
    """K400/600/700 CSV; a clip's file is {label}/{youtube_id}_{start:06d}_{end:06d}.mp4."""
    file = one(path, f"{split or 'train'}.csv")
    clips = []
    for line, row in read_table(file, "label", "youtube_id", "time_start", "time_end"):
        start, end = (seconds(row[k], file, line) for k in ("time_start", "time_end"))
        label = row["label"].strip('"')
        name = f"{label}/{row['youtube_id']}_{int(start):06d}_{int(end):06d}"
        clips.append(Clip(name, (), label.replace("_", " ")))
    return Dataset("kinetics", split, tuple(clips))


def ucf101(path: Path, split: str) -> Dataset:
    """{train,test}list0N.txt; labels are the folder, CamelCase taken apart."""
    match = re.fullmatch(r"(train|test)([123])", split or "train1")
    if not match:
        raise VsearchError(f"{path}: no split {split!r}; write train1 to test3")
    file = one(path, f"{match[1]}list0{match[2]}.txt")
    clips = []
    for line, text in read_lines(file):
        name = text.rsplit(" ", 1)[0] if re.search(r"\.avi \d+$", text) else text
        if name.count("/") != 1 or not name.endswith(".avi"):
            raise wrong(file, line, "Class/v_Class_g01_c01.avi, with a number when training", text)
        clips.append(Clip(name, (), spaced(name.partition("/")[0])))
    return Dataset("ucf101", split, tuple(clips))


def hmdb51(path: Path, split: str) -> Dataset:
    """A folder of {class}_test_splitN.txt, lines 'file.avi 0|1|2': 1 trains, 2 tests, 0 is left out."""
    match = re.fullmatch(r"(train|test)([123])", split or "train1")
    if not match or not path.is_dir():
        raise VsearchError(f"{path}: expected the folder of HMDB51 split files and a split train1 to test3")
    wanted = {"train": "1", "test": "2"}[match[1]]
    clips = []
    for file in sorted(path.glob(f"*_test_split{match[2]}.txt")):
        label = file.name.rsplit("_test_split", 1)[0]
        for line, text in read_lines(file):
            name, _, use = text.rpartition(" ")
            if use not in ("0", "1", "2") or not name:
                raise wrong(file, line, "'file.avi 0', 1 or 2", text)
            if use == wanted:
                clips.append(Clip(f"{label}/{name}", (), spaced(label)))
    return Dataset("hmdb51", split, tuple(clips))


def ssv2(path: Path, split: str) -> Dataset:
    """train.json or validation.json: id, template with [something], label as a sentence."""
    split_name(split, path, "train", "validation")
    file = one(path, f"{split or 'train'}.json", f"something-something-v2-{split or 'train'}.json")
    content = read_json(file)
    if not isinstance(content, list):
        raise VsearchError(f"{file}: expected a list of objects")
    clips = []
    for i, item in enumerate(content):
        template = re.sub(r"[\[\]]", "", field(item, "template", str, file, f"[{i}]"))
        caption = field(item, "label", str, file, f"[{i}]")
        clips.append(Clip(str(field(item, "id", (str, int), file, f"[{i}]")), (caption,), template))
    return Dataset("ssv2", split, tuple(clips))


def file_list(path: Path, split: str) -> Dataset:
    """Lines 'file label' or 'folder frames label' (TSN, ActionCLIP, X-CLIP, M2-CLIP).

    Numbers become names where a labels.csv with header id,name lies beside the list.
    """
    file = one(path, f"{split or 'train'}.txt", f"{split or 'train'}.list")
    names = {}
    table = file.parent / "labels.csv"
    if table.is_file():
        names = {row["id"]: row["name"] for _, row in read_table(table, "id", "name")}
    clips = []
    for line, text in read_lines(file):
        match = re.fullmatch(r"(.+?)(?:\s+(\d+))?\s+(\S+)", text)
        if not match:
            raise wrong(file, line, "'file label' or 'folder frames label'", text)
        if names and match[3] not in names:
            raise wrong(file, line, f"a label id of {table.name}", match[3])
        clips.append(Clip(match[1], (), spaced(names.get(match[3], match[3]))))
    return Dataset("list", split, tuple(clips))
