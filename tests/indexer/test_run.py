"""An indexing run: what it hashes and when, what it tries again, what it keeps from one run to the next."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import media
from vsearch import process
from vsearch.errors import VsearchError
from vsearch.indexer import IndexOptions, Progress, fingerprint, index_videos
from vsearch.indexer import run as indexing
from vsearch.indexer.decode import child as decode_child
from vsearch.indexer.decode import pool as decode_pool
from vsearch.indexer.shared_progress import RunSummary
from vsearch.library import Library

Index = Callable[..., RunSummary]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos, of 1, 2 and 3 s."""
    made = tmp_path / "media"
    (made / "sub").mkdir(parents=True)
    for i, name in enumerate(["a.mp4", "b.mp4", "sub/c.mp4"], 1):
        media.write_video(made / name, frames=25 * i)
    return made


@pytest.fixture
def said() -> list[Progress]:
    return []


@pytest.fixture
def index(tmp_path: Path, tiny_model: Path, said: list[Progress]) -> Index:
    def run(*paths: Path, **options: Any) -> RunSummary:
        told = {"model": str(tiny_model), "device": "cpu", "workers": 1, **options}
        return index_videos(tmp_path / "library", paths, IndexOptions(**told), said.append)

    return run


def states(tmp_path: Path) -> dict[str, str]:
    with Library.open(tmp_path / "library") as library:
        return {str(video.path.relative_to(tmp_path)): video.state for video in library.videos()}


def roots(library: Library) -> int:
    from vsearch.library.catalogue import RootRow

    with library._catalogue.read() as session:
        return session.query(RootRow).count()


def warnings(said: list[Progress]) -> str:
    return "\n".join(progress.warning or "" for progress in said)


# Hashing


def test_files_are_hashed_when_they_have_been_decoded(
    folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real, take = fingerprint.fingerprint, decode_pool._Record.take

    def hashing(path: Path) -> str:
        events.append(f"hash {path.name}")
        return real(path)

    def taking(record: Any, child: Any) -> bool:
        events.append("decode")
        return take(record, child)

    monkeypatch.setattr(fingerprint, "fingerprint", hashing)
    monkeypatch.setattr(indexing, "fingerprint", hashing)
    monkeypatch.setattr(decode_pool._Record, "take", taking)
    assert index(folder).indexed == 3
    assert events[0] == "decode"
    assert [event for event in events if event != "decode"] == ["hash a.mp4", "hash b.mp4", "hash c.mp4"]
    with Library.open(folder.parent / "library") as library:
        assert all(video.fingerprint == real(video.path) for video in library.videos())
    events.clear()
    assert index(folder).unchanged == 3
    assert events == []


def test_only_what_may_be_a_copy_or_a_move_is_hashed_first_and_that_is_told(
    folder: Path, index: Index, said: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = fingerprint.fingerprint
    monkeypatch.setattr(indexing, "fingerprint", lambda path: (hashed.append(path.name), real(path))[1])
    shutil.copy(folder / "a.mp4", folder / "sub" / "a2.mp4")
    index(folder)
    assert hashed == ["a.mp4", "a2.mp4"]
    comparing = [(p.videos_done, p.videos) for p in said if p.stage.startswith("comparing") and p.videos]
    assert comparing == [(0, 2), (1, 2)]
    with Library.open(folder.parent / "library") as library:
        assert library.summary().frame_count == 2 + 4 + 6  # the copies were decoded once
    hashed.clear()
    os.rename(folder / "b.mp4", folder / "renamed.mp4")
    media.write_video(folder / "new.mp4", frames=60)
    summary = index(folder)
    assert (summary.moved, summary.indexed) == (1, 1)
    assert hashed == ["renamed.mp4"]


def test_a_file_that_changes_while_it_is_read_is_left_for_next_time(
    folder: Path, index: Index, said: list[Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = decode_child.Child.start

    def changing(child: Any, path: str, *rest: Any) -> None:
        start(child, path, *rest)
        if path.endswith("a.mp4"):
            with open(path, "ab") as file:
                file.write(b"more")
        if path.endswith("b.mp4"):
            os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(decode_child.Child, "start", changing)
        summary = index(folder)
    assert summary.failures == []
    assert states(folder.parent) == {"media/sub/c.mp4": "indexed"}
    assert "a.mp4: it changed while it was read; left for next time" in warnings(said)
    assert "b.mp4: it disappeared while it was read" in warnings(said)
    assert index(folder).indexed == 1
    with Library.open(folder.parent / "library") as library:
        assert library.find_video("a.mp4").fingerprint == fingerprint.fingerprint(folder / "a.mp4")


def test_a_file_that_changed_after_it_was_compared_gets_its_own_fingerprint(
    folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    run = decode_pool.DecodePool.run

    def changed_by_now(pool: Any, *rest: Any) -> Any:
        shutil.copyfile(folder / "b.mp4", folder / "a.mp4")
        return run(pool, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(decode_pool.DecodePool, "run", changed_by_now)
        index(folder)
    index(folder)
    with Library.open(folder.parent / "library") as library:
        assert len(library.videos()) == 4
        for video in library.videos():
            assert video.fingerprint == fingerprint.fingerprint(video.path)
            assert video.media
            assert (
                video.media.duration_ms
                == {"a.mp4": 2000, "b.mp4": 2000, "c.mp4": 3000, "copy.mp4": 1000}[video.path.name]
            )


# Decoders that die


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the decoder of a file still dies with it; `beside`: decoders alive at a second try."""
    left: dict[str, int] = {}
    start, init, close = decode_child.Child.start, decode_child.Child.__init__, decode_child.Child.close
    alive: list[Any] = []
    tried: set[str] = set()

    def starting(child: Any, path: str, *rest: Any) -> None:
        name = os.path.basename(path)
        if name in tried:
            left["beside"] = max(left.get("beside", 0), len(alive) - 1)
        if left.get(name, 0) > 0:
            left[name] -= 1
            tried.add(name)
            child.kill()
            child._process.wait()
        start(child, path, *rest)

    monkeypatch.setattr(decode_child.Child, "start", starting)
    monkeypatch.setattr(decode_child.Child, "__init__", lambda c, *a: (init(c, *a), alive.append(c))[0])
    monkeypatch.setattr(decode_child.Child, "close", lambda c: (close(c), alive.remove(c))[0])
    return left


def test_a_decoder_that_was_killed_is_tried_again_alone(
    folder: Path, index: Index, deaths: dict[str, int]
) -> None:
    deaths |= {"a.mp4": 1, "b.mp4": 2}
    summary = index(folder, workers=2)
    assert deaths["beside"] == 0
    assert (summary.indexed, [Path(path).name for path, _ in summary.failures]) == (2, ["b.mp4"])
    assert "SIGKILL" in summary.failures[0][1]
    assert states(folder.parent)["media/a.mp4"] == "indexed"
    assert index(folder).failures == summary.failures  # now it is the file's fault
    assert index(folder, retry_failed=True).indexed == 1


def test_what_was_read_in_part_is_tried_again_when_asked(
    folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = decode_pool._Record.take

    def dying(record: Any, child: Any) -> bool:
        if record._count + len(record._times) >= 2 and record._job.path.name == "c.mp4":
            raise decode_child.ChildDied(-11)
        return take(record, child)

    with monkeypatch.context() as patch:
        patch.setattr(decode_pool._Record, "take", dying)
        assert index(folder).partial == 1
        assert states(folder.parent)["media/sub/c.mp4"] == "partial"
        assert index(folder).unchanged == 3
        again = index(folder, retry_failed=True)  # in vain: what there is stays
        assert (again.indexed, len(again.failures)) == (0, 1)
        assert states(folder.parent)["media/sub/c.mp4"] == "partial"
    assert index(folder, retry_failed=True).indexed == 1
    assert set(states(folder.parent).values()) == {"indexed"}


def test_a_decoder_that_cannot_be_started_again_does_not_end_the_run(
    folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, starts = process.start, 0

    def scarce(*arguments: Any, **named: Any) -> Any:
        nonlocal starts
        starts += 1
        if starts in range(2, 7):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*arguments, **named)

    monkeypatch.setattr(decode_child.process, "start", scarce)
    monkeypatch.setattr(decode_pool, "_RESTART_AFTER_S", (0.0, 0.0))
    options = decode_pool.DecodeOptions
    monkeypatch.setattr(
        indexing, "DecodeOptions", lambda *a, **k: replace(options(*a, **k), videos_per_process=1)
    )
    assert index(folder).indexed == 3
    assert starts > 6


def test_a_fault_of_the_installation_is_no_file_s_fault(
    tmp_path: Path, folder: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "worker_without_a_part.py").write_text(
        "from vsearch.indexer.decode import worker as decode_worker\n"
        "def decode(*a): raise ImportError('cannot import name Disposition')\n"
        "def main():\n    decode_worker.decode = decode\n    decode_worker.main()\n"
    )
    start = process.start
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "modules"))
        patch.setattr(
            decode_child.process,
            "start",
            lambda target, *a, **k: start("worker_without_a_part:main", *a, **k),
        )
        with pytest.raises(VsearchError, match="Disposition"):
            index(folder)
    assert states(tmp_path) == {}
    assert index(folder).indexed == 3


# What a library keeps


def test_the_rate_belongs_to_the_library(tmp_path: Path, folder: Path, index: Index) -> None:
    assert index(folder, fps=1.0).frames == 1 + 2 + 3
    assert index(folder).unchanged == 3
    assert index(folder, dry_run=True).to_do == 0
    assert index(folder, fps=1.0).unchanged == 3
    with Library.open(tmp_path / "library") as library:
        library.forget(library.videos())  # also where no video says it any more
    assert index(folder).frames == 1 + 2 + 3
    for dry_run in (False, True):
        with pytest.raises(
            VsearchError, match=r"samples 1 frames a second; at 2 its 3 videos, 6\.0 s in all"
        ):
            index(folder, fps=2.0, dry_run=dry_run)
    assert index(folder, fps=2.0, resample=True, dry_run=True).to_do == 3
    media.write_video(folder / "new.mp4", frames=100)
    assert index(folder).frames == 4
    with Library.open(tmp_path / "library") as library, library._catalogue.write() as session:
        from vsearch.library.catalogue import MetaRow

        session.query(MetaRow).filter(MetaRow.key == "fps").delete()  # a library of before
    assert index(folder).unchanged == 4
    assert index(folder, fps=2.0, resample=True).indexed == 4
    assert index(folder).unchanged == 4


# Folders and disks


def test_a_renamed_folder_is_known_under_its_new_name(
    tmp_path: Path, folder: Path, index: Index, said: list[Progress]
) -> None:
    index(folder)
    with pytest.raises(VsearchError, match=r"knows 3 videos.*vsearch forget"):
        index((folder.rename(tmp_path / "renamed"), folder)[1])
    summary = index(tmp_path / "renamed")
    assert (summary.moved, summary.copies, summary.indexed) == (3, 0, 0)
    assert set(states(tmp_path)) == {"renamed/a.mp4", "renamed/b.mp4", "renamed/sub/c.mp4"}
    with Library.open(tmp_path / "library") as library:
        assert {video.root for video in library.videos()} == {tmp_path / "renamed"}
        assert roots(library) == 1
    (tmp_path / "renamed").rename(tmp_path / "third")
    (tmp_path / "link").symlink_to(tmp_path / "third")
    assert index(tmp_path / "link" / "sub").moved == 1  # a part of it, through a link
    assert index(tmp_path / "link").moved == 2
    assert set(states(tmp_path)) == {"third/a.mp4", "third/b.mp4", "third/sub/c.mp4"}


def test_nested_roots_are_renamed_together(tmp_path: Path, folder: Path, index: Index) -> None:
    index(folder / "sub")
    index(folder)
    folder.rename(tmp_path / "renamed")
    assert index(tmp_path / "renamed").moved == 3
    assert set(states(tmp_path)) == {"renamed/a.mp4", "renamed/b.mp4", "renamed/sub/c.mp4"}


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_copy_of_some_files_does_not_take_them_from_a_disk_that_is_away(
    tmp_path: Path, folder: Path, index: Index, mount_point: bool
) -> None:
    index(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(folder / "a.mp4", copy)
    folder.rename(tmp_path / "away")
    if mount_point:
        folder.mkdir()
    assert index(copy).copies == 1
    assert states(tmp_path) == dict.fromkeys(
        ["copy/a.mp4", "media/a.mp4", "media/b.mp4", "media/sub/c.mp4"], "indexed"
    )
    if mount_point:
        folder.rmdir()
    (tmp_path / "away").rename(folder)
    assert index(folder).unchanged == 3


def test_a_copy_of_all_files_does_not_take_them_from_a_mount_point(
    tmp_path: Path, folder: Path, index: Index
) -> None:
    index(folder)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    folder.mkdir()
    assert index(tmp_path / "copy").copies == 3
    assert len(states(tmp_path)) == 6


def test_a_root_without_any_of_its_videos_is_not_believed(
    tmp_path: Path, folder: Path, index: Index, said: list[Progress]
) -> None:
    index(folder)
    folder.rename(tmp_path / "away")
    folder.mkdir()
    (folder / ".not_mounted").touch()
    assert index(folder).missing == 0
    media.write_video(folder / "stray.mp4", frames=10)
    assert index(folder).missing == 0
    assert warnings(said).count(f"none of the 3 videos known in {folder} is there") == 2
    assert "missing" not in states(tmp_path).values()


def test_an_empty_folder_within_may_be_a_mount_point(
    tmp_path: Path, folder: Path, index: Index, said: list[Progress]
) -> None:
    index(folder)
    os.unlink(folder / "sub" / "c.mp4")
    os.unlink(folder / "b.mp4")
    assert index(folder).missing == 1
    assert f"none of the 1 videos known in {folder / 'sub'} is there" in warnings(said)
    assert states(tmp_path) == {
        "media/a.mp4": "indexed",
        "media/b.mp4": "missing",
        "media/sub/c.mp4": "indexed",
    }
    (folder / "sub").rmdir()  # no disk leaves like that
    assert index(folder).missing == 1
