"""Coarse to fine: everything searchable by its keyframes first, and in the end no trace of that."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import read_barcode, truncated, write_video
from tests.moments import moments_of
from vsearch.errors import LibraryError
from vsearch.indexer import IndexOptions, Progress, index_videos, run
from vsearch.indexer.decode import DecodeOptions, FrameShape
from vsearch.indexer.decode.sampling import decode
from vsearch.library import Library
from vsearch.records import MediaInfo

EVERY_S = 2.0
REGULAR = {"sc_threshold": "0"}  # no keyframes but every `gop` pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, a copy, one cut short, one broken; a keyframe a second."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4", frames=240, fps=12, gop=12, encoder=REGULAR)
    write_video(folder / "b.mkv", frames=120, fps=12, gop=12, times=[3 + i / 12 for i in range(120)])
    shutil.copy(folder / "a.mp4", folder / "copy of a.mp4")
    whole = write_video(tmp_path / "whole.mkv", frames=120, fps=12, gop=12, encoder=REGULAR)
    truncated(folder / "part.mkv", whole)
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:400])
    for file in folder.iterdir():
        os.utime(file, (time.time() - 60,) * 2)  # one changed just now would be left for the next run
    return folder


class Run:
    """Runs of `vsearch index` in this process; what they reported."""

    def __init__(self, library: Path, folder: Path, model: Path) -> None:
        self.library, self.folder, self.model = library, folder, model
        self.stages: list[str] = []
        self.warnings: list[str] = []
        self.stop_at: str | None = None

    def __call__(self) -> run.RunSummary:
        options = IndexOptions(model=str(self.model), device="cpu", workers=1)
        self.stages.clear()
        return index_videos(self.library, [self.folder], options, self.report)

    def report(self, told: Progress) -> None:
        if told.warning:
            self.warnings.append(told.warning)
        elif told.stage not in self.stages:
            self.stages.append(told.stage)
        if told.stage == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def index(tmp_path: Path, folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """With a first pass over these few videos, not over the broken one alone."""
    monkeypatch.setattr(run, "FIRST_PASS_FROM_BYTES", 1000)
    return Run(tmp_path / "library", folder, tiny_model)


def test_the_end_is_that_of_a_run_without_a_first_pass(
    index: Run, tmp_path: Path, folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = index()
    assert [stage for stage in index.stages if stage in ("first pass", "full rate")] == [
        "first pass",
        "full rate",
    ]
    monkeypatch.setattr(run, "FIRST_PASS_FROM_BYTES", float("inf"))
    alone = Run(tmp_path / "alone", folder, tiny_model)
    reference = alone()
    assert "first pass" not in alone.stages
    assert (done.indexed, done.partial, done.frames) == (4, 1, reference.frames)
    assert done.failures == reference.failures
    assert len([w for w in index.warnings if "broken.mp4" in w]) == 1
    assert held(index.library) == held(alone.library)
    index()  # nothing to do, but for the files that the first pass left
    assert index.stages == ["looking for videos", "comparing with the library"]
    assert stored_files(index.library) == stored_files(alone.library) != set()
    with Library.open(index.library) as library:
        assert library.coarse_contents() == set()
        assert library.verify().problems == ()


def test_after_the_first_pass_everything_is_searchable_and_marked(
    index: Run, vsearch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vsearch.cli.output import print_hits
    from vsearch.retriever import Answer
    from vsearch.retriever.actions.videos import timeline_of
    from vsearch.retriever.searching import search_look

    index.stop_at = "full rate"
    with pytest.raises(KeyboardInterrupt):
        index()
    with Library.open(index.library) as library:
        a = library.find_video("a.mp4")
        stored = library.frame_set_of(a, library.live_encoder().backbone)
        times = library.frames(stored.id).times_ms.tolist()
        assert times == [0, 4000, 8000, 12000, 16000]  # every 4 s, half a window
        assert library.summary().coarse == 4
        look = np.asarray(library.frames(stored.id).vectors[2], np.float32)
        answer = search_look(library, look / np.linalg.norm(look), "a look")
        assert {Path(hit.path).name for hit in answer.hits} == {"a.mp4", "b.mkv", "part.mkv"}
        assert all(hit.coarse for hit in answer.hits)
        assert Answer.from_json(answer.to_json()) == answer  # as the helper hands it on
        print_hits(answer, "table")
        assert capsys.readouterr().out.count("(coarse") == 3
        assert [hit.also_at for hit in answer.hits if hit.path == str(a.path)] == [
            (str(index.folder / "copy of a.mp4"),)
        ]
        with pytest.raises(LibraryError, match="only the keyframes"):
            timeline_of(library, a)
    listed = json.loads(vsearch("ls", "--json", "--library", index.library).stdout)["videos"]
    assert {Path(v["path"]).name for v in listed if v["coarse"]} == {
        "a.mp4", "copy of a.mp4", "b.mkv", "part.mkv"
    }  # fmt: skip
    assert "4 of them coarse" in vsearch("status", "--library", index.library).stdout


def test_a_run_stopped_between_the_passes_goes_on_with_the_second(
    index: Run, tmp_path: Path, folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.stop_at = "full rate"
    with monkeypatch.context() as killed:
        killed.setattr(
            run.IndexRun, "_publish", lambda *_: None
        )  # as if killed before anything was published
        with pytest.raises(KeyboardInterrupt):
            index()
    with Library.open(index.library) as library:
        assert library.live_generation() is None
        assert library.summary().coarse == 4
    index.stop_at = "indexing"
    with pytest.raises(KeyboardInterrupt):
        index()
    with Library.open(index.library) as library:
        assert library.live_generation() is not None  # the first thing that the second run does
    index.stop_at = None
    done = index()
    assert "first pass" not in index.stages
    assert (done.indexed, done.partial) == (4, 1)
    alone = Run(tmp_path / "alone", folder, tiny_model)
    alone()
    assert held(index.library) == held(alone.library)


def test_what_has_frames_at_another_rate_keeps_them_until_it_is_done_again(index: Run) -> None:
    index()
    options = IndexOptions(fps=1.0, resample=True, device="cpu", workers=1)
    stages: list[str] = []
    index_videos(index.library, [index.folder], options, lambda told: stages.append(told.stage))
    assert "first pass" not in stages
    with Library.open(index.library) as library:
        assert library.coarse_contents() == set()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_keyframes_come_with_their_times(tmp_path: Path, name: str) -> None:
    codec, how = ("mpeg4", None) if name.endswith("avi") else ("libx264", REGULAR)
    path = write_video(tmp_path / name, codec, frames=300, fps=25, gop=25, encoder=how)
    looked = Looked(path)
    numbers = [read_barcode(image) for image in looked.images]
    assert numbers[0] == 0
    assert len(numbers) >= 4
    assert all(number % 25 == 0 for number in numbers[1:])
    assert looked.times_ms == pytest.approx([number * 40 for number in numbers], abs=81)
    assert min(np.diff(looked.times_ms)) >= 1000 * EVERY_S


def test_where_every_picture_is_a_keyframe_only_some_are_taken(tmp_path: Path) -> None:
    looked = Looked(write_video(tmp_path / "a.mp4", "mjpeg", frames=250, fps=25, gop=1, pixels="yuvj420p"))
    assert looked.times_ms == [0, 2000, 4000, 6000, 8000]


def test_a_video_with_one_keyframe_gives_that(tmp_path: Path) -> None:
    looked = Looked(write_video(tmp_path / "a.mp4", frames=250, fps=25, gop=1000, encoder=REGULAR))
    assert looked.times_ms == [0]
    assert looked.outcome.covered_ms == 10_000


def test_damage_costs_the_keyframes_that_it_hits(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=300, fps=25, gop=25, encoder=REGULAR)
    looked = Looked(truncated(tmp_path / "cut.mkv", whole))
    assert looked.times_ms[:2] == [0, 2000]
    assert looked.outcome.partial is None


class Looked:
    """A first look at a file, and the sink that it goes into."""

    def __init__(self, path: Path) -> None:
        self.times_ms: list[int] = []
        self.images: list[Any] = []
        self.outcome = decode(path, DecodeOptions(shape=FrameShape(96), keyframes_every_s=EVERY_S), self)

    def info(self, info: MediaInfo) -> None: ...

    def progress(self, time_ms: int) -> None: ...

    def poster(self, jpeg: bytes) -> None: ...

    def frame(self, time_ms: int, image: Any) -> None:
        self.times_ms.append(time_ms)
        self.images.append(image.copy())


def held(path: Path) -> dict[str, Any]:
    """What a library holds of each video, with its vectors, but for the numbers of rows."""
    found = {}
    with Library.open(path) as library:
        encoder = library.live_encoder()
        view = library.open_live()
        vectors = {
            int(i): v.tobytes() for ids, some in view.vectors() for i, v in zip(ids, some, strict=True)
        }
        for video in library.videos():
            stored = library.frame_set_of(video, encoder.backbone)
            moments = moments_of(library, video, encoder.id)
            found[video.path.name] = [
                video.state, video.reason, video.media, video.covered_ms, video.attempts,
                stored and stored.frames, stored and stored.duration_ms,
                [(m.start_ms, m.end_ms, m.first_frame, m.last_frame, vectors.pop(m.id, None)) for m in moments]
                if not video.path.name.startswith("copy") else len(moments),
                poster.read_bytes() if (poster := library.poster(video.fingerprint or "")) else None,
            ]  # fmt: skip
        assert not vectors  # nothing else is searched
        assert library.up_to_date(encoder.id)
    return found


def stored_files(library: Path) -> set[str]:
    return {str(file.relative_to(library)) for file in (library / "frames").glob("??/*")}
