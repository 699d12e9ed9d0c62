"""A library opened for questions alone answers, and fails, as one opened whole."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from vsearch.errors import LibraryError
from vsearch.library import Library, Scan
from vsearch.library.catalogue import open_reader, open_reading
from vsearch.records import FoundFile, MediaInfo, NewMoment

CONTENTS = ["one", "two", "copied"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A library of four files, two of them with the same content, and three frame sets."""
    media = tmp_path / "media"
    media.mkdir()
    for name in (*CONTENTS, "copy"):
        (media / f"{name}.mp4").write_text("copied" if name == "copy" else name)
    files = [
        FoundFile(path, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(media.iterdir())
    ]
    with Library.open(tmp_path / "library", create=True) as library:
        encoder_id = library.register_encoder("bb+head", "bb", "head", {"model": "none", "head": {}})
        library.apply_plan(library.plan(Scan((media,), tuple(files)), lambda p: p.read_text(), "bb", 2.0))
        batches = []
        for i, content in enumerate(CONTENTS):
            vectors = np.eye(4, dtype=np.float32)[[i] * 8]
            recorded = library.record_indexed(
                files=[file for file in files if file.path.read_text() == content],
                fingerprint=content,
                media=MediaInfo("mp4", "h264", 64, 64, 0, 4_000, 25.0),
                covered_ms=4_000,
                frames=library.frame_store.put(content, "bb", 2.0, vectors, np.arange(8) * 500),
                encoder_id=encoder_id,
                moments=[NewMoment(0, 2_000, 0, 4), NewMoment(2_000, 4_000, 4, 8)],
            )
            batches.append((np.array(recorded.moment_ids, np.int64), vectors[:2]))
        library.publish_update(encoder_id, batches)
        return library.path


def test_it_answers_as_the_whole_library(place: Path) -> None:
    with Library.open(place) as library, open_reading(place) as reader:
        assert not isinstance(reader, Library)
        assert reader.live_generation() == library.live_generation()
        assert reader.live_encoder() == library.live_encoder()
        assert reader.videos() == library.videos()
        assert len(reader.videos("indexed")) == 4
        assert reader.videos("missing") == []
        ids = [5, 1, 99, 6]
        assert reader.moments(ids) == library.moments(ids)
        assert [len(moment.videos) for moment in reader.moments(ids)] == [2, 1, 2]
        video = reader.find_video("one.mp4")
        stored = reader.frame_set_of(video, "bb")
        assert stored == library.frame_set_of(video, "bb")
        assert stored is not None
        np.testing.assert_array_equal(reader.frames(stored.id).vectors, library.frames(stored.id).vectors)
        query = np.eye(4, dtype=np.float32)[[1]]
        for one, other in zip(
            reader.open_live().search(query, 3), library.open_live().search(query, 3), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_what_either_notes_the_other_knows(place: Path) -> None:
    vector = np.array([1, 0, 0, 0], np.float32)
    with Library.open(place) as library, open_reading(place) as reader:
        reader.cache_text(1, "a", vector)
        library.cache_text(1, "b", -vector)
        library.cache_text(1, "a", vector)
        np.testing.assert_array_equal(library.cached_text(1, "a"), vector)
        np.testing.assert_array_equal(reader.cached_text(1, "b"), -vector)
        assert reader.cached_text(2, "a") is None
        assert reader.remember("key", "old")
        assert library.remember("key", "new")
        assert reader.recall("key") == "new"


def test_damaged_and_missing_frames_are_left_out(place: Path) -> None:
    with open_reading(place) as reader:
        assert set(reader.sound_frames([1, 2, 3, 3, 99])) == {1, 2, 3}
        stored = reader.frame_set_of(reader.find_video("one.mp4"), "bb")
        assert stored is not None
        reader.frame_store.path(stored.frames.name).write_bytes(b"short")
        assert set(reader.sound_frames([1, 2, 3])) == {1, 2, 3} - {stored.id}
        with pytest.raises(LibraryError, match="replaced by a newer indexing"):
            reader.frames(99)


def test_a_writer_at_work_does_not_stop_questions_and_notes_do_not_wait(place: Path) -> None:
    with contextlib.closing(sqlite3.connect(place / "catalogue.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE videos SET state = 'missing'")
        with open_reading(place) as reader:
            assert len(reader.videos("indexed")) == 4
            assert not reader.remember("key", "value", 10)
            reader.cache_text(1, "a", np.ones(4, np.float32))
            assert reader.cached_text(1, "a") is None


@pytest.mark.parametrize("number", ["1", "99"])
def test_another_schema_is_left_to_the_whole_library(place: Path, number: str) -> None:
    with contextlib.closing(sqlite3.connect(place / "catalogue.sqlite")) as catalogue, catalogue:
        catalogue.execute("UPDATE meta SET value = ? WHERE key = 'schema'", [number])
    assert open_reader(place) is None


def test_what_cannot_be_opened_is_said_as_by_the_whole_library(place: Path, tmp_path: Path) -> None:
    (place / "catalogue.sqlite").write_bytes(b"no database" * 1000)
    for path, reason in (
        (place, "damaged"),
        (tmp_path / "nowhere", "no library at"),
        (tmp_path / "media", "not a vsearch"),
    ):
        with pytest.raises(LibraryError, match=reason):
            open_reading(path)


def test_damage_found_while_asking_is_a_sentence(place: Path) -> None:
    with contextlib.closing(sqlite3.connect(place / "catalogue.sqlite")) as catalogue:
        catalogue.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = catalogue.execute("SELECT rootpage FROM sqlite_master WHERE name = 'videos'").fetchone()
        (size,) = catalogue.execute("PRAGMA page_size").fetchone()
    with (place / "catalogue.sqlite").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with open_reading(place) as reader, pytest.raises(LibraryError, match="damaged"):
        reader.videos()
