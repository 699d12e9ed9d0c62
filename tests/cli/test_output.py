"""Where the output goes is nobody's fault but the sentence says so: full disks, closed streams, readers that left, few letters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import verbs
from tests.conftest import Vsearch
from vsearch.cli import VERBS

needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
NEW = "a sentence never asked"
SILENT = {
    "train",
    "train-proposals",
    "verify",
    "verify --repair",
    "forget-model",
}  # of which nothing need be printed
WAYS = {
    "a full disk": ("> /dev/full", 2, "no room is left on its disk"),
    "closed": (">&-", 2, "standard output is closed"),
    "no stderr": ("2>&-", 0, None),
    "stderr on a full disk": ("2> /dev/full", 0, None),
    "no stdin": ("<&-", 0, None),
    "a reader that left": ("| true", 0, None),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output") / "place ☃"
    verbs.make_library(folder)
    asked = verbs.run(
        [["query", NEW, "--no-helper"], ["localize", "--actions", "archery, rowing"]], folder / "library"
    )
    assert all(ran.code in (0, 1) for ran in asked), asked
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """With a library of the test's own."""
    shutil.copytree(made, tmp_path / "place ☃")
    return tmp_path / "place ☃"


def printing(folder: Path) -> dict[str, list[str]]:
    """Every verb, and forms of output, in an order in which everything is there."""
    table = verbs.commands(folder, folder)
    asked = {verb: orders[-1] for verb, orders in table.items() if verb != "adopt"}
    asked |= {f"query {form}": ["query", NEW, "--no-helper", form] for form in ("--json", "-l", "--csv")}
    asked |= {"index --json": [*asked.pop("index"), "--json"], "--version": ["--version"]}
    asked |= {"adopt": [*table["adopt"][0], "--json"], "rollback": [*table["adopt"][1], "--json"]}
    asked |= {"reindex": [*asked.pop("reindex"), "--json"], "forget-model": asked.pop("forget-model")}
    return asked | {"--help": ["--help"], "a verb's --help": ["query", "--help"], "forget": asked["forget"]}


def run(folder: Path, arguments: list[str], redirected: str = "") -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", sys.executable, "-m", "vsearch"]
    return subprocess.run(
        [*command, *arguments], env=verbs.environment(folder / "library"), capture_output=True, text=True,
        errors="replace", timeout=120,
    )  # fmt: skip


def check(ran: verbs.Ran, way: str, verb: str) -> None:
    _, code, sentence = WAYS[way]
    assert ran.fault is None, (verb, ran)
    assert "rror:" not in ran.err, (verb, ran)  # of Python
    if sentence and verb not in SILENT:
        assert ran.code == code, (verb, ran)
        assert ran.err.splitlines()[-1] == f"vsearch: the output could not be written: {sentence}"
        assert ran.out == ""
    else:
        assert ran.code in (0, 2 if sentence else 0, 1 if verb.startswith("query") else 0), (verb, ran)
        assert ran.out.strip() or sentence or way == "a reader that left" or verb in SILENT, (verb, ran)


@needs_a_full_disk
@pytest.mark.parametrize("way", WAYS)
def test_wherever_the_output_of_a_process_goes(folder: Path, way: str) -> None:
    done = run(folder, ["ls"], WAYS[way][0])
    check(verbs.Ran(done.returncode, done.stdout, done.stderr), way, "ls")


@pytest.mark.slow
@needs_a_full_disk
@pytest.mark.parametrize("way", WAYS)
def test_wherever_the_output_of_every_verb_goes(folder: Path, way: str) -> None:
    asked = printing(folder)
    assert {name.partition(" ")[0] for name in asked} >= set(VERBS) - set(verbs.SERVERS)
    if way != "a full disk":  # what is heavy once
        asked = {verb: order for verb, order in asked.items() if verb not in HEAVY}
    for verb, ran in zip(
        asked, verbs.run_apart(list(asked.values()), folder / "library", WAYS[way][0]), strict=True
    ):
        check(ran, way, verb)


HEAVY = {
    "doctor",
    "train",
    "train-proposals",
    "import-checkpoint",
    "eval",
    "adopt",
    "rollback",
    "reindex",
    "forget-model",
}


def test_what_cannot_be_shown_is_not_forgotten(folder: Path) -> None:
    assert run(folder, ["forget", "one.mp4", "--yes"], ">&-").returncode == 2
    assert "one.mp4" in run(folder, ["ls"]).stdout


@pytest.mark.slow
def test_letters_that_the_output_lacks_become_escapes(folder: Path) -> None:
    plain = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii",
        "PYTHONCOERCECLOCALE": "0",
        "COLUMNS": "1",
    }
    asked = {verb: order for verb, order in printing(folder).items() if verb not in HEAVY}
    for verb, ran in zip(
        asked, verbs.run_apart(list(asked.values()), folder / "library", **plain), strict=True
    ):
        assert ran.code == 0 or (verb.startswith("query") and ran.code == 1), (verb, ran)
        assert ran.out.isascii() or verb == "query -l", verb  # paths for programs: byte for byte
        assert ran.out.strip() or verb in SILENT, verb


UNDECODABLE = os.fsdecode(b"\xff\xfe")


HOSTILE = [
    ["query", UNDECODABLE, "--no-helper"],
    ["query", NEW, "--in", UNDECODABLE],
    ["similar", f"{UNDECODABLE}@1"],
    ["clip", UNDECODABLE],
    ["info", UNDECODABLE],
    ["forget", UNDECODABLE, "--yes"],
    ["localize", "--actions", UNDECODABLE],
    ["localize", "one.mp4", "--vocabulary", UNDECODABLE],
    ["localize", "one.mp4", "--actions", "one", "--format", UNDECODABLE],
    ["classify", UNDECODABLE, "--actions", "one"],
    ["ls", "--state", UNDECODABLE],
    ["status", "--library", UNDECODABLE],
    ["verify", "--library", UNDECODABLE],
    ["adopt", UNDECODABLE],
    ["reindex", "--model", UNDECODABLE],
    ["forget-model", UNDECODABLE, "--yes"],
    ["query", NEW, "--min", UNDECODABLE],
    ["index", UNDECODABLE],
    ["index", ".", "--model", UNDECODABLE],
    ["index", ".", "--decoder", UNDECODABLE],
    ["query", NEW, "--device", UNDECODABLE],
    ["models", "list", UNDECODABLE],
    [UNDECODABLE],
    ["train-proposals", UNDECODABLE, "--save", UNDECODABLE],
]


@pytest.mark.slow
def test_bytes_that_are_no_letters(folder: Path) -> None:
    for arguments, ran in zip(HOSTILE, verbs.run_apart(HOSTILE, folder / "library"), strict=True):
        assert ran.code in (0, 1, 2), (arguments, ran)
        assert ran.fault is None, (arguments, ran)
        assert ran.err.strip() or ran.code != 2, arguments
    done = run(folder, HOSTILE[0])  # as a process finds them among its arguments
    assert (done.returncode, done.stderr) == (
        2,
        "vsearch: the query is not readable text: write it in UTF-8\n",
    )


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory: a folder that was deleted."""
    before = Path.cwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.delenv("VSEARCH_LIBRARY", raising=False)
    yield
    os.chdir(before)


@pytest.mark.parametrize("arguments", [["ls"], ["query", "x"], ["index", "."], ["ls", "--library", "here"]])
def test_in_a_folder_that_was_deleted(gone: None, arguments: list[str], vsearch: Vsearch) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "vsearch", *arguments], env=kept, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vsearch: the folder that you are in was deleted"), done.stderr


def test_a_library_elsewhere_is_read_from_a_deleted_folder(gone: None, folder: Path) -> None:
    done = run(folder, ["ls"])
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert "two.mp4" in done.stdout
