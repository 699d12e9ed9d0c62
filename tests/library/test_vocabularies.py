"""Vocabularies learned from examples, as files: whole or not there, and never read otherwise than they were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.damages import WAYS
from tests.library.test_damage import index
from vsearch.errors import LibraryError
from vsearch.library import Library, read_vocabulary, write_vocabulary
from vsearch.library.vocabularies import vocabulary_file

VECTORS = np.eye(3, 16, dtype=np.float32)
ABOUT = {"names": ["a", "b", "c"], "backbone": "bb"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Library.open(tmp_path / "library", create=True) as library:
        index(library)
        write_vocabulary(library.path, "kept", ABOUT, VECTORS)
        return library.path


def test_it_comes_back_as_it_was_written(place: Path) -> None:
    kept = read_vocabulary(place, "kept")
    assert kept is not None
    assert kept[0] == ABOUT
    np.testing.assert_array_equal(kept[1], VECTORS)
    assert read_vocabulary(place, "another") is None
    assert not list(vocabulary_file(place, "kept").parent.glob(".part*"))


@pytest.mark.parametrize("damage", [WAYS[name] for name in WAYS if name != "missing"])
def test_a_damaged_one_is_refused_named_and_set_aside(place: Path, damage: Callable[[Path], object]) -> None:
    damage(vocabulary_file(place, "kept"))
    with pytest.raises(LibraryError, match=r"damaged: learn it again|A folder lies where a file"):
        read_vocabulary(place, "kept")
    with Library.open(place) as library:
        assert [problem.what for problem in library.verify().problems] == ["The vocabulary 'kept' is damaged"]
        assert library.verify(repair=True).mended
        assert library.verify().clean
    assert read_vocabulary(place, "kept") is None
