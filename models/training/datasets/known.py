"""The data sets known by name, read into one form.

`read_dataset(name, files, split)` knows the names below; wrong files are refused with file, line and what was
expected. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vsearch.errors import VsearchError
from vsearch.models.training.datasets import actions, captions, msrvtt, plain
from vsearch.models.training.datasets.base import Dataset

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


def read_dataset(name: str, path: Path, split: str = "") -> Dataset:
    """The clips of one split. `path`: the annotation file, or the folder that holds the set's usual files.

    Splits are the sets' own names: msrvtt 1k-A | 9k | 7k | train | validate | test; the others train | val | test,
    ucf101 and hmdb51 with the number of the official split (train1, test1). '' takes everything there is.
    Raises VsearchError with file and line.
    """
    if name not in _READERS:
        raise VsearchError(f"unknown dataset {name!r}; known: {', '.join(_READERS)}")
    if not path.exists():
        raise VsearchError(f"{path}: no such file or folder; give the annotations of {name}")
    dataset = _READERS[name](path, split)
    if not dataset.clips:
        raise VsearchError(f"{path}: no clips for split {split!r} of {name}")
    return dataset
