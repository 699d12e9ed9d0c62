"""A cached query vector that was damaged is never used: its sentence is embedded anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from vsearch.library import Library
from vsearch.library.catalogue import open_reading

DAMAGE = {
    "of odd length": "UPDATE text_vectors SET vector = substr(vector, 1, 31) WHERE text = 'a cat'",
    "emptied": "UPDATE text_vectors SET vector = x''",
    "not finite": "UPDATE text_vectors SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB)",
    "no text either": "UPDATE text_vectors SET vector = x'ff01' || vector",
    "a text": "UPDATE text_vectors SET vector = 'a cat'",
    "that of another sentence": "UPDATE text_vectors SET vector = "
    "(SELECT vector FROM text_vectors WHERE text = 'a dog') WHERE text = 'a cat'",
    "one bit": "UPDATE text_vectors SET vector = CAST(x'01' || substr(vector, 2) AS BLOB)",
    "that of another encoder": "UPDATE text_vectors SET encoder_id = 3 - encoder_id",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_query_vector_counts_as_not_cached(statement: str, tmp_path: Path) -> None:
    with Library.open(tmp_path / "library", create=True) as library:
        for name in ("first", "second"):
            encoder_id = library.register_encoder(name, "bb", name, {"model": "bb", "head": {}})
        for i, text in enumerate(("a cat", "a dog")):
            library.cache_text(encoder_id, text, np.eye(8, dtype=np.float32)[i])
    with open_reading(tmp_path / "library") as reader:
        assert np.array_equal(reader.cached_text(encoder_id, "a cat"), np.eye(8, dtype=np.float32)[0])
    with sqlite3.connect(tmp_path / "library" / "catalogue.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    with open_reading(tmp_path / "library") as reader:
        for id in (1, 2):
            assert reader.cached_text(id, "a cat") is None
        reader.cache_text(encoder_id, "a cat", np.eye(8, dtype=np.float32)[2])
        assert np.array_equal(reader.cached_text(encoder_id, "a cat"), np.eye(8, dtype=np.float32)[2])
