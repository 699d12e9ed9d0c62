"""Annotation files of the data sets people bring, read into one form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.training.datasets.base import Clip, Dataset
    from vsearch.models.training.datasets.known import read_dataset

# fmt: off
__all__ = ["Clip", "Dataset", "read_dataset"]
__getattr__ = face(__name__, {
    "base": "Clip Dataset",
    "known": "read_dataset",
})
