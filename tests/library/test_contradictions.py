"""What the catalogue says, and its files do not: never an answer in silence, named by `verify`, mended by `--repair`."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from vsearch.errors import DamagedFramesError, LibraryError
from vsearch.library import Library, Plan, Scan
from vsearch.library.catalogue import open_reading
from vsearch.library.checks import mend_catalogue
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever.actions import localize_videos
from vsearch.retriever.actions.classify import classify
from vsearch.retriever.searching import search

DIM, FRAMES = 16, 24
NAMES = ("one", "three", "two")  # in the order of their rows
SPEC = {"model": "none", "head": {"frame_space": True, "recipe": "zero-shot"}}
WINDOWS = tuple(NewMoment(s, s + 4_000, s // 500, s // 500 + 8) for s in range(0, 12_000, 4_000))
MEDIA = MediaInfo("mov,mp4", "h264", 320, 240, 0, 12_000, 25.0)


def look(i: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[i]


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: list[NewMoment]) -> np.ndarray:
    unit = np.asarray(vectors, np.float32)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    means = np.stack([unit[m.first_frame : m.last_frame].mean(axis=0) for m in moments])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def scan(folder: Path) -> Scan:
    """Three files of 1, 2 and 3 bytes that are there."""
    (folder / "videos").mkdir(exist_ok=True)
    files = []
    for i, name in enumerate(NAMES):
        path = folder / "videos" / f"{name}.mp4"
        path.write_bytes(b"x" * (i + 1))
        files.append(FoundFile(path, i + 1, 1))
    return Scan((folder / "videos",), tuple(files))


def index(library: Library) -> Plan:
    """Each video has a look of its own; "look N" is a sentence asked before."""
    with library.writing():
        encoder_id = library.register_encoder("bb+head", "bb", "head", SPEC)
        plan = library.plan(scan(library.path.parent), lambda path: path.stem, "bb", 2.0)
        library.apply_plan(plan)
        for job in plan.jobs:
            i = NAMES.index(job.path.stem)
            vectors = look(i) + np.random.default_rng(i).normal(scale=0.05, size=(FRAMES, DIM))
            about = {**asdict(MEDIA), "covered_ms": 12_000, "size": i + 1}
            library.record_indexed(
                files=job.files,
                fingerprint=NAMES[i],
                media=MEDIA,
                covered_ms=12_000,
                frames=library.frame_store.put(NAMES[i], "bb", 2.0, vectors, np.arange(FRAMES) * 500, about),
                encoder_id=encoder_id,
                moments=WINDOWS,
            )
        if not library.up_to_date(encoder_id):
            library.publish_update(encoder_id, embed=embed)
    for i in range(len(NAMES)):
        library.cache_text(encoder_id, f"look {i}", look(i))
        library.cache_text(encoder_id, "\t".join(["action", "a {}", f"look {i}"]), look(i))
    return plan


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vsearch.retriever.actions.videos._templates", lambda encoder: ("a {}",))
    monkeypatch.setattr("vsearch.library.catalogue.reading._warned", set())
    with Library.open(tmp_path / "library", create=True) as library:
        index(library)
        return library.path


def edit(place: Path, *statements: str) -> None:
    with sqlite3.connect(place / "catalogue.sqlite") as catalogue:
        for statement in statements:
            catalogue.execute(statement)
    catalogue.close()


def found(place: Path, *, repair: bool = False) -> list[str]:
    with Library.open(place) as library:
        return [each.what for each in library.verify(repair=repair, embed=embed).problems]


EXCHANGED = [
    "UPDATE videos SET fingerprint = 'x' WHERE id = 1",
    "UPDATE videos SET fingerprint = 'one' WHERE id = 2",
    "UPDATE videos SET fingerprint = 'three' WHERE id = 1",
]


@pytest.mark.parametrize(
    "change",
    [
        EXCHANGED,
        ["UPDATE videos SET duration_ms = 86400000 WHERE id < 3"],
        ["UPDATE frame_sets SET fps = 7.0 WHERE id < 3"],
    ],
    ids=["content", "duration", "rate"],
)
def test_frames_are_not_used_for_a_video_that_they_are_not_of(
    place: Path, change: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    edit(place, *change)
    with Library.open(place) as library:
        videos = library.videos()
        assert [each.path.stem for each in localize_videos(library, videos, ["look 0", "look 1"])] == ["two"]
        assert [each.path.stem for each in classify(library, videos, ["look 0", "look 1"])] == ["two"]
        with pytest.raises(DamagedFramesError, match="vsearch verify --repair"):
            localize_videos(library, [library.find_video("one.mp4")], ["look 0", "look 1"])
    assert "`vsearch verify --repair`" in caplog.text
    assert found(place)


def test_a_moment_of_another_video_is_not_shown_as_its_own(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_reading(place) as library:
        before = search(library, "look 0", number=3)
    edit(place, "UPDATE moments SET frame_set_id = 3 WHERE id = 2")  # of the same times
    with open_reading(place) as library:
        answer = search(library, "look 0", number=3)
    assert "Moments of" in caplog.text
    assert Path(answer.hits[0].path).stem == Path(before.hits[0].path).stem
    assert max(hit.score for hit in answer.hits if Path(hit.path).stem == "two") < 0.5


@pytest.mark.parametrize("re_ranks", [True, False])
def test_moments_that_are_not_those_of_their_frames_are_not_shown(
    place: Path, re_ranks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"model": "none", "head": {"frame_space": re_ranks, "recipe": "trained"}}
    with Library.open(place) as library:
        library.register_encoder("bb+head", "bb", "head", spec)
    edit(
        place, "UPDATE moments SET start_ms = start_ms + 1000, end_ms = end_ms + 1000 WHERE frame_set_id = 1"
    )
    with open_reading(place) as library:
        assert "one" not in {Path(hit.path).stem for hit in search(library, "look 0", number=3).hits}
    assert "one.mp4 do not fit its frames" in caplog.text


@pytest.mark.parametrize("column", ["backbone", "head"])
def test_an_encoder_that_is_not_made_of_what_it_is_called_after_is_refused_and_mended(
    place: Path, column: str
) -> None:
    edit(place, f"UPDATE encoders SET {column} = 'x'")
    with open_reading(place) as library, pytest.raises(LibraryError, match=r"encoder bb\+head is damaged"):
        search(library, "look 0")
    assert found(place) == ["The description of encoder bb+head is damaged"]
    found(place, repair=True)
    with open_reading(place) as library:
        assert search(library, "look 0").hits
    assert found(place) == []


def test_files_that_have_changed_places_are_said(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [("x", "one.mp4"), ("one.mp4", "two.mp4"), ("two.mp4", "x")]
    edit(place, *(f"UPDATE videos SET rel_path = CAST('{new}' AS BLOB) WHERE rel_path = CAST('{old}' AS BLOB)"
                  for new, old in names))  # fmt: skip
    with open_reading(place) as library:
        search(library, "look 0", number=1)
    assert "two.mp4 has changed since it was indexed: run `vsearch index`" in caplog.text
    with Library.open(place) as library:
        index(library)
        assert Path(search(library, "look 0", number=3).hits[0].path).stem == "one"


def test_a_name_that_no_video_can_have_is_said(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(place, "UPDATE videos SET rel_path = CAST('../../etc/passwd' AS BLOB) WHERE id = 1")
    with Library.open(place) as library:
        localize_videos(library, library.videos(), ["look 0", "look 1"])
    assert "impossible name" in caplog.text


def test_a_video_that_the_catalogue_lost_is_said(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(place, "DELETE FROM videos WHERE id = 1")
    with Library.open(place) as library:
        assert len(library.videos("indexed", "partial")) == 2
        assert "frames of which it has no video: run `vsearch index`" in caplog.text
        assert index(library).jobs
        caplog.clear()
        assert len(library.videos("indexed", "partial")) == 3
    assert not caplog.text


STATES = {
    "failed": "UPDATE videos SET state = 'failed' WHERE id = 1",
    "failed with a reason": "UPDATE videos SET state = 'failed', reason = 'x' WHERE id = 1",
    "missing": "UPDATE videos SET state = 'missing' WHERE id = 1",
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_that_cannot_be_true_is_said_and_index_mends_it(
    place: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    edit(place, change)
    with open_reading(place) as library:
        assert "one" not in {Path(hit.path).stem for hit in search(library, "look 0", number=3).hits}
        assert "not shown: run `vsearch verify --repair`" in caplog.text
        assert len(library.videos("indexed", "partial")) == 2
        assert "one.mp4 is there, but the catalogue has it as" in caplog.text
    with Library.open(place) as library:
        assert index(library).jobs == ()
        assert Path(search(library, "look 0", number=3).hits[0].path).stem == "one"


def test_a_video_that_is_gone_or_failed_is_no_contradiction(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(place, "UPDATE videos SET state = 'missing' WHERE id = 1")
    (place.parent / "videos" / "one.mp4").unlink()
    edit(place, "UPDATE videos SET state = 'failed', reason = 'x', container = NULL WHERE id = 2")
    with open_reading(place) as library:
        assert [each.path.stem for each in library.videos("indexed", "partial")] == ["two"]
        assert search(library, "look 2", number=3).hits
    assert not caplog.text


def test_frames_of_another_backbone_are_not_in_the_index(place: Path) -> None:
    edit(place, "UPDATE frame_sets SET backbone = 'other' WHERE id = 1")
    with Library.open(place) as library:
        assert [job.path.stem for job in index(library).jobs] == [
            "one"
        ]  # what it has is not known to be its own
        generation = library.live_generation()
        assert generation is not None
        assert generation.count == len(NAMES) * len(WINDOWS)


# The index and its encoder


@pytest.fixture
def two(place: Path) -> Path:
    """A library that was indexed with one encoder, and with another since."""
    with Library.open(place) as library, library.writing():
        other = library.register_encoder("bb+later", "bb", "later", SPEC)
        library.add_moments(other, {each.id: WINDOWS for each in library.frame_sets_without_moments(other)})
        library.publish_update(other, embed=embed)
        for i in range(len(NAMES)):
            library.cache_text(other, f"look {i}", look(i))
    return place


LABELS = {
    "generations": "UPDATE generations SET encoder_id = 3 - encoder_id",
    "the live one": "UPDATE generations SET encoder_id = 1 WHERE id = (SELECT max(id) FROM generations)",
    "encoders": "UPDATE encoders SET identity = 'bb+none at all' WHERE id = 2",
}


@pytest.mark.parametrize("change", LABELS.values(), ids=LABELS)
def test_an_index_answers_for_no_other_encoder_than_its_own(two: Path, change: str) -> None:
    edit(two, change)
    with open_reading(two) as library:
        for ask in (library.open_live, library.live_encoder, lambda: search(library, "look 0")):
            with pytest.raises(LibraryError, match=r"another encoder\): run `vsearch verify --repair`"):
                ask()
    with Library.open(two) as library, pytest.raises(LibraryError, match="another encoder"):
        library.switch(max(each.id for each in library.generations()))


@pytest.mark.parametrize("way", ["verify", "index"])
@pytest.mark.parametrize("which", ["generations", "the live one"])
def test_an_index_under_another_encoder_is_put_right(two: Path, which: str, way: str) -> None:
    edit(two, LABELS[which])
    with Library.open(two) as library:
        encoder = library.answering_encoder()
        assert encoder is not None
        assert encoder.identity == "bb+later"
        if way == "index":
            assert not library.up_to_date(encoder.id)
            library.publish_update(encoder.id, embed=embed)
    if way == "verify":
        assert any("stands under another encoder" in each for each in found(two))
        found(two, repair=True)
    assert found(two) == []
    with Library.open(two) as library:
        live = library.live_encoder()
        assert live is not None
        assert live.identity == "bb+later"
        assert {library.encoder(each.encoder_id).identity for each in library.generations()} == {
            "bb+head", "bb+later",
        }  # fmt: skip


def test_an_index_of_before_encoders_were_noted_answers_and_is_noted(place: Path) -> None:
    edit(place, "UPDATE generations SET id_check = substr(id_check, 1, 64)")
    with Library.open(place) as library:
        before = library.live_generation()
        assert search(library, "look 0").hits
        assert not library.up_to_date(1)
        after = library.publish_update(1, embed=embed)
        assert library.up_to_date(1)
        assert before is not None
        assert (after.id, after.sha256) == (before.id, before.sha256)


# The sampling rate


def note(place: Path, value: str) -> None:
    edit(place, f"INSERT OR REPLACE INTO meta (key, value) VALUES ('fps', '{value}')")


@pytest.mark.parametrize("value", ["7.0", "often", "", "-2.0", "inf"])
def test_a_sampling_rate_that_no_video_has_is_none(place: Path, value: str) -> None:
    note(place, value)
    with Library.open(place) as library:
        assert library.sampling_rate("bb") == 2.0
    assert found(place) == ["The catalogue has a sampling rate that no video has"]
    found(place, repair=True)
    assert found(place) == []


def test_a_sampling_rate_that_was_asked_for_is_kept_before_the_first_video_has_it(place: Path) -> None:
    with Library.open(place) as library:
        library.note_sampling_rate(7.0, instead_of=2.0)  # and the run is killed here
        assert library.sampling_rate("bb") == 7.0
        library.note_sampling_rate(7.0, instead_of=7.0)  # the next one goes on
        assert library.sampling_rate("bb") == 7.0
    assert found(place) == []


# Files and folders in each other's place


def a_file_for(path: Path) -> None:
    path.rename(path.with_name("kept elsewhere"))
    path.write_text("something")


@pytest.mark.parametrize("name", ["frames", "index", "thumbs", "heads", "vocabularies"])
def test_a_file_in_the_place_of_a_folder_is_set_aside(place: Path, name: str) -> None:
    (place / name).mkdir(exist_ok=True)
    a_file_for(place / name)
    with Library.open(place) as library:
        assert library.up_to_date(1) == (name != "index")
        assert library.summary().up_to_date == (name != "index")
    assert f"A file lies where the folder {name} belongs" in found(place)
    found(place, repair=True)
    assert [path.read_text() for path in place.glob(f"{name}.aside-*")] == ["something"]
    assert not [each for each in found(place) if "searchable" not in each]


def test_what_was_said_of_frames_by_a_wrong_row_does_not_hold_when_the_row_is_right(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsearch.library.frames._checked", {})
    with Library.open(place) as library:
        edit(place, "UPDATE frame_sets SET count = count - 1, bytes = bytes - 1 WHERE id = 1")
        with pytest.raises(DamagedFramesError):
            library.frames(1)
        edit(place, "UPDATE frame_sets SET count = count + 1, bytes = bytes + 1 WHERE id = 1")
        assert len(library.frames(1).times_ms) == FRAMES


def test_a_repair_of_the_catalogue_killed_in_between_can_be_done_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = b"\xff" * 8192

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    (place / "catalogue.sqlite").write_bytes(damaged)
    with monkeypatch.context() as patch:
        patch.setattr("vsearch.library.checks.restore.put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            mend_catalogue(place)
    assert mend_catalogue(place) is not None  # within the same second
    assert [path.read_bytes() for path in place.glob("catalogue.damaged-*.sqlite")] == [damaged]
    assert found(place) == []
