"""Another model for a library: filled beside the one that answers, one switch, and back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.conftest import Vsearch
from vsearch.errors import LibraryError, ModelError
from vsearch.indexer import IndexOptions, Progress, change_model, index_videos
from vsearch.indexer.run import IndexRun
from vsearch.library import Library
from vsearch.models import backbone
from vsearch.retriever import Session

NAMES = ("one", "two", "three")
ASKED = "a sentence asked before"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for i, name in enumerate(NAMES):
        file = media.write_video(tmp_path / "videos" / f"{name}.mp4", frames=30 + 20 * i, fps=10)
        os.utime(file, (1, 1))
    index_videos(tmp_path / "library", [tmp_path / "videos"], IndexOptions(workers=1), lambda told: None)
    answer(tmp_path / "library")
    return tmp_path / "library"


def answer(place: Path) -> str:
    with Library.open(place) as library:
        return Session.of(library).search(ASKED).to_json()


def index_hashes(place: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (place / "index").glob("*.faiss")
    }


def model_of(place: Path) -> str:
    with Library.open(place) as library:
        live = library.live_encoder()
        assert live is not None
        return str(live.spec["model"])


def test_the_old_model_answers_until_all_is_there_and_comes_back_bit_for_bit(
    place: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files, options = (
        answer(place),
        index_hashes(place),
        IndexOptions(model=str(tiny_model), workers=1),
    )
    recorded: list[str] = []
    record = IndexRun._record

    def stopped_after_one(self: IndexRun, job: Any, *arguments: Any, **named: Any) -> None:
        assert answer(place) == before
        if len(recorded) in (1, 2):
            recorded.append("stopped")
            raise KeyboardInterrupt
        record(self, job, *arguments, **named)
        recorded.append(job.path.stem)

    monkeypatch.setattr(IndexRun, "_record", stopped_after_one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            change_model(place, options, lambda told: None)
        assert (answer(place), model_of(place)) == (before, "mini")
    done = change_model(place, options, lambda told: None)
    assert sorted(name for name in recorded if name != "stopped") == sorted(NAMES)  # each once
    assert (model_of(place), done.former, done.changed) == (str(tiny_model), "mini", True)
    with Library.open(place) as library:
        assert library.verify().clean
        live = library.live_encoder()
        assert live is not None
        assert library.neutral_scores(live) is not None
    again = change_model(place, options, lambda told: None)
    assert (again.changed, again.videos) == (False, 0)
    back = change_model(place, None, lambda told: None)
    assert (back.model, model_of(place), answer(place)) == ("mini", "mini", before)
    assert index_hashes(place).items() >= files.items()


def test_a_file_that_fails_now_still_answers_by_the_old_model(place: Path, tiny_model: Path) -> None:
    broken = place.parent / "videos" / "two.mp4"
    whole = broken.read_bytes()
    broken.write_bytes(bytes(len(whole)))
    os.utime(broken, (1, 1))
    done = change_model(place, IndexOptions(model=str(tiny_model), workers=1), lambda told: None)
    assert [Path(path).name for path, _ in done.failures] == ["two.mp4"]
    with Library.open(place) as library:
        assert library.find_video("two.mp4").state == "indexed"
        assert len({m.fingerprint for m in library.moments(library.open_live().ids.tolist())}) == 2
    change_model(place, None, lambda told: None)
    assert "two.mp4" in answer(place)


def test_what_was_indexed_since_comes_to_the_old_model_with_the_next_run(
    place: Path, tiny_model: Path
) -> None:
    change_model(place, IndexOptions(model=str(tiny_model), workers=1), lambda told: None)
    os.utime(media.write_video(place.parent / "videos" / "new.mp4", frames=60, fps=10), (1, 1))
    index_videos(place, [place.parent / "videos"], IndexOptions(workers=1), lambda told: None)
    back = change_model(place, None, lambda told: None)
    assert back.behind == 1
    assert "new.mp4" not in answer(place)
    index_videos(place, [place.parent / "videos"], IndexOptions(workers=1), lambda told: None)
    assert "new.mp4" in answer(place)


def test_files_that_are_away_are_counted_and_come_back(place: Path, tiny_model: Path) -> None:
    away = place.parent / "videos" / "one.mp4"
    away.rename(place.parent / "one.mp4")
    said: list[Progress] = []
    done = change_model(place, IndexOptions(model=str(tiny_model), workers=1), said.append)
    assert done.left_out == 1
    assert any(told.warning and "1 videos are not where they were" in told.warning for told in said)
    (place.parent / "one.mp4").rename(away)
    summary = index_videos(place, [place.parent / "videos"], IndexOptions(workers=1), lambda told: None)
    assert (summary.indexed, summary.unchanged) == (1, 2)


def test_another_build_of_the_built_in_model_is_changed_by_index_itself(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(backbone.MINI_DIR, tmp_path / "mini")
    card = json.loads((other / "towers.json").read_text())
    (other / "towers.json").write_text(json.dumps({**card, "identity": "mini@another"}))
    monkeypatch.setattr(backbone, "MINI_DIR", other)
    answer(place)  # asked before: no model is needed
    with Library.open(place) as library, pytest.raises(ModelError, match="vsearch reindex --model mini"):
        Session.of(library).search("one that is new")
    said: list[Progress] = []
    summary = index_videos(place, [place.parent / "videos"], IndexOptions(workers=1), said.append)
    assert any(told.warning and "another build" in told.warning for told in said)
    assert (summary.unchanged, summary.indexed) == (3, 0)
    with Library.open(place) as library:
        live = library.live_encoder()
        assert live is not None
        assert live.backbone == "mini@another"
        assert len(Session.of(library).search("one that is new").hits) == 3
        assert library.verify().clean


def test_what_is_kept_of_the_old_model_can_be_freed(place: Path, tiny_model: Path, vsearch: Vsearch) -> None:
    change_model(place, IndexOptions(model=str(tiny_model), workers=1), lambda told: None)
    frames = {*(place / "frames").glob("??/*")}
    with Library.open(place) as library:
        (kept,) = library.summary().kept.items()
        assert kept[0].startswith("mini@")
        assert kept[1] > 0
    assert "kept      mini@" in vsearch("status", "--library", place).stdout
    assert vsearch("forget-model", "mini", "--library", place).returncode == 2  # nobody to ask
    assert vsearch("forget-model", "mini", "--yes", "--library", place).returncode == 0
    assert len({*(place / "frames").glob("??/*")}) == len(frames) // 2
    assert len([*(place / "neutral").iterdir()]) == 1
    with Library.open(place) as library:
        assert (library.summary().kept, library.verify().clean) == ({}, True)
        assert len(Session.of(library).search(ASKED).hits) == 3
    with pytest.raises(LibraryError, match="no model to go back to"):
        change_model(place, None, lambda told: None)


def test_nothing_to_change_and_nothing_to_go_back_to(place: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="no model to go back to"):
        change_model(place, None, lambda told: None)
    with pytest.raises(LibraryError, match="There is no library"):
        change_model(tmp_path / "none", IndexOptions(model="mini"), lambda told: None)
    with pytest.raises(ModelError):
        change_model(place, IndexOptions(model=str(tmp_path / "nothing")), lambda told: None)
    assert model_of(place) == "mini"
