"""What the built-in model is trained on: captions, pictures and which caption belongs to which picture.

Every part of the data folder may be missing; own pictures and videos go into `more/` (`vsearch.models.mini.train.pack`).
Folder layout expected of `--data`: see the model card (README.md beside this folder).
A *group* is one video or one photo: its pictures (up to six frames, or one) and its captions.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VALIDATION_VIDEOS, VALIDATION_PHOTOS, HELD_OUT_PHOTOS = 250, 100, 200


@dataclass(frozen=True)
class Group:
    """`pictures`: rows of the picture list; `captions`: its sentences."""

    name: str
    pictures: tuple[int, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    archive: str  # zip file, relative to the data folder
    member: str


def normal_form(caption: str) -> str:
    """The form in which two captions count as the same sentence."""
    return caption.strip().lower().rstrip(" .")


def msrvtt_captions(data: Path) -> tuple[dict[str, list[str]], set[str]]:
    """(captions of every MSR-VTT video outside the 1k-A test list, normal forms of all test captions)."""
    by_video: dict[str, list[str]] = {}
    if not (data / "msrvtt").is_dir():
        return {}, set()
    for archive, member in (
        ("train_val_annotation.zip", "train_val_videodatainfo.json"),
        ("test_videodatainfo.json.zip", "test_videodatainfo.json"),
    ):
        annotation = json.loads(zipfile.ZipFile(data / "msrvtt" / archive).read(member))
        for sentence in annotation["sentences"]:
            by_video.setdefault(sentence["video_id"], []).append(sentence["caption"])
    with open(data / "msrvtt/MSRVTT_JSFUSION_test.csv", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    banned = {normal_form(row["sentence"]) for row in rows}
    for row in rows:
        banned.update(normal_form(caption) for caption in by_video.pop(row["video_id"]))
    # A sentence that also describes a test video is not training text, wherever it comes from.
    kept = {v: [c for c in captions if normal_form(c) not in banned] for v, captions in by_video.items()}
    return kept, banned


def photo_captions(data: Path) -> dict[str, list[str]]:
    by_photo: dict[str, list[str]] = {}
    if not (data / "images").is_dir():
        return {}
    with open(data / "images/captions.csv", encoding="utf8") as file:
        for row in csv.DictReader(file):
            by_photo.setdefault(row["image"], []).append(row["caption"])
    return by_photo


def more_captions(data: Path) -> dict[str, list[str]]:
    """Captions of what `vsearch.models.mini.train.pack` wrote into `more/`, by NAME/GROUP."""
    captions: dict[str, list[str]] = {}
    for path in sorted((data / "more").glob("*.csv")):
        with open(path, encoding="utf8", newline="") as file:
            for row in csv.DictReader(file):
                captions.setdefault(f"{path.stem}/{row['group']}", []).append(row["caption"])
    return captions


def held_out_photos(data: Path) -> list[str]:
    """Photos that no stage ever sees; the model card's text-to-image figures are measured on them."""
    names = sorted(photo_captions(data))
    return sorted(np.random.default_rng(1).permutation(names)[:HELD_OUT_PHOTOS].tolist())


def list_captions(data: Path) -> list[str]:
    """All distinct training sentences: text-only captions, MSR-VTT, photos; never one of a 1k-A test video."""
    videos, banned = msrvtt_captions(data)
    photos, held_out = photo_captions(data), set(held_out_photos(data))
    banned |= {normal_form(c) for name in held_out for c in photos[name]}
    seen: dict[str, None] = {}
    if (text_only := data / "annotations/captions_text_only.txt.gz").is_file():
        with gzip.open(text_only, "rt", encoding="utf8") as file:
            seen = dict.fromkeys(line for line in file.read().split("\n") if line)
    for captions in (*videos.values(), *more_captions(data).values()):
        seen.update(dict.fromkeys(captions))
    for name, captions in photos.items():
        if name not in held_out:
            seen.update(dict.fromkeys(captions))
    return [caption for caption in seen if normal_form(caption) not in banned]


def list_pictures(data: Path) -> list[Picture]:
    """Frames of the training videos, then photos (held-out ones included: the caller leaves them out), then `more`."""
    patterns = ("msrvtt/frames-train-*.zip", "images/images.zip", "more/*.zip")
    archives = [archive for pattern in patterns for archive in sorted(data.glob(pattern))]
    return [
        Picture(str(archive.relative_to(data)), member)
        for archive in archives
        for member in zipfile.ZipFile(archive).namelist()
        if not member.endswith("/")
    ]


def split_groups(data: Path, pictures: list[Picture]) -> dict[str, list[Group]]:
    """'train', 'val-videos', 'val-photos' and 'held-out' photos, as groups in a fixed order."""
    videos, banned = msrvtt_captions(data)
    more = {
        name: [c for c in own if normal_form(c) not in banned] for name, own in more_captions(data).items()
    }
    photos, held_out = photo_captions(data), set(held_out_photos(data))
    rows: dict[str, list[int]] = {}
    for i, picture in enumerate(pictures):
        rows.setdefault(_group_of(picture), []).append(i)
    known = {**more, **videos, **photos}
    groups = {name: Group(name, tuple(own), tuple(known.get(name, ()))) for name, own in sorted(rows.items())}
    rng = np.random.default_rng(0)
    moving = rng.permutation([n for n, g in groups.items() if n in videos and g.captions]).tolist()
    still = rng.permutation([n for n in groups if n in photos and n not in held_out]).tolist()
    added = rng.permutation([n for n, g in groups.items() if n in more and g.captions]).tolist()
    if not moving:  # without MSR-VTT a tenth of the rest is for validation
        count = min(VALIDATION_VIDEOS, len(added) // 10)
        moving, added = added[:count], added[count:]
    chosen = {
        "val-videos": moving[:VALIDATION_VIDEOS],
        "val-photos": still[:VALIDATION_PHOTOS],
        "train": moving[VALIDATION_VIDEOS:] + still[VALIDATION_PHOTOS:] + added,
        "held-out": sorted(held_out),
    }
    return {part: [groups[name] for name in names] for part, names in chosen.items()}


def _group_of(picture: Picture) -> str:
    folder, _, archive = picture.archive.partition("/")
    if folder == "images":
        return picture.member
    group = picture.member.split("/")[0]
    return f"{Path(archive).stem}/{group}" if folder == "more" else group


class TokenCache:
    """Sentences -> CLIP token ids, each word tokenised once (open_clip's tokenizer cleans text slowly)."""

    def __init__(self, longest: int = 40) -> None:
        import open_clip

        self.tokenizer = open_clip.SimpleTokenizer()
        self.longest = longest
        self.words: dict[str, list[int]] = {}
        self.sentences: dict[str, list[int]] = {}

    def __call__(self, sentence: str) -> list[int]:
        """Ids with start and end marks, cut to `longest`."""
        ids = self.sentences.get(sentence)
        if ids is None:
            if re.search(r"[^A-Za-z ]", sentence):
                body = self.tokenizer.encode(sentence)
            else:
                body = [i for word in sentence.lower().split() for i in self._word(word)]
            ids = [self.tokenizer.sot_token_id, *body[: self.longest - 2], self.tokenizer.eot_token_id]
            self.sentences[sentence] = ids
        return ids

    def _word(self, word: str) -> list[int]:
        if word not in self.words:
            self.words[word] = self.tokenizer.encode(word)
        return self.words[word]

    def batch(self, sentences: list[str]) -> np.ndarray:
        """(B, longest of the batch) int64, padded with 0."""
        rows = [self(s) for s in sentences]
        out = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for row, ids in zip(out, rows, strict=True):
            row[: len(ids)] = ids
        return out
