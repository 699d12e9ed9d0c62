"""What a power cut may find: the order in which files are written, synced, named, committed and deleted.

A disk keeps what was synced and may lose or keep anything else. So what a commit names must be on the disk before it,
and what a commit gives up may go only after it is there itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event

from tests.media import write_video
from vsearch.errors import LibraryError
from vsearch.library import Library, Scan, WriterLock, write_vocabulary
from vsearch.library.checks import catalogue_faults, mend_catalogue
from vsearch.library.checks.backup import FORMER, NEWEST
from vsearch.library.frames import FrameStore
from vsearch.library.index.publish import publish
from vsearch.records import FoundFile, MediaInfo, NewMoment

WHOLE = (NewMoment(0, 10_000, 0, 20),)


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: list[NewMoment]) -> np.ndarray:
    return np.eye(8, dtype=np.float32)[[0] * len(moments)]


def run(library: Library, *names: str, salt: int = 0) -> None:
    """An indexing run over files of these names."""
    folder = library.path.parent
    files = tuple(FoundFile(folder / f"{name}.mp4", 1, salt) for name in names)
    with library.writing():
        encoder_id = library.register_encoder("bb+mean", "bb", "mean", {"model": "bb", "head": {}})
        plan = library.plan(Scan((folder,), files), lambda path: path.stem, "bb", 2.0)
        library.apply_plan(plan)
        for job in plan.jobs:
            put(library, job.fingerprint, encoder_id, job.files)
        if not library.up_to_date(encoder_id):
            library.publish_update(encoder_id, embed=embed)


def put(library: Library, content: str, encoder_id: int, files: tuple[FoundFile, ...]) -> None:
    vectors = np.random.default_rng(ord(content)).normal(size=(20, 8))
    library.record_indexed(
        files=files,
        fingerprint=content,
        media=MediaInfo("mov,mp4", "h264", 320, 240, 0, 10_000, 25.0),
        covered_ms=10_000,
        frames=library.frame_store.put(content, "bb", 2.0, vectors, np.arange(20) * 500),
        encoder_id=encoder_id,
        moments=WHOLE,
        poster=b"jpeg",
    )


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / ".vsearch", create=True) as opened:
        run(opened, "a", "b")
        yield opened


Event = tuple[str, str]  # what, and the file's or folder's name below the library


@pytest.fixture
def events(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Everything that matters to a power cut, in order, from here on."""
    seen: list[Event] = []

    def below(path: object) -> str:
        return os.path.relpath(os.fspath(path), library.path)

    def noted(name: str, real: object, which: int) -> None:
        def call(*arguments: object, **named: object) -> object:
            seen.append((name, below(arguments[which])))
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    noted("unlink", os.unlink, 0)
    noted("remove", os.remove, 0)
    noted("replace", os.replace, 1)
    fsync = os.fsync

    def synced(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}")
        seen.append(("fsync", below(path.readlink())))
        seen.append(("synced", str(os.fstat(handle).st_ino)))
        fsync(handle)

    if Path("/proc/self/fd").is_dir():
        monkeypatch.setattr(os, "fsync", synced)
    else:
        pytest.skip("which file is synced cannot be seen here")

    @event.listens_for(library._catalogue.engine, "commit")
    def _committed(connection: object) -> None:
        (level,) = connection.exec_driver_sql("PRAGMA synchronous").one()
        seen.append(("commit", {0: "off", 1: "normal", 2: "full", 3: "extra"}[level]))

    return seen


def files_named(library: Library) -> list[str]:
    with sqlite3.connect(library.path / "catalogue.sqlite") as catalogue:
        frames = [f"frames/{f[:2]}/{f}.npy" for (f,) in catalogue.execute("SELECT file FROM frame_sets")]
        indexes = [f"index/{f}" for (f,) in catalogue.execute("SELECT file FROM generations")]
    catalogue.close()
    return frames + indexes


def test_what_a_commit_names_is_synced_and_has_its_name_before_it(
    library: Library, events: list[Event]
) -> None:
    before = set(files_named(library))
    run(library, "a", "b", "c")
    new = set(files_named(library)) - before
    assert len(new) == 2  # frames and index
    commits = [i for i, (what, _) in enumerate(events) if what == "commit"]
    for name in new:
        content = events.index(("synced", str((library.path / name).stat().st_ino)))
        named = events.index(("replace", name))
        folder = events.index(("fsync", os.path.dirname(name)), named)
        assert content < named < folder < max(commits)
        # nothing is committed between the name and its folder: the commit could name what is not there
        assert not [i for i in commits if named < i < folder]


def check_lasting(library: Library, events: list[Event], name: str) -> None:
    """A file's content is synced before it has its name, and the name before anything else relies on it."""
    content = events.index(("synced", str((library.path / name).stat().st_ino)))
    named = events.index(("replace", name))
    assert content < named < events.index(("fsync", os.path.dirname(name) or "."), named)


def test_a_head_is_on_the_disk_with_its_folders_before_an_encoder_names_it(
    library: Library, events: list[Event], tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    place = library.keep_head([tmp_path / "weights"])
    check_lasting(library, events, f"{place}/weights")
    named = events.index(("replace", f"{place}/weights"))
    assert {("fsync", "."), ("fsync", "heads")} <= set(events[:named])  # where the new folders stand


def test_a_vocabulary_is_on_the_disk_when_it_is_kept(library: Library, events: list[Event]) -> None:
    kept = write_vocabulary(library.path, "mine", {}, np.eye(8, dtype=np.float32))
    check_lasting(library, events, str(kept.relative_to(library.path)))


def test_an_index_made_again_in_its_place_is_on_the_disk(library: Library, events: list[Event]) -> None:
    vectors = [(np.array([1, 2]), np.eye(8, dtype=np.float32)[:2])]
    for _ in range(2):
        events.clear()
        publish(library._catalogue, library.path, 1, vectors, None, carry_over=False)
    (live,) = {name for what, name in events if what == "replace"} & set(files_named(library))
    check_lasting(library, events, live)


def test_a_catalogue_comes_back_when_the_log_of_the_damaged_one_is_gone_from_the_disk(
    library: Library, events: list[Event]
) -> None:
    library.close()
    (library.path / "catalogue.sqlite").write_bytes(b"no catalogue" * 1000)
    (library.path / "catalogue.sqlite-wal").write_bytes(b"a log")
    assert mend_catalogue(library.path)
    check_lasting(library, events, "catalogue.sqlite")
    put = events.index(("replace", "catalogue.sqlite"))
    (log,) = [i for i, (what, name) in enumerate(events) if what == "replace" and name.endswith("-wal")]
    assert log < events.index(("fsync", "."), log) < put


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(library: Library, events: list[Event]) -> None:
    from vsearch.models.recipes.checkpoint import write_whole

    write_whole(library.path / "card", b"{}")
    written = events.index(("synced", str((library.path / "card").stat().st_ino)))
    assert written < events.index(("replace", "card"))


def test_what_changes_files_is_committed_to_the_disk_itself(library: Library, events: list[Event]) -> None:
    run(library, "a", "b", "c")
    library.forget([library.find_video("c.mp4")])
    levels = {level for what, level in events if what == "commit"}
    assert levels == {"full"}


def test_a_note_waits_for_no_disk(library: Library, events: list[Event]) -> None:
    library.cache_text(1, "a sentence", np.ones(8, np.float32))
    assert library.remember("key", "value")
    assert events == [("commit", "normal"), ("commit", "normal")]


def test_files_are_deleted_after_the_commit_that_gives_them_up(library: Library, events: list[Event]) -> None:
    gone = set(files_named(library))
    library.forget([library.find_video("b.mp4")])
    run(library, "a", "c")
    library.forget([library.find_video("c.mp4")])
    gone -= set(files_named(library))
    assert len(gone) >= 2
    for name in gone:
        deleted = next(
            i for i, (what, which) in enumerate(events) if what in ("unlink", "remove") and which == name
        )
        assert ("commit", "full") in events[:deleted]
    assert not [path for path in gone if (library.path / path).exists()]


@pytest.mark.parametrize("kind", ["frames", "index", "thumbs"])
def test_garbage_that_is_needed_again_is_not_deleted(library: Library, kind: str) -> None:
    needed = next(p for p in sorted((library.path / kind).rglob("*")) if p.is_file())
    with sqlite3.connect(library.path / "catalogue.sqlite") as catalogue:
        catalogue.execute("INSERT INTO garbage VALUES (?)", [str(needed.relative_to(library.path))])
    catalogue.close()
    with library.writing():
        assert needed.is_file()
    assert library.verify().clean


def test_frames_dropped_and_put_again_in_one_run_stay(library: Library) -> None:
    library.forget([library.find_video("b.mp4")])
    run(library, "a", "b", salt=1)
    with library.writing():
        pass
    assert library.verify().clean


def test_temporary_files_of_a_writer_at_work_are_left_alone_and_those_of_a_dead_one_go(
    library: Library,
) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from vsearch.library.files import new_file
        with new_file(Path({str(library.path / "frames")!r})) as (file, temporary):
            file.write(b"half")
            print(temporary, flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        temporary = Path(writer.stdout.readline().strip())
        with library.writing():
            assert temporary.is_file()
        writer.kill()
        writer.wait()
    with library.writing():
        assert not temporary.exists()


def test_frames_that_another_swept_are_not_recorded(library: Library) -> None:
    vectors = np.ones((20, 8))
    stored = library.frame_store.put("z", "bb", 2.0, vectors, np.arange(20) * 500)
    library.frame_store.path(stored.name).unlink()
    with pytest.raises(LibraryError, match="run `vsearch index` again"):
        library.record_indexed(
            files=(FoundFile(library.path.parent / "z.mp4", 1, 1),), fingerprint="z",
            media=MediaInfo("mov,mp4", "h264", 320, 240, 0, 10_000, 25.0), covered_ms=10_000,
            frames=stored, encoder_id=1, moments=WHOLE,
        )  # fmt: skip
    assert library.verify().clean


def test_an_error_after_the_commit_leaves_the_new_index_where_it_is(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = library._catalogue.write
    from contextlib import contextmanager

    @contextmanager
    def interrupted(*arguments: object, **named: object) -> Iterator[object]:
        with write(*arguments, **named) as session:
            yield session
        raise KeyboardInterrupt

    monkeypatch.setattr(library._catalogue, "write", interrupted)
    from vsearch.library.index import publish as publishing

    with pytest.raises(KeyboardInterrupt):
        publishing.publish(
            library._catalogue, library.path, 1, [(np.array([1, 2]), np.eye(8, dtype=np.float32)[:2])], None,
            carry_over=False,
        )  # fmt: skip
    assert library.open_live().generation.count == 2


# Backups


def videos_in(backup: Path) -> int:
    with sqlite3.connect(backup) as catalogue:
        (count,) = catalogue.execute("SELECT count(*) FROM videos").fetchone()
    catalogue.close()
    return int(count)


def test_each_run_that_changed_something_leaves_a_backup_and_the_newest_two_stay(library: Library) -> None:
    assert videos_in(library.path / NEWEST) == 2
    run(library, "a", "b", "c")
    run(library, "a", "b", "c", "d")
    assert (videos_in(library.path / NEWEST), videos_in(library.path / FORMER)) == (4, 3)
    assert len(list(library.path.glob("catalogue.backup*"))) == 2
    library.forget([library.find_video("d.mp4")])
    assert (videos_in(library.path / NEWEST), videos_in(library.path / FORMER)) == (3, 4)


def test_a_library_in_a_folder_whose_name_is_no_text_is_sound_and_has_a_backup(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9 ?#%41")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("every name is text here")
    with Library.open(folder / "library", create=True) as library:
        run(library, "a", "b")
    assert videos_in(folder / "library" / NEWEST) == 2
    assert catalogue_faults(folder / "library" / "catalogue.sqlite") == []


def test_what_changes_nothing_makes_no_backup(library: Library) -> None:
    before = (library.path / NEWEST).stat()
    run(library, "a", "b")
    library.cache_text(1, "a sentence", np.ones(8, np.float32))
    with library.writing():
        pass
    assert (library.path / NEWEST).stat() == before


def test_a_backup_is_synced_before_it_takes_the_place_of_the_former(
    library: Library, events: list[Event]
) -> None:
    run(library, "a", "b", "c")
    inode = str((library.path / NEWEST).stat().st_ino)
    placed = events.index(("replace", NEWEST))
    assert events.index(("synced", inode)) < events.index(("replace", FORMER)) < placed
    assert ("fsync", ".") in events[placed:]


def test_a_backup_is_as_private_as_the_library_and_a_damaged_catalogue_does_not_replace_it(
    library: Library,
) -> None:
    assert (library.path / NEWEST).stat().st_mode & 0o077 == 0
    with library.writing():
        library.register_encoder("bb+other", "bb", "other", {"model": "bb", "head": {}})
        kept = (library.path / NEWEST).read_bytes()
        with sqlite3.connect(library.path / "catalogue.sqlite") as catalogue:
            catalogue.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (page,) = catalogue.execute("SELECT rootpage FROM sqlite_master WHERE name = 'videos'").fetchone()
            (size,) = catalogue.execute("PRAGMA page_size").fetchone()
        catalogue.close()
        with (library.path / "catalogue.sqlite").open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
    assert (library.path / NEWEST).read_bytes() == kept


# Made and brought up to date by one at a time


def test_two_that_make_the_library_at_once_both_have_it(tmp_path: Path) -> None:
    program = f"""
        from pathlib import Path
        from vsearch.library import Library
        with Library.open(Path({str(tmp_path / "library")!r}), create=True) as library:
            print(len(library.videos()))
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [each.communicate() for each in started] == [("0\n", "")] * 4


def make_older(library: Library) -> None:
    library.close()
    with sqlite3.connect(library.path / "catalogue.sqlite") as catalogue:
        catalogue.execute("ALTER TABLE videos DROP COLUMN start_ms")
        catalogue.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
    catalogue.close()


def test_an_older_library_is_not_touched_while_a_run_of_the_older_version_is_active(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsearch.library.library._PATIENCE_S", 0.1)
    make_older(library)
    lock = WriterLock(library.path / "index.lock")
    lock.acquire()
    before = (library.path / "catalogue.sqlite").read_bytes()
    with pytest.raises(LibraryError, match="must first be brought to this vsearch's form"):
        Library.open(library.path)
    assert (library.path / "catalogue.sqlite").read_bytes() == before
    lock.release()
    with Library.open(library.path) as opened:
        assert len(opened.videos()) == 2


def test_several_that_find_an_older_library_bring_it_up_to_date_once(library: Library) -> None:
    make_older(library)
    program = f"""
        from pathlib import Path
        from vsearch.library import Library
        with Library.open(Path({str(library.path)!r})) as library:
            print(len(library.videos()))
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [each.communicate() for each in started] == [("2\n", "")] * 4
    assert videos_in(library.path / "catalogue.schema2.sqlite") == 2


# One run beside another


def test_an_indexing_run_holds_the_lock_from_before_frames_are_written_until_they_are_recorded(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another writer could sweep frames away that were given up before and are put again just now."""
    from vsearch.indexer import IndexOptions, index_videos

    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", frames=10, fps=10)
    place, seen = tmp_path / "library", []

    def locked(real: Callable[..., object], name: str) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            with pytest.raises(LibraryError, match="is indexing this library"):
                WriterLock(place / "index.lock").acquire()
            seen.append(name)
            return real(*arguments, **named)

        return call

    monkeypatch.setattr(FrameStore, "put", locked(FrameStore.put, "put"))
    monkeypatch.setattr(Library, "record_indexed", locked(Library.record_indexed, "recorded"))
    options = IndexOptions(model=str(tiny_model), device="cpu")
    summary = index_videos(place, [tmp_path / "videos"], options, lambda progress: None)
    assert not summary.failures
    assert seen[:2] == ["put", "recorded"]


def test_frames_are_put_in_one_place_of_the_product_alone() -> None:
    root = Path(__file__).parents[2]
    rooms = ("cli", "indexer", "library", "models", "retriever", "vsearch", "webui")
    files = [path for room in rooms for path in (root / room).rglob("*.py")]
    assert [path.name for path in files if "frame_store.put(" in path.read_text()] == ["run.py"]


def test_a_full_disk_is_a_sentence_and_leaves_the_library_as_it_was(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(LibraryError, match=r"No room is left on the disk.*free some space.*is kept"):
            run(library, "a", "b", "c")
    assert sorted(video.path.stem for video in library.videos()) == ["a", "b"]
    assert not library.leftovers()
    assert library.verify().clean
