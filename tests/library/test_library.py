"""What the library promises: nothing lost, nothing doubled, nothing half-visible, whatever happens."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from vsearch.errors import LibraryError
from vsearch.library import Job, Library, Plan, Scan, find_library
from vsearch.library.catalogue import migrations
from vsearch.library.place import network_filesystem
from vsearch.library.plan import make_plan
from vsearch.records import (
    FAILED,
    INDEXED,
    MISSING,
    PARTIAL,
    FoundFile,
    MediaInfo,
    NewMoment,
    Recorded,
    Video,
)

DIM = 16
MEDIA = MediaInfo("mp4", "h264", 320, 240, 0, 10_000, 25.0)
HALVES = (NewMoment(0, 5_000, 0, 10), NewMoment(5_000, 10_000, 10, 20))


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scan(*folders: Path, skipped: tuple[Path, ...] = ()) -> Scan:
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found = [path for path in found if ".vsearch" not in path.parts]
    stats = [(path, path.stat()) for path in found]
    return Scan(folders, tuple(FoundFile(p, s.st_size, s.st_mtime_ns) for p, s in stats), skipped)


def frames_of(content: str) -> np.ndarray:
    """Frame vectors that depend on the content alone, as an encoder's do."""
    seed = int(hashlib.sha256(content.encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).normal(size=(20, DIM)).astype(np.float16)


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: object) -> np.ndarray:
    pooled = [vectors[m.first_frame : m.last_frame].astype(np.float32).mean(axis=0) for m in moments]
    return np.stack([v / np.linalg.norm(v) for v in pooled]).astype(np.float32)


def encoder(library: Library, head: str = "mean") -> int:
    return library.register_encoder(f"bb+{head}", "bb", head, {"model": "bb", "head": {"recipe": head}})


def index(
    library: Library, *folders: Path, fps: float = 2.0, retry: bool = False, skipped: tuple[Path, ...] = ()
) -> tuple[Plan, list[Job]]:
    """An indexing run in which a file whose content begins with "bad" cannot be decoded."""
    with library.writing():
        encoder_id = encoder(library)
        plan = identified(
            library.plan(scan(*folders, skipped=skipped), fingerprint, "bb", fps, retry_failed=retry)
        )
        library.apply_plan(plan)
        for job in plan.jobs:
            record(library, encoder_id, job, fps)
        library.publish_update(encoder_id, embed=embed)
    return plan, list(plan.jobs)


def identified(plan: Plan) -> Plan:
    """With the fingerprints of new files that only decoding looks into."""
    return replace(
        plan,
        jobs=tuple(replace(job, fingerprint=job.fingerprint or fingerprint(job.path)) for job in plan.jobs),
    )


def record(library: Library, encoder_id: int, job: Job, fps: float = 2.0) -> Recorded | None:
    if job.path.read_bytes().startswith(b"bad"):
        library.record_failed(job.files, job.fingerprint, "no video stream")
        return None
    stored = library.frame_store.put(
        job.fingerprint, "bb", fps, frames_of(job.fingerprint), np.arange(20, dtype=np.int64) * 500
    )
    return library.record_indexed(
        files=job.files,
        fingerprint=job.fingerprint,
        media=MEDIA,
        covered_ms=10_000,
        frames=stored,
        encoder_id=encoder_id,
        moments=HALVES,
        poster=b"jpeg",
    )


def search(library: Library, content: str) -> list[str]:
    """Names of the files whose first half is most like that of `content`, best first."""
    query = embed(frames_of(content), np.empty(0), HALVES[:1])
    _, ids = library.open_live().search(query, 10)
    return [video.path.name for moment in library.moments(ids[0].tolist()) for video in moment.videos]


def stored_vectors(library: Library) -> dict[int, bytes]:
    chunks = library.open_live().vectors()
    return {int(i): v.tobytes() for ids, vectors in chunks for i, v in zip(ids, vectors, strict=True)}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "disk" / "videos"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_text(name)
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    (tmp_path / "disk").mkdir(exist_ok=True)
    with Library.open(tmp_path / "disk" / ".vsearch", create=True) as opened:
        yield opened


# Where it is, and whether it is one


def test_a_library_is_found_by_option_then_environment_then_upward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "x" / "y"
    (tmp_path / "x" / ".vsearch").mkdir(parents=True)
    inner.mkdir()
    monkeypatch.chdir(inner)
    monkeypatch.delenv("VSEARCH_LIBRARY", raising=False)
    assert find_library() == tmp_path / "x" / ".vsearch"
    monkeypatch.setenv("VSEARCH_LIBRARY", str(tmp_path / "named"))
    assert find_library() == tmp_path / "named"
    assert find_library(tmp_path / "option") == tmp_path / "option"
    monkeypatch.delenv("VSEARCH_LIBRARY")
    shutil.rmtree(tmp_path / "x" / ".vsearch")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find_library().name == "library"


def test_network_disks_are_told_from_local_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    share = tmp_path / "my share"
    point = str(share).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {point} nfs4 rw 0 0\n")
    assert network_filesystem(share / "lib", mounts) == "nfs4"
    assert network_filesystem(tmp_path / "my share2", mounts) is None
    assert network_filesystem(share, tmp_path / "absent") is None


def test_on_a_network_disk_the_journal_needs_no_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vsearch.library.catalogue.schema.network_filesystem", lambda _path: "nfs4")
    with Library.open(tmp_path / "lib", create=True) as library:
        encoder(library)
        assert not list(library.path.glob("*-wal"))
    assert "nfs4" in caplog.text


def test_a_missing_library_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"no library at .*: run `vsearch index FOLDER` first"):
        Library.open(tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_text("x")
    for create in (True, False):
        with pytest.raises(LibraryError, match="not a vsearch library and not empty"):
            Library.open(tmp_path, create=create)
    assert os.listdir(tmp_path) == ["holiday.mp4"]
    with pytest.raises(LibraryError, match="is a file"):
        Library.open(tmp_path / "holiday.mp4", create=True)


def test_a_foreign_or_damaged_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    with sqlite3.connect(tmp_path / "foreign" / "catalogue.sqlite") as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    with pytest.raises(LibraryError, match="not one of vsearch"):
        Library.open(tmp_path / "foreign")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "catalogue.sqlite").write_bytes(b"no database at all" * 1000)
    with pytest.raises(LibraryError, match="is damaged"):
        Library.open(tmp_path / "damaged")


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "catalogue.sqlite").touch()
    with pytest.raises(LibraryError, match="no library"):
        Library.open(tmp_path / "lib")
    with Library.open(tmp_path / "lib", create=True) as library:
        assert library.summary().videos == {}


def test_a_library_of_a_newer_vsearch_is_refused(library: Library) -> None:
    library.close()
    with sqlite3.connect(library.path / "catalogue.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(LibraryError, match=r"newer vsearch \(schema 99.*upgrade"):
        Library.open(library.path)


def test_an_older_library_is_migrated_whole_with_a_backup(
    library: Library, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(library, videos)
    library.close()

    def add(connection: object) -> None:
        connection.execute(text("ALTER TABLE roots ADD COLUMN label TEXT"))

    def fail(connection: object) -> None:
        add(connection)
        raise RuntimeError("power cut")

    steps = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", (*steps, fail))
    with pytest.raises(RuntimeError, match="power cut"):
        Library.open(library.path)
    monkeypatch.setattr(migrations, "STEPS", (*steps, add))  # the failed step left nothing behind
    with Library.open(library.path) as upgraded:
        assert len(upgraded.videos()) == 3
    assert (library.path / f"catalogue.schema{len(steps) + 1}.sqlite").is_file()
    with Library.open(library.path) as again:
        assert len(again.videos()) == 3


def test_where_a_clock_starts_is_kept_and_unknown_in_an_older_library(library: Library, videos: Path) -> None:
    index(library, videos)
    library.close()
    with sqlite3.connect(library.path / "catalogue.sqlite") as connection:
        connection.execute("UPDATE videos SET start_ms = 5000")
    with Library.open(library.path) as kept:
        assert {video.media.start_ms for video in kept.videos()} == {5000}
    with sqlite3.connect(library.path / "catalogue.sqlite") as connection:
        connection.execute("ALTER TABLE videos DROP COLUMN start_ms")
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
    with Library.open(library.path) as upgraded:
        assert {video.media.start_ms for video in upgraded.videos()} == {None}


def test_only_the_owner_can_read_a_new_library(library: Library, videos: Path) -> None:
    index(library, videos)
    assert stat.S_IMODE(library.path.stat().st_mode) == 0o700
    for path in library.path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_status_needs_no_numerics(library: Library, videos: Path) -> None:
    index(library, videos)
    program = f"""
        import sys
        from pathlib import Path
        from vsearch.library import Library
        with Library.open(Path({str(library.path)!r})) as library:
            library.summary(); library.videos(); library.live_encoder()
        print([name for name in ("numpy", "faiss", "torch") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# Indexing, moving, losing


def test_an_unchanged_folder_is_neither_decoded_nor_hashed(library: Library, videos: Path) -> None:
    index(library, videos)
    before = library.generations()

    def never(path: Path) -> str:
        raise AssertionError(f"hashed {path}")

    plan = library.plan(scan(videos), never, "bb", 2.0)
    assert len(plan.unchanged) == 3
    assert not plan.jobs
    library.publish_update(encoder(library), embed=embed)
    assert library.generations() == before


def test_a_moved_file_keeps_its_row_and_vectors(library: Library, videos: Path) -> None:
    index(library, videos)
    old = library.find_video("a.mp4")
    (videos / "sub").mkdir()
    os.rename(videos / "a.mp4", videos / "sub" / "z.mp4")
    plan, jobs = index(library, videos)
    assert len(plan.moved) == 1
    assert not jobs
    assert library.find_video("z.mp4").id == old.id
    assert search(library, fingerprint(videos / "sub" / "z.mp4"))[0] == "z.mp4"


def test_a_move_from_another_root_is_a_move(library: Library, videos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    index(library, videos)
    old = library.find_video("a.mp4")
    os.rename(videos / "a.mp4", other / "a.mp4")
    plan, jobs = index(library, other)
    assert not jobs
    assert not plan.duplicates
    assert library.find_video("a.mp4").id == old.id
    assert len(library.videos()) == 3


def test_two_files_that_change_places_are_not_decoded_again(library: Library, videos: Path) -> None:
    (videos / "b.mp4").write_text("bb")
    index(library, videos)
    ids = {video.fingerprint: video.id for video in library.videos()}
    os.rename(videos / "a.mp4", videos / "t")
    os.rename(videos / "b.mp4", videos / "a.mp4")
    os.rename(videos / "t", videos / "b.mp4")
    _, jobs = index(library, videos)
    assert not jobs
    assert {video.fingerprint: video.id for video in library.videos()} == ids
    assert search(library, fingerprint(videos / "a.mp4"))[0] == "a.mp4"


def test_a_deleted_file_is_missing_and_comes_back_without_decoding(library: Library, videos: Path) -> None:
    index(library, videos)
    content = fingerprint(videos / "a.mp4")
    os.rename(videos / "a.mp4", videos.parent / "a.mp4")
    index(library, videos)
    assert [video.path.name for video in library.videos(MISSING)] == ["a.mp4"]
    assert "a.mp4" not in search(library, content)
    os.rename(videos.parent / "a.mp4", videos / "a.mp4")
    _, jobs = index(library, videos)
    assert not jobs
    assert not library.videos(MISSING)
    assert search(library, content)[0] == "a.mp4"


def test_a_disk_that_is_not_mounted_loses_nothing(library: Library, videos: Path) -> None:
    index(library, videos)
    away = videos.parent / "away"
    os.rename(videos, away)
    plan, _ = index(library, videos)
    assert plan.unreachable == (videos,)
    videos.mkdir()  # a mount point
    plan, _ = index(library, videos)
    assert plan.unreachable == (videos,)
    assert not library.videos(MISSING)


def test_what_could_not_be_looked_into_is_not_missing(library: Library, videos: Path) -> None:
    (videos / "locked").mkdir()
    os.rename(videos / "a.mp4", videos / "locked" / "a.mp4")
    index(library, videos)
    os.rename(videos / "locked", videos.parent / "locked")
    index(library, videos, skipped=(videos / "locked",))
    assert not library.videos(MISSING)


def test_copies_share_one_decoding_and_answer_together(library: Library, videos: Path) -> None:
    shutil.copy(videos / "a.mp4", videos / "a2.mp4")
    _, jobs = index(library, videos)
    assert sorted(len(job.files) for job in jobs) == [1, 1, 2]
    shutil.copy(videos / "a.mp4", videos / "a3.mp4")
    plan, jobs = index(library, videos)
    assert len(plan.duplicates) == 1
    assert not jobs
    assert search(library, fingerprint(videos / "a.mp4"))[:3] == ["a.mp4", "a2.mp4", "a3.mp4"]


def test_a_known_failure_waits_for_retry(library: Library, videos: Path) -> None:
    (videos / "broken.mp4").write_text("bad")
    index(library, videos)
    assert [(v.path.name, v.reason, v.attempts) for v in library.videos(FAILED)] == [
        ("broken.mp4", "no video stream", 1)
    ]
    plan, jobs = index(library, videos)
    assert len(plan.known_failed) == 1
    assert not jobs
    _, jobs = index(library, videos, retry=True)
    assert len(jobs) == 1
    assert library.videos(FAILED)[0].attempts == 2
    (videos / "broken.mp4").write_text("good now")
    index(library, videos)
    assert not library.videos(FAILED)


def test_a_single_file_can_be_indexed_and_concerns_no_other(library: Library, videos: Path) -> None:
    index(library, videos)
    (videos / "a.mp4").write_text("changed")
    os.rename(videos / "b.mp4", videos / "b")
    stat_ = (videos / "a.mp4").stat()
    only = Scan((videos / "a.mp4",), (FoundFile(videos / "a.mp4", stat_.st_size, stat_.st_mtime_ns),))
    plan = library.plan(only, fingerprint, "bb", 2.0)
    library.apply_plan(plan)
    assert [job.path.name for job in plan.jobs] == ["a.mp4"]
    assert not library.videos(MISSING)
    with Library.open(videos.parent / "second", create=True) as fresh:
        fresh.apply_plan(fresh.plan(only, fingerprint, "bb", 2.0))
        fresh.record_failed(only.files, "f", "reason")
        assert [(video.root, video.path.name) for video in fresh.videos()] == [(videos, "a.mp4")]


def test_names_that_are_not_text_survive(library: Library, videos: Path) -> None:
    odd = [b"bad\xff\xfe.mp4", b"new\nline.mp4", b"-dash.mp4", "snow☃.mp4".encode(), b"it's <b>.mp4"]
    for i, name in enumerate(odd):
        (videos / os.fsdecode(name)).write_text(f"odd {i}")
    index(library, videos)
    assert {os.fsencode(video.path.name) for video in library.videos(INDEXED)} >= set(odd)
    assert library.find_video(os.fsdecode(odd[0])).state == INDEXED


def test_a_file_that_cannot_be_read_is_reported_and_kept(library: Library, videos: Path) -> None:
    index(library, videos)
    (videos / "a.mp4").write_text("z")

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    plan = library.plan(scan(videos), denied, "bb", 2.0)
    assert [(file.path.name, why) for file, why in plan.unreadable] == [("a.mp4", "Permission denied")]
    assert not plan.missing
    before = library.videos()
    (videos / "new.mp4").write_text("new")
    unread = [FoundFile(videos / name, 3, 3) for name in ("a.mp4", "new.mp4")]
    library.record_failed(unread, None, "Permission denied")
    assert [video for video in library.videos() if video.path.name != "new.mp4"] == before
    assert [video.path.name for video in library.videos(FAILED)] == ["new.mp4"]
    _, jobs = index(library, videos)  # readable again
    assert {job.path.name for job in jobs} == {"a.mp4", "new.mp4"}
    assert not library.videos(FAILED)


CONTENTS = st.sampled_from(["one", "two two", "three", "bad one", "bad and two"])
NAMES = st.sampled_from(["p", "q", "r", "s/t", "s/u"])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, CONTENTS),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(st.just("swap"), NAMES, NAMES),
        st.tuples(st.just("copy"), NAMES, NAMES),
        st.tuples(st.just("delete"), NAMES, NAMES),
        st.tuples(st.just("touch"), NAMES, NAMES),
        st.tuples(st.just("index"), NAMES, NAMES),
        st.tuples(st.just("plan only"), NAMES, NAMES),
    ),
    max_size=25,
)


def change(folder: Path, action: str, one: Path, two: Path) -> None:
    """Do to the files what people do."""
    two.parent.mkdir(exist_ok=True)
    if action == "write":
        one.parent.mkdir(exist_ok=True)
        one.write_text(two.name)
    elif action == "swap" and one.exists() and two.exists() and one != two:
        os.rename(one, folder / "swap")
        os.rename(two, one)
        os.rename(folder / "swap", two)
    elif one.exists() and action == "move":
        os.rename(one, two)
    elif one.exists() and action == "copy" and one != two:
        shutil.copy2(one, two)
    elif one.exists() and action == "delete":
        one.unlink()
    elif one.exists() and action == "touch":
        os.utime(one, ns=(time.time_ns(), time.time_ns()))


@given(ACTIONS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_video_is_lost_or_doubled_whatever_happens_to_the_files(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "videos"
    for kept in (
        folder / "keep",
        folder / "s" / "keep",
    ):  # an empty folder is taken for one that is not mounted
        kept.parent.mkdir()
        kept.write_text(f"always here, in {kept.parent.name}")
    with Library.open(folder.parent / "lib", create=True) as library:
        for action, first, second in [*actions, ("index", "", "")]:
            if action == "index":
                stored = {video.fingerprint for video in library.videos() if video.media is not None}
                _, jobs = index(library, folder)
                assert not stored & {job.fingerprint for job in jobs}  # decoded once
                assert_library_shows(library, folder)
            elif action == "plan only":  # a run killed before its first decoding
                library.apply_plan(library.plan(scan(folder), fingerprint, "bb", 2.0))
            else:
                change(folder, action, folder / first, folder / second)
        assert library.verify().clean


def assert_library_shows(library: Library, folder: Path) -> None:
    files = {path: fingerprint(path) for path in folder.rglob("*") if path.is_file()}
    rows = [video for video in library.videos() if video.state != MISSING]
    assert {video.path: video.fingerprint for video in rows} == files
    assert len(rows) == len(files)
    for video in rows:
        assert video.state == (FAILED if video.path.read_text().startswith("bad") else INDEXED)
    assert not {video.path for video in library.videos(MISSING)} & files.keys()
    good = {content for path, content in files.items() if not path.read_text().startswith("bad")}
    view = library.open_live()
    answers = library.moments(view.ids.tolist())
    assert Counter(moment.fingerprint for moment in answers) == dict.fromkeys(good, len(HALVES))
    shown = {video.path for moment in answers for video in moment.videos}
    assert shown == {path for path, content in files.items() if content in good}


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Video], list[FoundFile], dict[Path, str], set[str]]:
    """Known videos, found files, the true content of each, and the contents whose frames are stored."""
    contents = st.sampled_from("ABCD")
    paths = [Path("/r") / name for name in "abcdef"]
    known = []
    for number, path in enumerate(draw(st.lists(st.sampled_from(paths), unique=True)), 1):
        content, state_ = draw(contents), draw(st.sampled_from([INDEXED, PARTIAL, FAILED, MISSING]))
        media = None if state_ == FAILED else MEDIA
        attempts = draw(st.integers(0, 1))
        known.append(
            Video(number, path, Path("/r"), 1, ord(content), content, state_, None, media, 0, 0, attempts)
        )
    truth = {path: draw(contents) for path in draw(st.lists(st.sampled_from(paths), unique=True))}
    touched = draw(st.booleans())
    found = [FoundFile(path, 1, ord(content) + 100 * touched) for path, content in truth.items()]
    return known, found, truth, draw(st.sets(contents))


@given(situations(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_plan_gives_every_file_and_every_video_one_fate(
    situation: tuple[list[Video], list[FoundFile], dict[Path, str], set[str]], retry: bool
) -> None:
    known, found, truth, stored = situation
    plan = make_plan(
        Scan((Path("/r"),), tuple(found)),
        known,
        stored,
        truth.__getitem__,
        retry_failed=retry,
        gone=lambda video: False,
        empty=lambda folder: False,
    )
    moved = {file.path for _, file in plan.moved}
    fates = Counter(
        [
            *(video.path for video in (*plan.unchanged, *plan.known_failed)),
            *(file.path for _, file in plan.touched),
            *(file.path for file, _ in plan.duplicates),
            *moved,
            *(file.path for job in plan.jobs for file in job.files if file.path not in moved),
        ]
    )
    assert fates == dict.fromkeys(truth, 1)
    for job in plan.jobs:
        assert {truth[file.path] for file in job.files} == {job.fingerprint or truth[job.path]}
    assert len({job.fingerprint or truth[job.path] for job in plan.jobs}) == len(plan.jobs)
    for video, file in (*plan.moved, *plan.touched):
        assert truth[file.path] == video.fingerprint
    kept = {video.id for video, _ in plan.moved}
    already = sum(video.state == MISSING and video.id not in kept for video in known)
    lost = {video.id for video in (*plan.missing, *plan.replaced)}
    assert not kept & lost
    for video in known:
        if video.path not in truth and video.state != MISSING:
            assert video.id in kept | lost or plan.silent == (
                (Path("/r"), len(known) - len(kept | lost) - already),
            )
        if video.id in lost:  # nothing found has its content and no row
            holders = {path for path, content in truth.items() if content == video.fingerprint}
            assert not holders - {other.path for other in known} - moved


# The index


def test_equal_scores_come_in_id_order_also_across_the_cut(library: Library, videos: Path) -> None:
    for i in range(30):
        (videos / f"{i}.mp4").write_text(str(i))
    index(library, videos)
    view = library.open_live()
    ids = np.sort(view.ids)
    same = np.tile(embed(frames_of("x"), np.empty(0), HALVES[:1]), (len(ids), 1))
    library.publish(encoder(library), ids[::-1].copy(), same)
    for k in (1, 7, 40, 1000):
        scores, found = library.open_live().search(same[:2], k)
        assert found.shape == (2, min(k, len(ids)))
        assert (found == ids[:k]).all()
        assert (scores == scores[0, 0]).all()


def test_scores_are_exact_to_half_precision(library: Library, videos: Path) -> None:
    index(library, videos)
    ids = np.sort(library.open_live().ids)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(ids), 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    library.publish(encoder(library), ids, vectors)
    scores, found = library.open_live().search(vectors, len(ids))
    truth = vectors @ vectors.astype(np.float16).astype(np.float32).T
    assert (found == ids[np.argsort(-truth, axis=1)]).all()
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1), atol=1e-6)


def test_an_updated_index_equals_a_rebuilt_one_bit_for_bit(library: Library, videos: Path) -> None:
    index(library, videos)
    (videos / "d.mp4").write_text("d")
    (videos / "b.mp4").unlink()
    index(library, videos)
    updated = stored_vectors(library)
    library.publish_update(encoder(library), embed=embed, carry_over=False)
    assert stored_vectors(library) == updated
    assert len(updated) == 6


def test_moments_of_a_killed_run_are_published_by_the_next(library: Library, videos: Path) -> None:
    encoder_id = encoder(library)
    plan = identified(library.plan(scan(videos), fingerprint, "bb", 2.0))
    library.apply_plan(plan)
    for job in plan.jobs:
        record(library, encoder_id, job)
    assert not library.up_to_date(encoder_id)  # and here it was killed
    with pytest.raises(LibraryError, match="no index yet"):
        library.open_live()
    _, jobs = index(library, videos)
    assert not jobs
    assert library.up_to_date(encoder_id)
    assert library.open_live().generation.count == 6


def test_another_rate_replaces_frames_only_when_it_is_published(library: Library, videos: Path) -> None:
    index(library, videos)
    old = set(library.open_live().ids.tolist())
    encoder_id = encoder(library)
    with library.writing():
        plan = identified(library.plan(scan(videos), fingerprint, "bb", 4.0))
        assert len(plan.jobs) == 3
        library.apply_plan(plan)
        for job in plan.jobs:
            record(library, encoder_id, job, fps=4.0)
        assert len(search(library, fingerprint(videos / "a.mp4"))) == 6  # still answered by the old frames
        library.publish_update(encoder_id, embed=embed)
    new = library.open_live()
    assert new.generation.count == 6
    assert not old & set(new.ids.tolist())
    assert library.summary().frame_count == 60


def test_a_new_head_is_adopted_from_stored_frames_and_taken_back(library: Library, videos: Path) -> None:
    index(library, videos)
    first = library.open_live()
    before = first.search(embed(frames_of("q"), np.empty(0), HALVES[:1]), 6)

    def reversed_head(vectors: np.ndarray, times_ms: np.ndarray, moments: object) -> np.ndarray:
        return embed(vectors[:, ::-1], times_ms, moments)

    new = encoder(library, head="reversed")
    sets = library.frame_sets_without_moments(new)
    assert [each.duration_ms for each in sets] == [10_000] * 3
    whole = {each.id: [NewMoment(0, 10_000, 0, each.frames.count)] for each in sets}
    library.add_moments(new, whole)
    adopted = library.publish_update(new, embed=reversed_head)
    assert library.live_encoder().head == "reversed"
    assert adopted.count == 3
    (videos / "d.mp4").write_text("d")
    plan = identified(library.plan(scan(videos), fingerprint, "bb", 2.0))
    library.apply_plan(plan)
    record(library, new, plan.jobs[0])
    library.publish_update(new, embed=reversed_head)
    assert first.generation in library.generations()  # still there after more indexing with the new head

    library.switch(first.generation.id)
    assert library.live_encoder().head == "mean"
    after = library.open_live().search(embed(frames_of("q"), np.empty(0), HALVES[:1]), 6)
    for one, other in zip(before, after, strict=True):
        assert one.tobytes() == other.tobytes()
    assert len(library.moments(after[1][0].tolist())) == 6


def test_old_generations_and_replaced_frames_leave_the_disk(library: Library, videos: Path) -> None:
    for i in range(5):
        (videos / "a.mp4").write_text(f"version {i} {'x' * i}")
        index(library, videos)
    encoder(library)  # the next writer clears what the last one left
    assert len(list((library.path / "index").iterdir())) == 2
    assert len(library.frame_store.names()) == 3
    assert library.verify().notes == ()


def test_vectors_that_are_not_numbers_are_refused(library: Library, videos: Path) -> None:
    index(library, videos)
    live = library.live_generation()
    bad = np.full((1, DIM), np.nan, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        library.publish(encoder(library), np.array([1], np.int64), bad)
    with pytest.raises(ValueError, match="finite"):
        library.frame_store.put("f", "bb", 2.0, np.full((2, 4), 1e9), np.arange(2))
    assert library.live_generation() == live
    assert library.verify().notes == ()


# Questions and upkeep


def test_a_video_is_found_by_an_unambiguous_end_of_its_path(library: Library, videos: Path) -> None:
    (videos / "x").mkdir()
    (videos / "x" / "a.mp4").write_text("other")
    index(library, videos)
    assert library.find_video("x/a.mp4").path == videos / "x" / "a.mp4"
    assert library.find_video(str(videos / "a.mp4")).path == videos / "a.mp4"
    with pytest.raises(LibraryError, match="2 videos are called"):
        library.find_video("a.mp4")
    with pytest.raises(LibraryError, match="No video in this library"):
        library.find_video("nothing.mp4")


def test_a_forgotten_video_is_gone_at_once_with_all_that_was_its_own(library: Library, videos: Path) -> None:
    shutil.copy(videos / "b.mp4", videos / "b2.mp4")
    index(library, videos)
    gone, copied = library.find_video("a.mp4"), library.find_video("b2.mp4")
    assert library.forget([gone, copied]) == 2
    assert library.poster(gone.fingerprint) is None
    assert library.poster(copied.fingerprint) is not None  # b.mp4 has it still
    assert library.open_live().generation.count == 4
    assert len(library.frame_store.names()) == 2
    assert library.verify().notes == ()
    _, jobs = index(library, videos)
    assert [job.path.name for job in jobs] == ["a.mp4"]


def test_a_library_moves_with_its_disk(library: Library, videos: Path, tmp_path: Path) -> None:
    index(library, videos)
    library.close()
    os.rename(tmp_path / "disk", tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "videos"
    with Library.open(tmp_path / "elsewhere" / ".vsearch") as opened:
        assert [video.path.parent for video in opened.videos()] == [moved] * 3
        plan, jobs = index(opened, moved)
        assert len(plan.unchanged) == 3
        assert not jobs


def test_a_library_inside_its_folder_and_nested_roots_double_nothing(videos: Path) -> None:
    (videos / "sub").mkdir()
    (videos / "sub" / "d.mp4").write_text("d")
    with Library.open(videos / ".vsearch", create=True) as library:
        index(library, videos / "sub")
        index(library, videos)
        index(library, videos / "sub", videos)
        assert [video.path.name for video in library.videos()] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_query_vectors_are_remembered_for_their_encoder(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = encoder(library), encoder(library, head="other")
    vector = np.arange(4, dtype=np.float32)
    library.cache_text(one, "a dog", vector)
    np.testing.assert_array_equal(library.cached_text(one, "a dog"), vector)
    assert library.cached_text(other, "a dog") is None
    monkeypatch.setattr("vsearch.library.catalogue.reading._CACHED_TEXTS", 2)
    library.cache_text(one, "a cat", vector)
    library.cache_text(one, "a fox", vector)
    assert library.cached_text(one, "a dog") is None
    assert library.cached_text(one, "a cat") is not None


def test_a_query_does_not_wait_for_a_writer_to_cache_its_vector(library: Library) -> None:
    encoder_id = encoder(library)
    with sqlite3.connect(library.path / "catalogue.sqlite", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        library.cache_text(encoder_id, "a dog", np.ones(4, np.float32))  # gives up, and says nothing
        assert library.cached_text(encoder_id, "a dog") is None
        writer.execute("ROLLBACK")
    library.cache_text(encoder_id, "a dog", np.ones(4, np.float32))
    assert library.cached_text(encoder_id, "a dog") is not None


def test_partial_videos_keep_their_reason_and_state_through_a_move(library: Library, videos: Path) -> None:
    encoder_id = encoder(library)
    plan = identified(library.plan(scan(videos), fingerprint, "bb", 2.0))
    library.apply_plan(plan)
    job = plan.jobs[0]
    times = np.arange(20, dtype=np.int64) * 500
    library.record_indexed(
        files=job.files,
        fingerprint=job.fingerprint,
        media=MEDIA,
        covered_ms=6_000,
        reason="4.0 of 10.0 s are damaged",
        frames=library.frame_store.put(job.fingerprint, "bb", 2.0, frames_of("x"), times),
        encoder_id=encoder_id,
        moments=HALVES,
    )
    os.rename(job.path, job.path.with_name("away"))
    index(library, videos)
    video = library.find_video("away")
    assert (video.state, video.covered_ms, video.reason) == (PARTIAL, 6_000, "4.0 of 10.0 s are damaged")


# Several at once, and sudden ends


def test_a_second_writer_is_told_who_is_first(library: Library, videos: Path) -> None:
    with library.writing(), Library.open(library.path) as other:
        with pytest.raises(LibraryError, match=rf"pid {os.getpid()} .*is indexing this library; wait"):
            index(other, videos)
        assert other.videos() == []  # reading needs no lock
    with Library.open(library.path) as other:
        index(other, videos)


WRITER = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import test_library as t
    folder = Path({folder!r})
    with t.Library.open(folder.parent / "lib", create=True) as library:
        print("ready", flush=True)
        for round in range(10_000):
            (folder / f"{{round % 4}}.mp4").write_text(f"content {{round}}" + "x" * (round % 7))
            if round % 5 == 4:
                (folder / f"{{round % 3}}.mp4").unlink(missing_ok=True)
            t.index(library, folder)
"""


def start_writer(folder: Path) -> subprocess.Popen[str]:
    program = textwrap.dedent(WRITER.format(tests=str(Path(__file__).parent), folder=str(folder)))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_library(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "keep.mp4").write_text("always here")
    moments = random.Random(7)
    for _ in range(6):
        process = start_writer(folder)
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Library.open(folder.parent / "lib") as library:
            report = library.verify()
            assert report.problems == ()
            if library.live_generation() is not None:
                library.open_live().search(np.ones((1, DIM), np.float32), 3)
    with Library.open(folder.parent / "lib") as library:
        index(library, folder)
        assert_library_shows(library, folder)
        library.verify(repair=True)
        report = library.verify()
        assert (report.problems, report.notes) == ((), ())


@pytest.mark.slow
def test_queries_go_on_while_generations_are_switched(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "keep.mp4").write_text("always here")
    content = fingerprint(folder / "keep.mp4")
    with Library.open(tmp_path / "lib", create=True) as library:
        index(library, folder)
    process = start_writer(folder)
    try:
        seen = set()
        with Library.open(tmp_path / "lib") as library:
            while len(seen) < 20:
                assert search(library, content)[0] == "keep.mp4"
                seen.add(library.open_live().generation.id)
                assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_query_that_loses_the_race_looks_again(library: Library, videos: Path) -> None:
    """Between reading the pointer and opening the file, two generations come and go."""
    index(library, videos)
    from vsearch.library.catalogue import reading

    opened = reading.open_index
    raced = []

    def slow(folder: Path, generation: object, **options: bool) -> object:
        if not raced:
            raced.append(generation)
            for name in ("x", "y"):
                (videos / f"{name}.mp4").write_text(name)
                index(library, videos)
            encoder(library)  # sweeps
            assert not (folder / "index" / generation.file).exists()
        return opened(folder, generation, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "open_index", slow)
        assert library.open_live().generation.count == 10


def test_threads_may_share_an_open_library(library: Library, videos: Path) -> None:
    index(library, videos)
    content = fingerprint(videos / "a.mp4")
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(search(library, content)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["a.mp4"] * 8


# A full disk


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; the kernel refuses the write as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state(library: Library) -> tuple[object, ...]:
    files = sorted(path for name in ("frames", "index") for path in (library.path / name).rglob("*.*"))
    return library.videos(), library.generations(), library.live_generation(), files


def test_no_room_for_frames_leaves_the_library_as_it_was(library: Library, videos: Path) -> None:
    index(library, videos)
    before = state(library)
    with room_for(40_000), pytest.raises(LibraryError, match="No room is left"):
        library.frame_store.put("f", "bb", 2.0, np.ones((3_000, DIM)), np.arange(3_000))
    assert state(library) == before


def test_no_room_for_an_index_leaves_the_old_one_answering(library: Library, videos: Path) -> None:
    index(library, videos)
    before = state(library)
    content = fingerprint(videos / "a.mp4")
    wide = np.ones((6, 40_000), np.float32)
    with room_for(100_000), pytest.raises(LibraryError, match="No room is left"):
        library.publish(encoder(library), np.sort(library.open_live().ids), wide)
    assert state(library) == before
    assert search(library, content)[0] == "a.mp4"


def test_no_room_for_the_catalogue_records_nothing(library: Library, videos: Path) -> None:
    index(library, videos)
    before = library.videos()
    many = [FoundFile(videos / f"{i:060}.mp4", 1, 1) for i in range(600)]
    size = max(path.stat().st_size for path in library.path.glob("catalogue*"))
    with room_for(size + 8_192), pytest.raises(LibraryError, match="full"):
        library.record_failed(many, "f", "reason")
    assert library.videos() == before
    assert library.verify().clean
    library.record_failed(many[:2], "f", "reason")
    assert len(library.videos(FAILED)) == 2


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_no_room_at_the_last_step_leaves_nothing_behind(
    library: Library, videos: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(library, videos)
    before = state(library)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (videos / "new.mp4").write_text("new")
    with monkeypatch.context() as patch:
        patch.setattr(f"vsearch.library.files.os.{step}", full)
        with pytest.raises(LibraryError, match="No room is left"):
            index(library, videos)
    assert state(library) == before
    index(library, videos)
    assert_library_shows(library, videos)
