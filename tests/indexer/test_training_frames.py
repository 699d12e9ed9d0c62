"""Frames for training from videos on disk and from a library: the same pictures, the same vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import media
from vsearch.errors import VsearchError
from vsearch.indexer import IndexOptions, index_videos, open_frames
from vsearch.models import Backbone, load_backbone
from vsearch.models.recipes import Recipe, VideoText, load_recipe
from vsearch.models.training.datasets import Clip

FROZEN, IN_NETWORK = load_recipe("efficient-prompt"), load_recipe("xclip")
CLIPS = [
    Clip("a", ("one",)),
    Clip("below/b.mp4", ("two",)),
    Clip("a", ("part",), None, 1.0, 2.0),
    Clip("broken", ("three",)),
    Clip("missing", ("four",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    (root / "below").mkdir()
    media.write_video(root / "a.mp4")
    media.write_video(root / "below" / "b.mp4")
    (root / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    return root


@pytest.fixture
def backbone(tiny_model: Path) -> Backbone:
    return load_backbone(str(tiny_model), "cpu")


def test_a_folder_gives_vectors_and_says_what_is_missing(
    folder: Path, backbone: Backbone, tmp_path: Path
) -> None:
    said: list[str] = []
    clips, frames = open_frames([folder], CLIPS, backbone, FROZEN, tmp_path, said.append)
    assert [c.key for c in clips] == ["a", "below/b.mp4", "a#1-2"]
    assert isinstance(frames, dict)
    whole, part = frames["a"], frames["a#1-2"]
    assert len(part) == 2  # two samples a second
    np.testing.assert_array_equal(part, whole[2:4])
    assert any("broken.mp4" in line for line in said)
    assert said[-1] == "2 annotated videos have no frames and are left out: broken, missing"
    (folder / "a.mp4").rename(folder / "hidden")  # the cache is enough from now on
    try:
        again = open_frames([folder], CLIPS[:1], backbone, FROZEN, tmp_path, said.append)[1]
    finally:
        (folder / "hidden").rename(folder / "a.mp4")
    assert isinstance(again, dict)
    np.testing.assert_array_equal(again["a"], whole)


def test_a_video_replaced_by_another_has_that_ones_frames(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    file, said = tmp_path / "videos" / "a.mp4", [""]

    def frames(recipe: Recipe, folder: str = "videos") -> np.ndarray:
        [clip], found = open_frames(
            [tmp_path / folder], CLIPS[:1], backbone, recipe, tmp_path / "cache", said.append
        )
        return np.asarray(found[clip.key] if isinstance(found, dict) else found.frames(clip))

    media.write_video(file)
    before = [frames(recipe) for recipe in (FROZEN, IN_NETWORK)]
    media.write_video(file, frames=30)
    for recipe, old in zip((FROZEN, IN_NETWORK), before, strict=True):
        assert len(frames(recipe)) < len(old)
    (tmp_path / "videos").rename(tmp_path / "moved")  # the same content: nothing is decoded or encoded again
    monkeypatch.setattr(Backbone, "encode_frames", None)
    monkeypatch.setattr("vsearch.indexer.decode.DecodePool", None)
    assert len(frames(FROZEN, "moved")) == 3


def test_in_network_recipes_get_pictures(folder: Path, backbone: Backbone, tmp_path: Path) -> None:
    clips, frames = open_frames([folder], CLIPS[:2], backbone, IN_NETWORK, tmp_path, print)
    assert not isinstance(frames, dict)
    pictures = frames.frames(clips[0])
    assert pictures is not None
    assert (pictures.dtype, pictures.shape[1:]) == (np.uint8, (64, 64, 3))
    assert VideoText(IN_NETWORK, backbone)


def test_a_library_gives_the_vectors_it_keeps(
    folder: Path, backbone: Backbone, tiny_model: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    index_videos(library, [folder], IndexOptions(model=str(tiny_model), device="cpu"), lambda progress: None)
    clips, kept = open_frames([library], CLIPS, backbone, FROZEN, tmp_path, print)
    assert [c.key for c in clips] == ["a", "below/b.mp4", "a#1-2"]
    fresh = open_frames([folder], CLIPS, backbone, FROZEN, tmp_path, print)[1]
    assert isinstance(kept, dict)
    assert isinstance(fresh, dict)
    for clip in clips:
        np.testing.assert_allclose(kept[clip.key], fresh[clip.key], atol=2e-3)
    with pytest.raises(VsearchError, match="needs pictures"):
        open_frames([library], CLIPS, backbone, IN_NETWORK, tmp_path, print)
    backbone.identity = "another"
    with pytest.raises(VsearchError, match="this library was indexed with"):
        open_frames([library], CLIPS, backbone, FROZEN, tmp_path, print)


def test_nothing_found(folder: Path, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(VsearchError, match="none of the 1 annotated videos"):
        open_frames([folder], CLIPS[-1:], backbone, FROZEN, tmp_path, print)
    with pytest.raises(VsearchError, match="expected a folder"):
        open_frames([folder / "a.mp4"], CLIPS, backbone, FROZEN, tmp_path, print)
