"""`vsearch forget`: what it takes, what it leaves alone, and that it asks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.retriever.test_search import add_video
from vsearch.cli import main
from vsearch.library import Library


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for folder in ("one/sub", "two"):
        (tmp_path / folder).mkdir(parents=True)
    with Library.open(tmp_path / "library", create=True) as opened:
        for name in ("one/a.mp4", "one/sub/b.mp4", "one/sub/c.mp4", "two/d.mp4", "two/e.mp4"):
            add_video(opened, tmp_path / name, [0] * 4, content=name)
    return tmp_path / "library"


@pytest.fixture
def forget(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(
            "sys.argv", ["vsearch", "forget", *map(str, arguments), "--library", str(library)]
        )
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), "".join(capsys.readouterr())

    return run


def left(library: Path) -> set[str]:
    with Library.open(library) as opened:
        return {video.path.stem for video in opened.videos()}


def mark_missing(library: Path, *stems: str) -> None:
    import sqlite3

    with sqlite3.connect(library / "catalogue.sqlite") as catalogue:
        for stem in stems:
            catalogue.execute("UPDATE videos SET state = 'missing' WHERE rel_path LIKE ?", (f"%{stem}.mp4",))
            catalogue.execute(
                "UPDATE videos SET state = 'missing' WHERE CAST(rel_path AS TEXT) LIKE ?", (f"%{stem}.mp4",)
            )
    catalogue.close()


def test_it_refuses_where_nobody_can_be_asked(library: Path, forget, tmp_path: Path) -> None:
    code, said = forget(tmp_path / "two" / "d.mp4")
    assert (code, "--yes" in said, len(left(library))) == (2, True, 5)
    code, said = forget(tmp_path / "two" / "d.mp4", "--yes")
    assert (code, "forgot 1 video\n" in said) == (0, True)
    assert left(library) == {"a", "b", "c", "e"}


def test_a_folder_means_all_below_it_also_when_it_is_gone(library: Path, forget, tmp_path: Path) -> None:
    assert forget(tmp_path / "one" / "sub", "--yes")[0] == 0
    assert left(library) == {"a", "d", "e"}
    shutil.rmtree(tmp_path / "two")
    assert forget(tmp_path / "two", "--yes")[0] == 0
    assert left(library) == {"a"}


def test_missing_leaves_alone_what_lies_on_a_disk_that_is_not_there(
    library: Path, forget, tmp_path: Path
) -> None:
    mark_missing(library, "a", "d", "e")
    (tmp_path / "one" / "a.mp4").unlink()
    shutil.rmtree(tmp_path / "two")
    code, said = forget("--missing", "--yes")
    assert (code, "disk" in said) == (0, True)
    assert left(library) == {"b", "c", "d", "e"}
    (tmp_path / "two").mkdir()  # an empty mount point
    assert forget("--missing", "--yes")[0] == 1
    (tmp_path / "two" / "stray").touch()
    assert forget("--missing", "--yes")[0] == 1
    assert forget("--missing", tmp_path / "two", "--yes")[0] == 0
    assert left(library) == {"b", "c"}


def test_missing_leaves_an_emptied_folder_below_a_live_one_alone(
    library: Path, forget, tmp_path: Path
) -> None:
    mark_missing(library, "b", "c")
    for name in ("b", "c"):
        (tmp_path / "one" / "sub" / f"{name}.mp4").unlink()
    assert forget("--missing", "--yes")[0] == 1
    assert left(library) == {"a", "b", "c", "d", "e"}
