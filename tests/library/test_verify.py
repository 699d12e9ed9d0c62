"""`verify` finds every kind of damage, and `--repair` leaves a library that the next `index` completes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from vsearch.errors import LibraryError
from vsearch.library import Library, Scan
from vsearch.records import FAILED, FoundFile, MediaInfo, NewMoment

MEDIA = MediaInfo("mp4", "h264", 320, 240, 0, 10_000, 25.0)
WHOLE = (NewMoment(0, 10_000, 0, 20),)
NAMES = ("a", "b", "c")


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: object) -> np.ndarray:
    pooled = [vectors[m.first_frame : m.last_frame].astype(np.float32).mean(axis=0) for m in moments]
    return np.stack([v / np.linalg.norm(v) for v in pooled]).astype(np.float32)


def index(library: Library) -> int:
    """An indexing run over three videos; gives how many were decoded."""
    folder = library.path.parent
    files = tuple(FoundFile(folder / f"{name}.mp4", 1, 1) for name in NAMES)
    with library.writing():
        encoder_id = library.register_encoder("bb+mean", "bb", "mean", {"model": "bb", "head": {}})
        plan = library.plan(Scan((folder,), files), lambda path: path.stem, "bb", 2.0)
        library.apply_plan(plan)
        for job in plan.jobs:
            rng = np.random.default_rng(ord(job.fingerprint))
            stored = library.frame_store.put(
                job.fingerprint, "bb", 2.0, rng.normal(size=(20, 8)), np.arange(20, dtype=np.int64) * 500
            )
            library.record_indexed(
                files=job.files,
                fingerprint=job.fingerprint,
                media=MEDIA,
                covered_ms=10_000,
                frames=stored,
                encoder_id=encoder_id,
                moments=WHOLE,
                poster=b"jpeg",
            )
        for bare in library.frame_sets_without_moments(encoder_id):
            library.add_moments(encoder_id, {bare.id: WHOLE})
        library.publish_update(encoder_id, embed=embed)
    return len(plan.jobs)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / ".vsearch", create=True) as opened:
        index(opened)
        yield opened


def first_frames(library: Library) -> Path:
    frame_set = library.frame_set_of(library.find_video("a.mp4"), "bb")
    assert frame_set is not None
    return library.frame_store.path(frame_set.frames.name)


def index_file(library: Library) -> Path:
    generation = library.live_generation()
    assert generation is not None
    return library.path / "index" / generation.file


def edit(library: Library, *statements: str) -> None:
    with sqlite3.connect(library.path / "catalogue.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x40
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def another_array(path: Path) -> None:
    np.save(path, np.zeros((20, 4)))


def another_index(path: Path) -> None:
    other = faiss.IndexFlatL2(8)
    other.add(np.zeros((3, 8), np.float32))
    faiss.write_index(other, str(path))


def test_a_sound_library_is_clean_and_repair_changes_nothing(library: Library) -> None:
    before = library.videos(), library.generations()
    for repair in (False, True):
        report = library.verify(repair=repair, embed=embed)
        assert (report.problems, report.notes) == ((), ())
    assert (library.videos(), library.generations()) == before


@pytest.mark.parametrize("damage", [flip_a_byte, shorten, another_array, Path.unlink])
def test_damaged_frames_are_dropped_and_decoded_again(
    library: Library, damage: Callable[[Path], None]
) -> None:
    damage(first_frames(library))
    found = library.verify()
    assert "a.mp4" in found.problems[0].what
    assert found.problems[0].done is None
    assert library.verify(repair=True, embed=embed).mended
    assert library.verify().problems == ()
    waiting = library.videos(FAILED)
    assert [video.path.name for video in waiting] == ["a.mp4"]
    assert "vsearch index" in (waiting[0].reason or "")
    assert library.open_live().generation.count == 2  # the others still answer
    assert index(library) == 1
    assert library.videos(FAILED) == []
    report = library.verify()
    assert (report.problems, report.notes) == ((), ())


@pytest.mark.parametrize("damage", [shorten, another_array, Path.unlink])
def test_damaged_frames_are_not_served(library: Library, damage: Callable[[Path], None]) -> None:
    frame_set = library.frame_set_of(library.find_video("a.mp4"), "bb")
    assert frame_set is not None
    damage(first_frames(library))
    with pytest.raises(LibraryError, match="vsearch verify --repair"):
        library.frames(frame_set.id)


@pytest.mark.parametrize("damage", [flip_a_byte, shorten, another_index, Path.unlink])
def test_a_damaged_index_is_never_served_and_is_rebuilt_from_frames(
    library: Library, damage: Callable[[Path], None]
) -> None:
    query = np.eye(8, dtype=np.float32)[:1]
    scores, ids = library.open_live().search(query, 3)
    damage(index_file(library))
    with pytest.raises(LibraryError, match=r"search index is damaged .*: run `vsearch verify --repair`"):
        library.open_live()
    assert not library.verify().clean
    report = library.verify(repair=True, embed=embed)
    assert [problem.done for problem in report.problems] == ["rebuilt from the stored frames"]
    again, same = library.open_live().search(query, 3)
    assert (again.tobytes(), same.tobytes()) == (scores.tobytes(), ids.tobytes())
    report = library.verify()
    assert (report.problems, report.notes) == ((), ())


def test_a_damaged_index_without_its_head_is_left_to_the_next_index(library: Library) -> None:
    index_file(library).unlink()
    assert library.verify(repair=True).mended
    assert library.verify().notes == ("The search index is behind the catalogue: run `vsearch index`",)
    with pytest.raises(LibraryError, match="vsearch index"):
        library.open_live()
    assert index(library) == 0
    assert library.open_live().generation.count == 3


def test_an_update_over_a_damaged_index_embeds_everything_anew(library: Library) -> None:
    flip_a_byte(index_file(library))
    with pytest.raises(LibraryError, match="vsearch verify --repair"):
        library.publish_update(1)
    assert library.publish_update(1, embed=embed).count == 3
    library.open_live()


def test_a_large_index_is_sampled_when_opened_and_read_whole_by_verify(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsearch.library.index.parts._WHOLE", 0)
    ids = np.sort(library.open_live().ids)
    wide = np.ones((3, 1_000_000), np.float32)  # 6 MB: the samples leave gaps
    library.publish(1, ids, wide)
    path = index_file(library)
    data = bytearray(path.read_bytes())
    data[80_000] ^= 1  # between two samples
    path.write_bytes(data)
    library.open_live()
    assert not library.verify().clean
    data[80_000] ^= 1
    data[10] ^= 1  # inside the first
    path.write_bytes(data)
    with pytest.raises(LibraryError, match="has changed"):
        library.open_live()


def test_rows_that_contradict_the_frames_are_made_again(library: Library) -> None:
    edit(library, "UPDATE moments SET last_frame = 900 WHERE frame_set_id = 1")
    assert "do not fit" in library.verify().problems[0].what
    assert library.verify(repair=True, embed=embed).mended
    assert library.verify().problems == ()
    assert index(library) == 0  # no decoding
    assert library.open_live().generation.count == 3


def test_a_video_without_frames_is_queued(library: Library) -> None:
    edit(library, "PRAGMA foreign_keys = ON", "DELETE FROM frame_sets WHERE id = 1")
    assert "1 videos are searchable but have no stored frames" in library.verify().problems[0].what
    assert library.verify(repair=True, embed=embed).mended
    assert index(library) == 1
    assert library.verify().clean


def test_a_catalogue_that_contradicts_itself_is_reported(library: Library) -> None:
    edit(library, "DELETE FROM encoders")
    report = library.verify(repair=True)
    assert "The catalogue is damaged" in report.problems[0].what
    assert not report.mended


def test_what_a_killed_run_leaves_is_a_note_and_is_swept(library: Library) -> None:
    stray = library.frame_store.put("stray", "bb", 2.0, np.ones((3, 8)), np.arange(3))
    left = [
        library.frame_store.path(stray.name),
        library.path / "index" / "stray.faiss",
        library.path / "thumbs" / "ab" / "stray.jpg",
        library.path / "frames" / ".part-1234",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    report = library.verify()
    assert report.clean
    assert len(report.notes) == 4
    assert all(path.exists() for path in left)
    library.verify(repair=True)
    assert not any(path.exists() for path in left)
    assert library.verify().notes == ()


def test_repair_waits_for_no_one(library: Library) -> None:
    with Library.open(library.path) as other, other.writing():
        assert library.verify().clean
        with pytest.raises(LibraryError, match="is indexing this library"):
            library.verify(repair=True)
