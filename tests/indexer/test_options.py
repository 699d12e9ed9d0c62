"""What an option of `vsearch index` leaves behind: what belongs to the library is kept, and nothing is done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.conftest import Vsearch
from tests.indexer.test_adopt import checkpoint
from tests.towers import write_model
from vsearch.indexer.decode import child as decode_child
from vsearch.indexer.encoding import Lanes
from vsearch.library import Library

KEPT = {"--model", "--head", "--fps"}  # what a library is made with
PASSING = {"--decoder", "--workers", "--batch-size", "--device", "--retry-failed", "--progress"}
OPTIONS = [
    ("--model", "model"), ("--head", "head"), ("--fps", "1"), ("--decoder", "pyav"), ("--workers", "2"),
    ("--batch-size", "3"), ("--device", "cpu"), ("--retry-failed",), ("--progress", "json"),
]  # fmt: skip
Files = dict[str, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = tmp_path_factory.mktemp("options")
    model = write_model(made / "model")
    return {"model": model, "head": checkpoint(made / "head", model, "clip4clip")}


@pytest.fixture
def place(tmp_path: Path, models: Files) -> Path:
    """The working directory: a model and a head by relative names, and a folder of two videos."""
    for name, folder in models.items():
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / "videos" / "sub").mkdir(parents=True)
    for i in (1, 2):
        media.write_video(tmp_path / "videos" / f"{i}.mp4", frames=25 * i)
    return tmp_path


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was decoded, and how many pictures were encoded."""
    seen: dict[str, Any] = {"decoded": [], "encoded": 0}
    start, submit = decode_child.Child.start, Lanes.submit

    def starting(child: Any, path: str, *rest: Any) -> None:
        seen["decoded"].append(Path(path).name)
        start(child, path, *rest)

    def submitting(lanes: Lanes, frames: Any) -> Any:
        seen["encoded"] += len(frames)
        return submit(lanes, frames)

    monkeypatch.setattr(decode_child.Child, "start", starting)
    monkeypatch.setattr(Lanes, "submit", submitting)
    return seen


def indexer(vsearch: Vsearch, work: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    def index(*options: str) -> dict[str, Any]:
        work.update(decoded=[], encoded=0)
        done = vsearch("index", "videos", *options, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return index


def standing(place: Path) -> Any:
    with Library.open(place / "library") as library:
        encoder, state = library.answering_encoder(), library.summary()
        return encoder, state.generation, state.frame_count, state.moment_count


@pytest.mark.parametrize("option", OPTIONS[:7], ids=lambda option: option[0])
def test_a_plain_run_after_one_with_an_option_does_nothing_and_keeps_what_is_the_library_s(
    place: Path, vsearch: Vsearch, work: dict[str, Any], option: tuple[str, ...]
) -> None:
    index = indexer(vsearch, work)
    with_model = () if option[0] in ("--model", "--head") else ("--model", "model")
    assert index(*with_model, *option)["indexed"] == 2
    assert sorted(work["decoded"]) == ["1.mp4", "2.mp4"]
    made = standing(place)
    for again in ((), option):
        assert index(*again)["unchanged"] == 2
        assert work == {"decoded": [], "encoded": 0}
        assert standing(place) == made
    frames = 3 if option[0] == "--fps" else 6
    media.write_video(place / "videos" / "3.mp4", frames=75)
    told = index()
    assert (told["unchanged"], told["indexed"], told["frames"]) == (2, 1, frames)
    assert work["decoded"] == ["3.mp4"]
    assert standing(place)[0] == made[0]


def test_no_option_that_leaves_vectors_as_they_are_does_anything_later(
    place: Path, vsearch: Vsearch, work: dict[str, Any]
) -> None:
    index = indexer(vsearch, work)
    index("--model", "model")
    made = standing(place)
    for first, *value in OPTIONS:
        if first in PASSING:
            assert index(first, *value)["unchanged"] == 2
            assert work == {"decoded": [], "encoded": 0}, first
    assert standing(place) == made
    every = [part for option in OPTIONS if option[0] in PASSING for part in option]
    assert index(*every, "--fps", "2", "--resample")["unchanged"] == 2
    assert work == {"decoded": [], "encoded": 0}
    assert standing(place) == made


def test_an_option_that_would_change_what_is_the_library_s_is_refused_and_changes_nothing(
    place: Path, vsearch: Vsearch, work: dict[str, Any]
) -> None:
    index = indexer(vsearch, work)
    index("--model", "model")
    made = standing(place)
    for other in (["--model", "mini"], ["--head", "head"], ["--fps", "1"]):
        done = vsearch("index", "videos", *other)
        assert (done.returncode, done.stdout) == (2, ""), other
        assert done.stderr.startswith("vsearch: this library ")
        assert other[0] in done.stderr or "adopt" in done.stderr
    assert index()["unchanged"] == 2
    assert work == {"decoded": [], "encoded": 0}
    assert standing(place) == made


def test_every_option_of_index_is_tried_here() -> None:
    import inspect

    from vsearch.cli.index import index

    names = {f"--{name.replace('_', '-')}" for name in inspect.signature(index).parameters}
    others = {"--paths", "--library", "--as-json", "--resample", "--dry-run"}
    assert names - others == KEPT | PASSING
