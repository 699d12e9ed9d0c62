"""What the disk gives back wrong costs the video it belongs to, is said once, and is never served."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.library import Library, Scan
from vsearch.library.catalogue import Reading, open_reading
from vsearch.library.frames import FrameStore
from vsearch.library.index.view import id_check
from vsearch.records import EncoderInfo, FoundFile, MediaInfo, NewMoment, StoredFrames, Video
from vsearch.retriever.actions import dense_timeline_of, localize_videos
from vsearch.retriever.actions.classify import classify
from vsearch.retriever.answer import Scored
from vsearch.retriever.encoders import matching_encoder
from vsearch.retriever.rank import split_into_events
from vsearch.retriever.searching import search, search_similar

DIM, FRAMES = 16, 24
NAMES = ("one", "two", "three")
SPEC = {"model": "none", "head": {"frame_space": True, "recipe": "trained"}}
WINDOWS = tuple(NewMoment(s, s + 4_000, s // 500, s // 500 + 8) for s in range(0, 12_000, 4_000))


def look(i: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[i]


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: list[NewMoment]) -> np.ndarray:
    means = np.stack([vectors[m.first_frame : m.last_frame].astype(np.float32).mean(axis=0) for m in moments])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def index(library: Library) -> None:
    """Three videos of 12 s, each with a look of its own; "the look of N" is a sentence asked before."""
    folder = library.path.parent
    files = tuple(FoundFile(folder / f"{name}.mp4", 1, 1) for name in NAMES)
    with library.writing():
        encoder_id = library.register_encoder("bb+head", "bb", "head", SPEC)
        plan = library.plan(Scan((folder,), files), lambda path: path.stem, "bb", 2.0)
        library.apply_plan(plan)
        for job in plan.jobs:
            rng = np.random.default_rng(NAMES.index(job.fingerprint))
            vectors = look(NAMES.index(job.fingerprint)) + rng.normal(scale=0.05, size=(FRAMES, DIM))
            library.record_indexed(
                files=job.files,
                fingerprint=job.fingerprint,
                media=MediaInfo("mov,mp4", "h264", 320, 240, 0, 12_000, 25.0),
                covered_ms=12_000,
                frames=library.frame_store.put(job.fingerprint, "bb", 2.0, vectors, np.arange(FRAMES) * 500),
                encoder_id=encoder_id,
                moments=WINDOWS,
            )
        if not library.up_to_date(encoder_id):
            library.publish_update(encoder_id, embed=embed)
    for i in range(len(NAMES)):
        library.cache_text(encoder_id, f"look {i}", look(i))
        library.cache_text(encoder_id, "\t".join(["action", "a {}", f"look {i}"]), look(i))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Library.open(tmp_path / "library", create=True) as library:
        index(library)
        return library.path


def frames_of(library: Reading, name: str) -> Path:
    stored = library.frame_set_of(video(library, name), "bb")
    assert stored is not None
    return library.frame_store.path(stored.frames.name)


def video(library: Reading, name: str) -> Video:
    return library.find_video(f"{name}.mp4")


def records(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r+")


def not_finite(path: Path) -> None:
    records(path)["vector"][:, 0] = np.nan


def flipped_signs(path: Path) -> None:
    kept = records(path)
    kept["vector"][::2] *= -1


def zeroed_block(path: Path) -> None:
    records(path)["vector"][4:20] = 0


def times_back(path: Path) -> None:
    records(path)["time_ms"][5] = 99


def anothers_bytes(path: Path) -> None:
    other = next(each for each in path.parent.parent.glob("??/*.npy") if each != path)
    path.write_bytes(other.read_bytes())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [
    not_finite,
    flipped_signs,
    zeroed_block,
    times_back,
    anothers_bytes,
    truncated,
    Path.unlink,
    a_folder,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_frame_file_costs_its_video_the_re_ranking(
    place: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with open_reading(place) as library:
        damage(frames_of(library, "one"))
        for _ in range(2):
            for i, name in enumerate(NAMES):
                answer = search(library, f"look {i}", number=3)
                assert Path(answer.hits[0].path).stem == name
                assert answer.hits[0].score > 0.9
                assert all(np.isfinite(hit.score) and hit.start_ms < hit.end_ms for hit in answer.hits)
        assert len(search_similar(library, video(library, "two"), 1_000).hits) >= 2
        with pytest.raises(DamagedFramesError, match="vsearch verify --repair"):
            dense_timeline_of(library, video(library, "one"))
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 1
    assert "one.mp4" in said[0]
    assert "`vsearch verify --repair`" in said[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_frame_file_costs_actions_its_video_alone(
    place: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsearch.retriever.actions.videos._templates", lambda encoder: ("a {}",))
    with Library.open(place) as library:
        damage(frames_of(library, "one"))
        names = ["look 0", "look 1"]
        found = localize_videos(library, library.videos(), names)
        assert sorted(each.path.stem for each in found) == ["three", "two"]
        guesses = classify(library, library.videos(), names)
        assert {each.path.stem: best[0].label for each, best in guesses.items()}["two"] == "look 1"
        with pytest.raises(DamagedFramesError, match=r"one\.mp4"):
            localize_videos(library, [video(library, "one")], names)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_frame_file_does_not_stop_a_rebuild_of_the_index(
    place: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with Library.open(place) as library:
        damage(frames_of(library, "one"))
        assert library.publish_update(1, embed=embed, carry_over=False).count == 2 * len(WINDOWS)
        assert "one.mp4" in caplog.text
        assert not library.up_to_date(1)  # it waits for the repair


@pytest.mark.parametrize(
    "change",
    [
        "start_ms = start_ms + 1000, end_ms = end_ms + 1000",
        "start_ms = -5000",
        "end_ms = 97200000",
        "start_ms = end_ms + 1",
        "last_frame = 900",
        "first_frame = last_frame",
        "start_ms = 'soon'",
        "first_frame = first_frame + 1",
    ],
)
def test_a_moment_that_does_not_fit_its_frames_is_not_shown(
    place: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(place / "catalogue.sqlite") as catalogue:
        catalogue.execute(f"UPDATE moments SET {change} WHERE frame_set_id = 1 AND id = 2")
    catalogue.close()
    with open_reading(place) as library:
        name = library.moments([1])[0].videos[0].path.name
        answer = search(library, f"look {NAMES.index(Path(name).stem)}", number=3)
        assert Path(answer.hits[0].path).name == name
        shown = [(answer.hits[0].start_ms, answer.hits[0].end_ms)]
        shown += [(m.start_ms, m.end_ms) for m in answer.hits[0].more]
        assert all(end <= 4_000 or start >= 8_000 for start, end in shown)
    assert caplog.text.count(name) == 1


def test_values_that_are_not_finite_leave_a_moment_whole() -> None:
    whole = Scored(1, 0, 4_000, 0.5)
    fit = np.full(8, np.nan, np.float32)
    assert split_into_events(whole, np.arange(8) * 500, fit, 0.0) == [whole]


def test_an_event_is_shown_for_two_seconds_at_least() -> None:
    fit = np.zeros(40, np.float32)
    fit[20] = 1
    (event,) = split_into_events(Scored(1, 0, 10_000, 0.5), np.arange(40) * 250, fit, 0.1)[:1]
    assert event.end_ms - event.start_ms >= 2_000


# The index on the disk


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x40
    path.write_bytes(data)


def live_file(library: Library) -> Path:
    generation = library.live_generation()
    assert generation is not None
    return library.path / "index" / generation.file


@pytest.mark.parametrize("damage", [Path.unlink, shorten, flip_a_byte, a_folder])
def test_an_indexing_run_sees_that_the_live_index_is_damaged_and_rebuilds_it(
    place: Path, damage: Callable[[Path], None]
) -> None:
    with Library.open(place) as library:
        before = search(library, "look 1", number=3)
        assert library.up_to_date(1)
        assert library.summary().up_to_date
        damage(live_file(library))
        assert not library.up_to_date(1)
        assert not library.summary().up_to_date
        index(library)
        assert library.up_to_date(1)
        assert search(library, "look 1", number=3) == before


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)))
def test_freshness_tells_any_two_sets_of_moments_apart(one: set[int], other: set[int]) -> None:
    assert (id_check(one) == id_check(other)) == (one == other)


def test_freshness_tells_apart_what_has_the_same_count_largest_and_sum() -> None:
    assert id_check([1, 4, 5]) != id_check([2, 3, 5])


@pytest.mark.parametrize("present", [(1, 4, 5), (2, 3, 5), (5,), ()])
def test_the_catalogue_computes_freshness_as_the_index_does(place: Path, present: tuple[int, ...]) -> None:
    with sqlite3.connect(place / "catalogue.sqlite") as catalogue:
        catalogue.execute(f"DELETE FROM moments WHERE id NOT IN ({', '.join(map(str, present)) or '0'})")
    catalogue.close()
    with Library.open(place) as library:
        assert not library.up_to_date(1)
        generation = library.publish_update(1, embed=embed)
        assert generation.count == len(present)
        assert generation.id_check.startswith(id_check(present))
        assert library.up_to_date(1)


# What the system says of the disk


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN])
def test_a_disk_that_fails_or_is_gone_is_a_sentence(
    place: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **named: object) -> object:
        raise OSError(number, os.strerror(number))

    with Library.open(place) as library, monkeypatch.context() as patch:
        patch.setattr("vsearch.library.index.parts.file_sha256", failing)
        with pytest.raises(LibraryError, match="fails or is no longer there"):
            search(library, "look 1")
    with Library.open(place) as library, monkeypatch.context() as patch:
        patch.setattr("vsearch.library.lock.os.open", failing)
        with pytest.raises(LibraryError, match="fails or is no longer there"):
            library.forget(library.videos())


def test_a_folder_in_the_place_of_the_lock_is_a_sentence(place: Path) -> None:
    (place / "index.lock").unlink()
    (place / "index.lock").mkdir()
    with Library.open(place) as library, pytest.raises(LibraryError, match=r"folder lies .*index\.lock"):
        library.forget(library.videos())


def test_a_folder_in_the_place_of_garbage_stops_no_run(place: Path) -> None:
    with Library.open(place) as library:
        gone = frames_of(library, "one")
        a_folder(gone)
        assert library.forget([video(library, "one")]) == 1
        assert gone.is_dir()
        with pytest.raises(LibraryError, match=rf"folder lies .*{gone.name}.*move it away"):
            index(library)
        gone.rmdir()
        index(library)


@pytest.mark.parametrize("number", ["many", "", "1e3"])
def test_a_schema_that_is_no_number_is_a_sentence(place: Path, number: str) -> None:
    with sqlite3.connect(place / "catalogue.sqlite") as catalogue:
        catalogue.execute("UPDATE meta SET value = ? WHERE key = 'schema'", [number])
    catalogue.close()
    with pytest.raises(LibraryError, match="catalogue is damaged"):
        Library.open(place)


def test_text_that_cannot_be_decoded_is_a_sentence(place: Path) -> None:
    with sqlite3.connect(place / "catalogue.sqlite") as catalogue:
        catalogue.execute("UPDATE frame_sets SET file = CAST(x'ff41' AS TEXT)")
    catalogue.close()
    with open_reading(place) as library, pytest.raises(LibraryError, match="is damaged"):
        search(library, "look 1")
    with Library.open(place) as library, pytest.raises(LibraryError, match="is damaged"):
        search(library, "look 1")


def test_a_deleted_head_is_a_sentence(tmp_path: Path) -> None:
    spec = {"model": "none", "head": {"checkpoint": str(tmp_path / "heads" / "gone")}}
    with pytest.raises(LibraryError, match="trained head of is missing"):
        matching_encoder(EncoderInfo(1, "x", "bb", "of", spec))


def test_frames_are_read_in_threads_without_the_parser_that_threads_can_upset(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upset(*arguments: object) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr("vsearch.library.frames._checked", {})
    with Library.open(place) as library:
        with monkeypatch.context() as patch:
            patch.setattr("ast.literal_eval", upset)
            stored = library.frame_set_of(video(library, NAMES[0]), "bb")
            assert stored is not None
            assert len(library.frames(stored.id).times_ms) == FRAMES
            assert library.frame_store.sound(stored.frames)
            assert library.frame_store.description(stored.frames.name)["count"] == FRAMES
        assert len(np.load(library.frame_store.path(stored.frames.name))) == FRAMES  # NumPy alone can


def test_a_file_of_frames_is_checked_once_however_many_ask(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    both = threading.Barrier(2)

    def sound(self: FrameStore, stored: StoredFrames) -> bool:
        checked.append(stored.name)
        time.sleep(0.2)  # the other one comes
        return really(self, stored)

    def ask() -> None:
        both.wait()
        library.frames(stored.id)

    really = FrameStore.sound
    monkeypatch.setattr("vsearch.library.frames._checked", {})
    monkeypatch.setattr(FrameStore, "sound", sound)
    with Library.open(place) as library:
        stored = library.frame_set_of(video(library, NAMES[0]), "bb")
        assert stored is not None
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert checked == [stored.frames.name]
