"""`vsearch.Library`: a library kept open in a program's own process."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vsearch
from tests.retriever.test_search import add_video
from vsearch.errors import LibraryError
from vsearch.library import Library
from vsearch.library.catalogue import reading
from vsearch.library.index import IndexView
from vsearch.models import ZeroShotHead, load_quick_encoder
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever import Answer


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Generations whose index was opened, in order."""
    generations: list[int] = []

    def counted(folder: Path, generation: reading.Generation) -> object:
        generations.append(generation.id)
        return open_index(folder, generation)

    open_index = reading.open_index
    monkeypatch.setattr(reading, "open_index", counted)
    return generations


def made(place: Path, *names: str) -> None:
    """A library of videos that show `the thing` all along."""
    with Library.open(place, create=True) as library:
        for name in names:
            add_video(library, place.parent / name, [0] * 4)


def names_of(answer: Answer) -> set[str]:
    return {Path(hit.path).name for hit in answer.hits}


def test_the_index_is_opened_once_a_generation(tmp_path: Path, opened: list[int]) -> None:
    place = tmp_path / "library"
    made(place, "one.mp4")
    opened.clear()
    with vsearch.Library.open(place) as library:
        first = library.search("the thing")
        assert library.search("the thing") == first
        assert library.similar("one.mp4", 1.0).query
        assert len(opened) == 1
        made(place, "two.mp4")  # as an indexing run beside it
        opened.clear()
        assert names_of(library.search("the thing")) == {"one.mp4", "two.mp4"}
        assert names_of(library.search("the thing")) == {"one.mp4", "two.mp4"}
        assert len(opened) == 1


def test_a_library_deleted_and_made_again_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "library"
    made(place, "one.mp4")
    with vsearch.Library.open(place) as library:
        assert names_of(library.search("the thing")) == {"one.mp4"}
        shutil.rmtree(place)
        with pytest.raises(LibraryError, match="no library at"):
            library.search("the thing")
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is IndexView]  # its memory is given back
        made(place, "two.mp4")  # its generation has the number that the first one had
        assert names_of(library.search("the thing")) == {"two.mp4"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed on Linux alone")
def test_it_closes_what_it_opened(tmp_path: Path) -> None:
    place = tmp_path / "library"
    made(place, "one.mp4")

    def held() -> list[str]:
        gc.collect()
        files = (os.readlink(f) for f in Path("/proc/self/fd").iterdir() if os.path.islink(f))
        maps = Path("/proc/self/maps").read_text().splitlines()
        return [each for each in [*files, *maps] if str(place) in each]

    with vsearch.Library.open(place) as library:
        library.search("the thing")
        assert held()
    assert held() == []


def test_a_new_sentence_needs_no_torch_with_the_built_in_model(tmp_path: Path) -> None:
    place, head = tmp_path / "library", ZeroShotHead()
    encoder = load_quick_encoder({"model": "mini", "head": head.spec()})
    assert encoder is not None
    with Library.open(place, create=True) as library:
        add_video(library, tmp_path / "one.mp4", [0] * 4)
        spec = {"model": "mini", "head": head.spec()}
        id = library.register_encoder(encoder.identity, encoder.backbone.identity, head.identity, spec)
        (file,) = tmp_path.glob("*.mp4")
        stat = file.stat()
        vectors = np.eye(8, encoder.backbone.dim, dtype=np.float32)
        times = np.arange(8, dtype=np.int64) * 500
        recorded = library.record_indexed(
            files=[FoundFile(file, stat.st_size, stat.st_mtime_ns)],
            fingerprint="one.mp4",
            media=MediaInfo("mp4", "h264", 64, 64, 0, 4_000, 25.0),
            covered_ms=4_000,
            frames=library.frame_store.put("one.mp4", encoder.backbone.identity, 2.0, vectors, times),
            encoder_id=id,
            moments=[NewMoment(0, 4_000, 0, 8)],
        )
        moment = vectors.mean(axis=0, keepdims=True)
        moment /= np.linalg.norm(moment)
        library.publish_update(id, [(np.asarray(recorded.moment_ids), moment)])
    script = (
        "import sys, vsearch\n"
        "with vsearch.Library.open(sys.argv[1]) as library:\n"
        "    print(len(library.search('a sentence never asked before').hits))\n"
        "print(sorted({'torch', 'open_clip'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["1", "[]"], done.stderr
