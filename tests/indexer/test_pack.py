"""Own pictures and videos as training data of the built-in model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media import write_video
from vsearch.errors import VsearchError
from vsearch.models.mini.train.data import list_captions, list_pictures, split_groups
from vsearch.models.mini.train.pack import main, pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    write_video(folder / "walk.mp4", frames=100)
    for i in range(20):
        pixels = np.full((300, 400, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"bild {i} ü.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff and nothing more")
    return folder


def write_captions(path: Path) -> Path:
    rows = ["video,caption", "walk.mp4,a square moves", "walk.mp4,something moves", "gone.mp4,not there"]
    rows += ["broken.jpg,a broken picture", *(f"bild {i} ü.png,shade number {i}" for i in range(20))]
    path.write_text("\n".join(rows), encoding="utf8")
    return path


def test_pictures_and_videos_become_training_data(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    captions, data = write_captions(tmp_path / "c.csv"), tmp_path / "data"
    assert pack(captions, folder, data / "more/own", said.append) == 21
    assert any("broken.jpg" in line for line in said)
    assert any(line.startswith("2 of 23 files") for line in said)

    pictures = list_pictures(data)
    groups = {part: {g.name: g for g in own} for part, own in split_groups(data, pictures).items()}
    walk = {**groups["train"], **groups["val-videos"]}["own/0000000"]
    assert walk.captions == ("a square moves", "something moves")
    assert len(walk.pictures) == 6
    assert len(groups["val-videos"]) == 2  # a tenth
    assert len(groups["train"]) == 19
    assert not groups["held-out"]
    assert not groups["val-photos"]
    assert set(list_captions(data)) == {
        "a square moves",
        "something moves",
        *(f"shade number {i}" for i in range(20)),
    }
    # the picture that its caption names: shade 10 i
    group = next(g for own in groups.values() for g in own.values() if g.captions == ("shade number 7",))
    chosen = pictures[group.pictures[0]]
    with zipfile.ZipFile(data / chosen.archive) as archive:
        picture = Image.open(io.BytesIO(archive.read(chosen.member)))
        assert picture.size == (341, 256)
        assert abs(np.asarray(picture).mean() - 70) < 3


def test_nothing_to_pack_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "c.csv"
    captions.write_text("video,caption\nelsewhere.mp4,a dog\n")
    with pytest.raises(VsearchError, match="none of the 1 files"):
        pack(captions, folder, tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["pack", str(captions), str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert main() == 2
    assert "nowhere" in capsys.readouterr().err
