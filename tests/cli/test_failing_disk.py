"""Every verb on a disk that fails or is full: a sentence each, the right exit code, nothing lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from tests import verbs

_INTERNAL = re.compile(r"\[Errno|Error\b|Exception|sqlalchemy|None\b|\bsqlite3\.")
INJECT = """
import os, sqlite3, sys
def fails(event, args):
    if event == "sqlite3.connect" and {catalogue}:
        raise sqlite3.OperationalError("disk I/O error")
    if event != "open" or not isinstance(args[0], str | bytes):
        return
    path, mode, flags = os.fsdecode(args[0]), args[1] or "", args[2] or 0
    writes = bool(set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if path.startswith({places!r}) and writes == {writes}:
        raise OSError({number}, os.strerror({number}), path)
sys.addaudithook(fails)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verbs.make_library(tmp_path_factory.mktemp("made") / "work").parent


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return Path(shutil.copytree(made, tmp_path / "work"))


def tried(work: Path, before: str = "") -> dict[str, list[verbs.Ran]]:
    """What each verb did; all of them end in a sentence at most."""
    asked = verbs.commands(work, work.parent / "out")
    slow_or_of_no_library = ("doctor", "models", "train", "train-proposals", "import-checkpoint")
    for name in slow_or_of_no_library:
        del asked[name]
    orders = [order for some in asked.values() for order in some]
    done = iter(verbs.run(orders, work / "library", before=before))
    ran = {name: [next(done) for _ in some] for name, some in asked.items()}
    for name, runs in ran.items():
        for each in runs:
            assert each.fault is None, (name, each)
            assert each.code in (0, 1, 2, 3), (name, each)
            if each.code == 2:
                assert len(re.findall("^vsearch: ", each.err, re.MULTILINE)) == 1, (name, each)
            assert not _INTERNAL.search(each.err), (name, each)
    return ran


FAILING = {
    "frames cannot be read": (errno.EIO, ("frames",), False),
    "the index cannot be read": (errno.ESTALE, ("index/",), False),
    "posters and heads cannot be read": (errno.EIO, ("thumbs", "heads", "vocabularies"), False),
    "the catalogue cannot be read": (errno.EIO, ("catalogue.sqlite",), False),
    "nothing can be written": (errno.EIO, ("",), True),
    "there is no room": (errno.ENOSPC, ("",), True),
}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "parts", "writes"), FAILING.values(), ids=FAILING)
def test_every_verb_on_a_failing_disk(number: int, parts: tuple[str, ...], writes: bool, work: Path) -> None:
    places = tuple(f"{work / 'library'}{os.sep}{part}" for part in parts)
    inject = INJECT.format(places=places, writes=writes, number=number, catalogue="catalogue.sqlite" in parts)
    ran = tried(work, inject)
    if "catalogue.sqlite" in parts:
        assert {each.code for each in ran["query"]} == {2}
    if "index/" in parts:
        assert [each.code for each in ran["query"]] == [2, 2, 1]  # one video's moments need no index
    if writes:
        assert [each.code for each in ran["verify --repair"] + ran["index"]] == [2, 2]
    assert (work / "videos" / "one.mp4").exists()
    whole = verbs.run([["verify"]], work / "library")
    assert [each.code for each in whole] == [0], whole  # a disk that failed for a while damages nothing


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_what_verbs_make_outside_the_library_is_there_whole_or_not_at_all(number: int, work: Path) -> None:
    out = work.parent / "out"
    asked = verbs.commands(work, out)
    verbs.run(asked["query"][:1], work / "library")  # whose first hit is cut out
    orders = [
        order for name in ("clip", "train", "train-proposals", "import-checkpoint") for order in asked[name]
    ]
    inject = INJECT.format(places=(str(out),), writes=True, number=number, catalogue=False)
    for order, each in zip(orders, verbs.run(orders, work / "library", before=inject), strict=True):
        assert each.code == 2, (order, each)
        assert each.fault is None, (order, each)
        assert len(re.findall("^vsearch: ", each.err, re.MULTILINE)) == 1, (order, each)
        assert not _INTERNAL.search(each.err), (order, each)
    assert [path for path in out.rglob("*") if path.is_file()] == []
    after = verbs.run(orders, work / "library")
    assert {each.code for each in after} == {0}, after
