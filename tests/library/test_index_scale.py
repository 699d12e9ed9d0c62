"""A large library's index: compressed, and still right. The size from which it is used is lowered for these tests."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.moments import moments_of
from vsearch.errors import LibraryError
from vsearch.library import Library
from vsearch.library.index import IndexView
from vsearch.library.index import compressed as index_base
from vsearch.library.index.codes import Codes, train_codes
from vsearch.library.index.effort import PROMISED_RECALL, Need, efforts, sample_queries
from vsearch.library.index.view import EXACT_VALUES
from vsearch.records import FoundFile, MediaInfo, NewMoment

DIM, VIDEOS, EACH = 64, 25, 200  # 5,000 moments, one a frame
SMALL = 100_000
MEDIA = MediaInfo("mp4", "h264", 320, 240, 0, EACH * 500, 25.0)


@pytest.fixture(autouse=True)
def large_begins_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsearch.library.index.view.EXACT_VALUES", SMALL)
    monkeypatch.setattr("vsearch.library.index.view.ADDED_LEAST", 0)
    monkeypatch.setattr("vsearch.library.index.view.ADDED_SHARE", 0.05)  # a video, not two


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def embed(vectors: np.ndarray, times_ms: np.ndarray, moments: Sequence[NewMoment]) -> np.ndarray:
    return unit(np.stack([vectors[m.first_frame].astype(np.float32) for m in moments]))


def clustered(rng: np.random.Generator) -> np.ndarray:
    """A video's frames around three scenes of its own."""
    scenes = rng.normal(size=(3, DIM))
    return scenes[rng.integers(0, 3, EACH)] + 0.5 * rng.normal(size=(EACH, DIM))


def unclustered(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(EACH, DIM))


def uneven(rng: np.random.Generator) -> np.ndarray:
    """As real frames: few directions hold most of the variance, and there are topics."""
    topics = np.random.default_rng(7).normal(size=(5, DIM))
    noise = 0.8 * rng.normal(size=DIM) + 0.6 * rng.normal(size=(EACH, DIM))
    return (topics[rng.integers(5)] + noise) / np.sqrt(1 + np.arange(DIM))


def encoder(library: Library) -> int:
    return library.register_encoder("bb+mean", "bb", "mean", {"model": "bb", "head": {}})


def record(library: Library, name: str, frames: np.ndarray) -> None:
    times = np.arange(len(frames), dtype=np.int64) * 500
    library.record_indexed(
        files=[FoundFile(library.path.parent / f"{name}.mp4", 1, 1)],
        fingerprint=name,
        media=MEDIA,
        covered_ms=MEDIA.duration_ms,
        frames=library.frame_store.put(name, "bb", 2.0, frames, times),
        encoder_id=encoder(library),
        moments=[NewMoment(i * 500, (i + 1) * 500, i, i + 1) for i in range(len(frames))],
    )


def made(folder: Path, frames: Callable[[np.random.Generator], np.ndarray]) -> Path:
    rng = np.random.default_rng(0)
    with Library.open(folder / "library", create=True) as library, library.writing():
        for i in range(VIDEOS):
            record(library, f"{i}", frames(rng))
        library.publish_update(encoder(library), embed=embed)
    return library.path


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsearch.library.index.view.EXACT_VALUES", SMALL)
        return {
            kind.__name__: made(tmp_path_factory.mktemp("large"), kind)
            for kind in (clustered, unclustered, uneven)
        }


@pytest.fixture
def library(libraries: dict[str, Path], tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(libraries["clustered"], tmp_path / "library")
    with Library.open(tmp_path / "library") as opened:
        yield opened


def everything(view: IndexView) -> tuple[np.ndarray, np.ndarray]:
    ids, vectors = zip(*view.vectors(), strict=True)
    return np.concatenate(ids), np.concatenate(vectors)


def queries_at(view: IndexView, cosine: float, number: int = 100) -> np.ndarray:
    _, vectors = everything(view)
    rng = np.random.default_rng(1)
    towards = vectors[rng.choice(len(vectors), number, replace=False)]
    away = rng.normal(size=towards.shape)
    away = unit(away - (away * towards).sum(axis=1, keepdims=True) * towards)
    return unit(cosine * towards + (1 - cosine**2) ** 0.5 * away)


def recall(view: IndexView, queries: np.ndarray) -> float:
    ids, vectors = everything(view)
    _, truth = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = view.search(queries, 10)
    return float(np.mean([len(np.intersect1d(f, ids[t])) / 10 for f, t in zip(found, truth, strict=True)]))


def files(library: Library) -> set[str]:
    return {path.name for path in (library.path / "index").iterdir()}


def base_files(library: Library) -> set[str]:
    base = library.open_live().generation.base
    assert base is not None
    return {base.codes.file, base.rows.file, base.ids.file}


def stored_codes(library: Library) -> faiss.Index:
    base = library.open_live().generation.base
    assert base is not None
    return faiss.read_index(str(library.path / "index" / base.codes.file))


def part(library: Library, suffix: str) -> Path:
    """A file of the live generation."""
    generation = library.live_generation()
    assert generation is not None
    assert generation.base is not None
    base = generation.base
    assert base.gone is not None
    names = {"codes": base.codes, "rows": base.rows, "ids": base.ids, "gone": base.gone}
    return library.path / "index" / (generation.file if suffix == "added" else names[suffix].file)


@pytest.mark.parametrize("kind", ["clustered", "unclustered", "uneven"])
def test_the_promised_recall_is_kept_near_and_far(libraries: dict[str, Path], kind: str) -> None:
    with Library.open(libraries[kind]) as library:
        view = library.open_live()
        assert view.base is not None
        for cosine in (0.95, 0.6, 0.3, 0.2):
            # 1,000 answers a kind of query: half a point of sampling error
            assert recall(view, queries_at(view, cosine)) >= PROMISED_RECALL - 0.005, cosine


def test_the_promised_recall_is_kept_for_sentences_never_asked(libraries: dict[str, Path]) -> None:
    """That lie among the stored vectors, of more than two, and partly aside."""
    with Library.open(libraries["uneven"]) as library:
        view = library.open_live()
        _, vectors = everything(view)
        rng = np.random.default_rng(2)
        for aside in (0.4, 0.8):
            among = unit(vectors[rng.choice(len(vectors), (3, 300))].sum(axis=0))
            said = unit(among + aside * unit(rng.normal(size=among.shape)))
            assert recall(view, said) >= PROMISED_RECALL - 0.005, aside


def test_scores_are_those_of_the_exact_index_bit_for_bit(library: Library) -> None:
    view = library.open_live()
    queries = queries_at(view, 0.9, 5)
    ids, vectors = everything(view)
    exact = faiss.IndexIDMap(
        faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    )
    exact.add_with_ids(vectors, ids)
    truth = [dict(zip(i, s, strict=True)) for s, i in zip(*exact.search(queries, len(ids)), strict=True)]
    for k in (10, 2_000, len(ids) + 1):
        for scores, found, expected in zip(*view.search(queries, k), truth, strict=True):
            assert [expected[i] for i in found] == scores.tolist()
            assert (np.lexsort((found, -scores)) == np.arange(len(found))).all()
    assert sorted(found.tolist()) == sorted(ids.tolist())  # all of them, asked for all


def test_a_video_comes_and_another_goes_without_a_rebuild(library: Library) -> None:
    before = base_files(library)
    first = library.live_generation()
    assert first is not None
    away = library.find_video("7.mp4")
    away_ids = [m.id for m in moments_of(library, away, encoder(library))]
    old = library.open_live()
    mine = dict(zip(*everything(old), strict=True))[away_ids[0]]
    answers = old.search(mine[None], 10)

    assert library.forget([away]) == 1
    fresh = clustered(np.random.default_rng(9))
    record(library, "new", fresh)
    library.publish_update(encoder(library), embed=embed)
    view = library.open_live()
    assert base_files(library) == before
    assert view.generation.count == VIDEOS * EACH == len(view.ids) == len(set(view.ids.tolist()))
    assert library.up_to_date(encoder(library))
    assert not np.isin(away_ids, view.ids).any()
    assert not np.isin(view.search(mine[None], 1_000)[1], away_ids).any()  # all that was nearest is gone
    new = moments_of(library, library.find_video("new.mp4"), encoder(library))
    _, found = view.search(embed(fresh, np.empty(0), new), 1)  # type: ignore[arg-type]
    assert found[:, 0].tolist() == [m.id for m in new]
    for cosine in (0.9, 0.25):
        assert recall(view, queries_at(view, cosine)) >= PROMISED_RECALL - 0.005

    library.publish_update(encoder(library), embed=embed)
    assert library.live_generation() == view.generation  # nothing changed
    kept = library.generations()
    assert len(kept) == 2
    library.forget([library.find_video("8.mp4")])
    library.switch(kept[0].id)  # and taken back
    assert library.open_live().generation == view.generation
    for one, other in zip(answers, old.search(mine[None], 10), strict=True):
        assert one.tobytes() == other.tobytes()  # a view opened before answers as before


def test_equal_scores_come_in_id_order_across_base_and_added(library: Library) -> None:
    vectors = unclustered(np.random.default_rng(3))
    for name in ("same", "same too"):
        record(library, name, np.tile(vectors[:1], (EACH, 1)))
    library.publish_update(encoder(library), embed=embed, carry_over=False)
    assert library.open_live().generation.base is not None
    record(library, "same again", np.tile(vectors[:1], (EACH, 1)))
    library.publish_update(encoder(library), embed=embed)
    view = library.open_live()
    assert len(view.exact.ids) == EACH
    names = ("same.mp4", "same too.mp4", "same again.mp4")
    ids = sorted(m.id for n in names for m in moments_of(library, library.find_video(n), encoder(library)))
    query = unit(vectors[:1])
    for k in (1, 7, 2 * EACH, 3 * EACH):
        scores, found = view.search(query, k)
        assert found[0].tolist() == ids[:k]
        assert (scores == scores[0, 0]).all()
    assert view.search(query, 3 * EACH + 1)[1][0, :-1].tolist() == ids


def test_growing_past_a_share_rebuilds_and_the_old_files_go(library: Library) -> None:
    before = base_files(library)
    for i in range(2):
        record(library, f"more {i}", clustered(np.random.default_rng(20 + i)))
        library.publish_update(encoder(library), embed=embed)
    assert not before & base_files(library)
    assert before <= files(library)  # the generation before is kept, for going back
    record(library, "last", clustered(np.random.default_rng(30)))
    library.publish_update(encoder(library), embed=embed)
    encoder(library)  # the next writer clears what the last one left
    assert not before & files(library)
    report = library.verify()
    assert (report.problems, report.notes) == ((), ())
    assert library.summary().bytes["index"] == sum(
        (library.path / "index" / name).stat().st_size for name in files(library)
    )


@pytest.mark.parametrize("which", ["codes", "rows", "ids", "gone", "added"])
def test_damage_to_any_file_is_found_and_never_served(library: Library, which: str) -> None:
    library.forget([library.find_video("7.mp4")])
    path = part(library, which)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(LibraryError, match=r"search index is damaged .*: run `vsearch verify --repair`"):
        library.open_live()
    assert not library.verify().clean
    path.unlink()
    with pytest.raises(LibraryError, match=r"search index is damaged .*missing"):
        library.open_live()


def test_a_damaged_base_is_rebuilt_from_the_stored_frames(library: Library) -> None:
    library.forget([library.find_video("7.mp4")])
    path = part(library, "rows")
    path.write_bytes(path.read_bytes()[:-1])
    report = library.verify(repair=True, embed=embed)
    assert report.mended
    encoder(library)
    report = library.verify()
    assert (report.problems, report.notes) == ((), ())
    assert not path.exists()
    view = library.open_live()
    assert view.generation.count == (VIDEOS - 1) * EACH
    assert recall(view, queries_at(view, 0.25)) >= PROMISED_RECALL - 0.005


def test_killed_between_the_files_and_the_catalogue_the_old_generation_answers(library: Library) -> None:
    live, before = library.live_generation(), files(library)
    program = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_index_scale as t
        from vsearch.library import Library
        from vsearch.library.index import publish, view
        view.EXACT_VALUES = t.SMALL
        publish._keep = lambda *_: os.kill(os.getpid(), {int(signal.SIGKILL)})
        with Library.open(t.Path({str(library.path)!r})) as library:
            library.publish_update(t.encoder(library), embed=t.embed, carry_over=False)
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert len(files(library) - before) == 4
    assert library.live_generation() == live
    assert library.open_live().generation == live
    assert library.verify().notes == (
        "4 index files that are no generation: `vsearch verify --repair` deletes them",
    )
    library.verify(repair=True)
    assert files(library) == before


def test_no_room_for_a_base_leaves_the_old_generation_answering(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, before = library.live_generation(), files(library)
    replace, done = os.replace, []

    def full(old: str, new: str) -> None:
        done.append(new)
        if len(done) > 1:  # the rows still fit
            raise OSError(28, "No space left on device")
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("vsearch.library.files.os.replace", full)
        with pytest.raises(LibraryError, match="No room is left"):
            library.publish_update(encoder(library), embed=embed, carry_over=False)
    assert len(done) == 2
    assert files(library) == before
    assert library.open_live().generation == live


def test_an_exact_library_of_an_older_vsearch_opens_and_switches_when_it_is_large(
    libraries: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(libraries["unclustered"], tmp_path / "library")
    with monkeypatch.context() as patch:
        patch.setattr("vsearch.library.index.view.EXACT_VALUES", EXACT_VALUES)
        with Library.open(tmp_path / "library") as library:
            library.publish_update(encoder(library), embed=embed, carry_over=False)
            query = queries_at(library.open_live(), 0.3, 20)
            library.publish_update(encoder(library), embed=embed, carry_over=False)
            before = library.open_live().search(query, 10)
            assert library.open_live().base is None
    with sqlite3.connect(tmp_path / "library" / "catalogue.sqlite") as connection:
        connection.execute("DELETE FROM generations WHERE base IS NOT NULL")
        connection.execute("ALTER TABLE generations DROP COLUMN base")
        connection.execute("ALTER TABLE videos DROP COLUMN start_ms")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    connection.close()
    with Library.open(tmp_path / "library") as library:
        for one, other in zip(before, library.open_live().search(query, 10), strict=True):
            assert one.tobytes() == other.tobytes()
        asked, seen = unit(np.random.default_rng(5).normal(size=(3, DIM))), []
        for i, vector in enumerate(asked):
            library.cache_text(encoder(library), f"sentence {i}", vector)
        sample = index_base.sample_queries
        monkeypatch.setattr(
            index_base, "sample_queries", lambda rows, texts: seen.append(texts) or sample(rows, texts)
        )
        library.publish_update(encoder(library))  # carries over what is stored, and is now large
        view = library.open_live()
        assert view.base is not None
        np.testing.assert_array_equal(seen[0], asked)  # sentences asked before help to set the effort
        assert np.isin(before[1], view.search(query, 10)[1]).mean() >= PROMISED_RECALL


def test_effort_is_also_measured_with_queries_among_stored_vectors_and_with_sentences() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(2_000, 512)))
    asked = unit(np.random.default_rng(1).normal(size=(5, 512)))
    kinds = sample_queries(rows, asked)
    np.testing.assert_allclose(kinds[-1], asked, atol=1e-6)
    second, best = zip(
        *(np.median(np.sort(kind @ rows.T)[:, -2:], axis=0) for kind in kinds[:-1]), strict=True
    )
    assert max(best) > 0.85  # some are near one stored vector,
    assert max(second) > 0.45  # some near two; the next best would be at .2 by chance,
    assert min(best) < 0.25  # and some near none
    assert all(np.allclose(np.linalg.norm(kind, axis=1), 1, atol=1e-5) for kind in kinds)


def test_a_query_gets_the_effort_of_the_hardest_kind_that_it_could_be() -> None:
    near, middle = Need(2, 50, 1.0, (0.8, 0.9)), Need(20, 100, 1.0, (0.5, 0.6))
    far = Need(300, 400, 1.0, (0.2, 0.3))
    steps = efforts([middle, far, near])
    assert [(step.above, step.probes, step.candidates) for step in steps] == [
        (0.8, 2, 50),
        (0.5, 20, 100),
        (-2.0, 300, 400),
    ]
    hopeless = Need(0, 0, 1.0, (0.2, 0.85))  # only comparing all finds its answers
    assert [(step.above, step.probes) for step in efforts([near, hopeless])] == [(0.85, 2), (-2.0, 0)]


def test_codes_keep_the_directions_that_hold_the_variance_and_the_order_of_scores() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(4_000, 20)) @ rng.normal(size=(20, DIM)) + 5 * rng.normal(size=DIM)
    for vectors, kept in ((few, 32), (rng.normal(size=(4_000, DIM)), DIM)):
        vectors = vectors.astype(np.float32)
        codes = train_codes(vectors, 8)
        codes.add(vectors[:3_000])
        codes.add(vectors[3_000:])
        assert (codes.count, codes.dim, codes.lists, codes.near(vectors[:1]).shape) == (4_000, DIM, 8, (1,))
        assert codes.kept == kept
        queries = rng.normal(size=(20, DIM)).astype(np.float32)
        _, truth = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
        found = codes.search(queries, 200, 8)
        assert (found[:, :, None] == truth[:, None, :]).any(axis=1).mean() > 0.99


def test_a_base_of_an_older_vsearch_answers_and_gives_way_to_a_new_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(sample: np.ndarray, lists: int) -> Codes:
        index = faiss.index_factory(DIM, f"IVF{lists},PQ{DIM // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.train(sample)
        return Codes(index, np.zeros(DIM, np.float32))

    with monkeypatch.context() as patch:
        patch.setattr(index_base, "train_codes", plain)
        library.publish_update(encoder(library), embed=embed, carry_over=False)
    before = base_files(library)
    assert not isinstance(stored_codes(library), faiss.IndexPreTransform)
    record(library, "new", clustered(np.random.default_rng(9)))
    library.publish_update(encoder(library), embed=embed)
    view = library.open_live()
    assert view.base is not None
    assert base_files(library) == before  # an update keeps it
    for cosine in (0.9, 0.25):
        assert recall(view, queries_at(view, cosine)) >= PROMISED_RECALL - 0.005
    library.publish_update(encoder(library), embed=embed, carry_over=False)
    assert isinstance(stored_codes(library), faiss.IndexPreTransform)


def test_building_on_a_gpu_gives_the_same_index(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for FAISS's GPU build: where it is asked for, and that what goes back and forth fits."""
    moved = []

    def to_gpu(index: faiss.Index) -> faiss.Index:
        moved.append((type(index).__name__, index.ntotal))
        return faiss.clone_index(index)

    def knn(resources: object, *arguments: object, **named: object) -> object:
        return faiss.knn(*arguments, **named)

    before = library.open_live()
    assert before.base is not None
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "StandardGpuResources", object, raising=False)
        patch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
        patch.setattr(faiss, "index_cpu_to_all_gpus", to_gpu, raising=False)
        patch.setattr(faiss, "knn_gpu", knn, raising=False)
        library.publish_update(encoder(library), embed=embed, carry_over=False)
    after = library.open_live()
    assert after.base is not None
    assert moved[0][1] == 0  # k-means
    assert moved[1][1] == round(index_base.LISTS * len(before.base.all_ids) ** 0.5)  # assignment
    assert after.base.base.effort == before.base.base.effort
    queries = queries_at(before, 0.3, 10)
    for one, other in zip(before.search(queries, 10), after.search(queries, 10), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("part", ["codes", "rows", "ids"])
def test_an_indexing_run_sees_a_damaged_base_and_rebuilds_it(
    libraries: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr("vsearch.library.index.view.EXACT_VALUES", SMALL)
    monkeypatch.setattr(
        "vsearch.library.index.parts._WHOLE", 0
    )  # only samples are looked at when it is opened
    shutil.copytree(libraries["clustered"], tmp_path / "library")
    with Library.open(tmp_path / "library") as library:
        generation = library.live_generation()
        assert generation is not None
        assert generation.base is not None
        path = library.path / "index" / getattr(generation.base, part).file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
        assert not library.up_to_date(generation.encoder_id)
        assert library.publish_update(generation.encoder_id, embed=embed).count == generation.count
        assert library.up_to_date(generation.encoder_id)
