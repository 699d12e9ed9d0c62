"""Where the output goes is nobody's fault but the sentence says so: full disks, closed streams, readers that left, few letters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Vsearch
from tests.place import NEW, Place, make_place

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
PRINTING = {
    "query": ["query", NEW, "--no-helper"],
    "query --json": ["query", NEW, "--no-helper", "--json"],
    "query -l": ["query", NEW, "--no-helper", "-l"],
    "query --csv": ["query", NEW, "--no-helper", "--csv"],
    "similar": ["similar", "v0.mp4@1"],
    "localize": ["localize", "v0.mp4", "--actions", "one, two", "--threshold", "0"],
    "classify": ["classify", "v0.mp4", "--actions", "one, two"],
    "status": ["status"],
    "ls": ["ls"],
    "info": ["info", "v0.mp4"],
    "forget": ["forget", "v0.mp4", "--yes"],
    "models": ["models", "list", "mini"],
    "--help": ["--help"],
    "a verb's --help": ["query", "--help"],
    "--version": ["--version"],
}
WAYS = {
    "a full disk": ("> /dev/full", 2, "no room is left on its disk"),
    "closed": (">&-", 2, "standard output is closed"),
    "no stderr": ("2>&-", 0, None),
    "stderr on a full disk": ("2> /dev/full", 0, None),
    "no stdin": ("<&-", 0, None),
    "a reader that left": ("| true", 0, None),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    from vsearch.indexer import IndexOptions, index_videos

    place = make_place(tmp_path_factory.mktemp("output") / "place ☃", tiny_model)
    index_videos(
        place.library, [place.videos], IndexOptions(model=str(tiny_model), workers=1), lambda progress: None
    )
    for arguments in (PRINTING["query"], PRINTING["localize"]):  # remembered: no model is loaded below
        run(place, arguments)
    return place


def run(
    place: Place, arguments: list[str], redirected: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", sys.executable, "-m", "vsearch"]
    kept = {**os.environ, "VSEARCH_LIBRARY": str(place.library), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*command, *arguments], env=kept, capture_output=True, text=True, errors="replace", timeout=120
    )


@pytest.mark.slow
@full
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verb", PRINTING)
def test_wherever_output_goes(place: Place, verb: str, way: str) -> None:
    redirected, code, sentence = WAYS[way]
    if verb == "forget" and code == 0:
        return  # once only, below
    done = run(place, PRINTING[verb], redirected)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "rror:" not in done.stderr  # of Python
    if sentence:
        assert done.stderr.splitlines()[-1] == f"vsearch: the output could not be written: {sentence}"
        assert done.stdout == ""
    elif way != "a reader that left":
        assert done.stdout.strip()


def test_what_cannot_be_shown_is_not_forgotten(place: Place) -> None:
    assert run(place, PRINTING["forget"], ">&-").returncode == 2
    assert "v0.mp4" in run(place, ["ls"]).stdout


@pytest.mark.slow
@pytest.mark.parametrize("verb", PRINTING)
def test_letters_that_the_output_lacks_become_escapes(place: Place, verb: str) -> None:
    if verb == "forget":
        return
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    done = run(place, PRINTING[verb], COLUMNS="1", **plain)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() or verb == "query -l"  # paths for programs: byte for byte
    assert done.stdout.strip()


UNDECODABLE = os.fsdecode(b"\xff\xfe")


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", UNDECODABLE, "--no-helper"],
        ["query", NEW, "--in", UNDECODABLE],
        ["similar", f"{UNDECODABLE}@1"],
        ["clip", UNDECODABLE],
        ["info", UNDECODABLE],
        ["forget", UNDECODABLE, "--yes"],
        ["localize", "--actions", UNDECODABLE],
        ["localize", "v0.mp4", "--vocabulary", UNDECODABLE],
        ["localize", "v0.mp4", "--actions", "one", "--format", UNDECODABLE],
        ["classify", UNDECODABLE, "--actions", "one"],
        ["ls", "--state", UNDECODABLE],
        ["status", "--library", UNDECODABLE],
        ["verify", "--library", UNDECODABLE],
        ["adopt", UNDECODABLE],
        ["index", UNDECODABLE],
        ["index", ".", "--model", UNDECODABLE],
        ["index", ".", "--decoder", UNDECODABLE],
        ["query", NEW, "--device", UNDECODABLE],
        ["models", "list", UNDECODABLE],
        [UNDECODABLE],
        ["train-proposals", UNDECODABLE, "--save", UNDECODABLE],
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "backslashreplace").decode(),
)
@pytest.mark.slow
def test_bytes_that_are_no_letters(place: Place, arguments: list[str]) -> None:
    done = run(place, arguments)
    assert done.returncode in (0, 1, 2)
    assert "unexpected fault" not in done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 2:
        assert done.stderr.strip()


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


def test_a_library_elsewhere_is_read_from_a_deleted_folder(gone: None, place: Place) -> None:
    done = run(place, ["ls"])
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert "v1.mp4" in done.stdout
