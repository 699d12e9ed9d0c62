"""The data sets known by name, read into one form.

`read_dataset(name, files, split)` knows the names below; wrong files are refused with file, line and what was
expected. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from vsearch.errors import VsearchError, listed
from vsearch.models.training.datasets import actions, captions, msrvtt, plain
from vsearch.models.training.datasets.base import Clip, Dataset

_READERS: dict[str, Callable[[Path, str], Dataset]] = {
    "msrvtt": msrvtt.read,
    "msvd": captions.msvd,
    "lsmdc": captions.lsmdc,
    "didemo": captions.didemo,
    "activitynet-captions": captions.activitynet,
    "vatex": captions.vatex,
    "coco": captions.coco,
    "kinetics": actions.kinetics,
    "ucf101": actions.ucf101,
    "hmdb51": actions.hmdb51,
    "ssv2": actions.ssv2,
    "list": actions.file_list,
    "plain": plain.read,
}


def read_dataset(
    name: str, path: Path, split: str = "", report: Callable[[str], None] = lambda line: None
) -> Dataset:
    """The clips of one split. `path`: the annotation file, or the folder that holds the set's usual files.

    Splits are the sets' own names: msrvtt 1k-A | 9k | 7k | train | validate | test; the others train | val | test,
    ucf101 and hmdb51 with the number of the official split (train1, test1). '' takes everything there is.
    A clip that is listed twice is one; what has neither caption nor class is left out, and `report` hears of both.
    Raises VsearchError with file and line.
    """
    if name not in _READERS:
        raise VsearchError(f"unknown dataset {name!r}; known: {', '.join(_READERS)}")
    if not path.exists():
        raise VsearchError(f"{path}: no such file or folder; give the annotations of {name}")
    read = _READERS[name](path, split)
    dataset = replace(read, clips=tuple(_usable(read.clips, path, report)))
    if not dataset.clips:
        raise VsearchError(f"{path}: no clips for split {split!r} of {name}")
    return dataset


def _usable(clips: Iterable[Clip], path: Path, report: Callable[[str], None]) -> list[Clip]:
    """Each clip once, with all of its captions that say something. Raises VsearchError for one with two classes."""
    found: dict[str, Clip] = {}
    twice: dict[str, None] = {}
    for clip in clips:
        known = found.setdefault(clip.key, clip)
        if known is clip:
            continue
        if known.label != clip.label:
            raise VsearchError(
                f"{path}: {clip.key} is listed as {known.label!r} and as {clip.label!r}; give it one class"
            )
        twice[clip.key] = None
        captions = dict.fromkeys((*known.captions, *clip.captions))
        found[clip.key] = replace(known, captions=tuple(captions))
    if twice:
        report(f"{path}: {len(twice)} listed more than once are one clip each: {listed(list(twice))}")
    whole = [replace(c, captions=tuple(t for t in c.captions if t.strip())) for c in found.values()]
    empty = [c.key for c in whole if not c.captions and c.label is None]
    partly = [c.key for c in whole if c.captions and len(c.captions) < len(found[c.key].captions)]
    if empty:
        report(f"{path}: {len(empty)} without a caption are left out: {listed(empty)}")
    if partly:
        report(f"{path}: empty captions are left out of {len(partly)}: {listed(partly)}")
    return [c for c in whole if c.captions or c.label is not None]
