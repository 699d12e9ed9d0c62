"""Annotation files of the data sets people bring, read into one form.

`read_dataset(name, files, split)` knows the names below; wrong files are refused with file, line and what was
expected. Nothing is downloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.training.datasets.base import Clip, Dataset

# fmt: off
__all__ = [
    "Clip", "Dataset",
]
__getattr__ = face(__name__, {
    "base": "Clip Dataset",
})
