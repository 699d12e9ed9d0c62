"""Search over a real library (SQLite, frame files, FAISS) whose vectors are known, with a cached query vector."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.words import give_words
from vsearch.errors import LibraryError, VsearchError
from vsearch.library import Library
from vsearch.library.catalogue import open_reading
from vsearch.library.chance import neutral_file
from vsearch.models import ZeroShotHead, plan_windows
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever.searching import search, search_similar

DIM = 16
QUERY = np.eye(DIM, dtype=np.float32)[0]
OTHER = np.eye(DIM, dtype=np.float32)[1]
HEAD = ZeroShotHead()


def add_video(library: Library, file: Path, concepts: list[int], content: str | None = None) -> None:
    """A video of 2 frames a second whose t-th second shows the concept `concepts[t]` (an axis)."""
    file.write_bytes((content or file.name).encode())
    times = np.arange(2 * len(concepts), dtype=np.int64) * 500
    rng = np.random.default_rng(len(concepts))
    frames = 9 * np.eye(DIM, dtype=np.float32)[np.repeat(concepts, 2)] + rng.normal(0, 0.3, (len(times), DIM))
    duration = 1000 * len(concepts)
    windows = plan_windows(times, duration, HEAD.window_s, HEAD.overlap)
    encoder = library.register_encoder("enc", "bb", HEAD.identity, {"model": "made-up", "head": HEAD.spec()})
    recorded = library.record_indexed(
        files=[FoundFile(file, file.stat().st_size, file.stat().st_mtime_ns)],
        fingerprint=content or file.name,
        media=MediaInfo("mp4", "h264", 64, 64, 0, duration, 25.0),
        covered_ms=duration,
        frames=library.frame_store.put(content or file.name, "bb", 2.0, frames, times),
        encoder_id=encoder,
        moments=[NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows],
    )
    vectors = HEAD.embed_windows(frames, times, windows)
    library.publish_update(encoder, [(np.asarray(recorded.moment_ids), vectors)])
    library.cache_text(encoder, "the thing", QUERY)


@pytest.fixture
def library(tmp_path: Path):
    with Library.open(tmp_path / "library", create=True) as opened:
        add_video(opened, tmp_path / "early.mp4", [0] * 6 + [2] * 34)
        add_video(opened, tmp_path / "late.mp4", [3] * 30 + [0] * 12)
        add_video(opened, tmp_path / "none.mp4", [4] * 20)
        yield opened


def test_the_right_moment_of_the_right_video_comes_first(library: Library) -> None:
    hits = search(library, "the thing").hits
    assert [Path(h.path).name for h in hits[:2]] in (["early.mp4", "late.mp4"], ["late.mp4", "early.mp4"])
    by_name = {Path(h.path).name: h for h in hits}
    assert (by_name["early.mp4"].start_ms, by_name["early.mp4"].end_ms) == (0, 6_500)
    assert (by_name["late.mp4"].start_ms, by_name["late.mp4"].end_ms) == (29_500, 42_000)
    assert by_name["late.mp4"].score > 0.9 > by_name["none.mp4"].score


def test_a_brief_event_is_found_by_reranking_with_frames(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "brief.mp4", [5] * 10 + [0] + [5] * 9)  # one second in twenty
    hit = next(h for h in search(library, "the thing").hits if h.path.endswith("brief.mp4"))
    assert 9_000 <= hit.start_ms <= 10_000 < hit.end_ms <= 12_000
    assert hit.score > 0.6  # the mean over an 8 s window would give 0.14


def test_copies_are_one_answer_and_are_named(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "a.mp4", [0] * 4, content="same")
    add_video(library, tmp_path / "b.mp4", [0] * 4, content="same")
    hits = [h for h in search(library, "the thing").hits if Path(h.path).name in ("a.mp4", "b.mp4")]
    assert [(Path(h.path).name, [Path(p).name for p in h.also_at]) for h in hits] == [("a.mp4", ["b.mp4"])]


def test_threshold_number_and_repeatability(library: Library) -> None:
    assert len(search(library, "the thing", number=1).hits) == 1
    assert all(h.score >= 0.5 for h in search(library, "the thing", threshold=0.5).hits)
    assert search(library, "the thing", threshold=2.0).hits == ()
    assert search(library, "  the\tthing ") == search(library, "the thing")


def test_similar_leaves_out_the_place_itself(library: Library) -> None:
    answer = search_similar(library, library.find_video("early.mp4"), 2_000)
    first = answer.hits[0]
    assert Path(first.path).name == "late.mp4"
    assert first.start_ms >= 28_000
    assert all(h.strength is None for h in answer.hits)
    with pytest.raises(VsearchError, match="ends before"):
        search_similar(library, library.find_video("early.mp4"), 10_000_000)


def test_words_and_confidence_follow_what_chance_scores_here(library: Library) -> None:
    live = library.live_encoder()
    assert live is not None
    library.cache_text(live.id, "nowhere", -QUERY)
    assert search(library, "nowhere").confident  # nothing is known to judge by
    give_words(library)
    answer = search(library, "the thing")
    words = [hit.strength for hit in answer.hits]
    assert answer.confident
    assert words[0] in ("likely", "strong")
    assert words[-1] == "unlikely"
    probabilities = [hit.probability for hit in answer.hits]
    assert all(p is not None and 0 <= p <= 1 for p in probabilities)
    assert probabilities[0] > 0.6 > probabilities[-1]
    nowhere = search(library, "nowhere")
    assert not nowhere.confident
    assert len(nowhere.hits) == 3


def test_least_leaves_out_what_is_less(library: Library) -> None:
    give_words(library)
    every = search(library, "the thing").hits
    likely = search(library, "the thing", least="likely").hits
    assert [h.path for h in likely] == [h.path for h in every if h.strength in ("likely", "strong")]
    assert 0 < len(likely) < len(every)
    assert [h.rank for h in likely] == list(range(1, len(likely) + 1))
    with pytest.raises(VsearchError, match="no match called 'sure'"):
        search(library, "the thing", least="sure")


def test_damaged_scores_give_no_words_and_are_mended(library: Library) -> None:
    give_words(library)
    live = library.live_encoder()
    assert live is not None
    file = neutral_file(library.path, live.identity)
    whole = file.read_bytes()
    file.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    answer = search(library, "the thing")
    assert {hit.strength for hit in answer.hits} == {None}
    assert any("how likely an answer is" in what for what in library.damaged)
    assert ["how likely" in p.what for p in library.verify().problems] == [True]
    library.verify(repair=True)
    assert not file.exists()
    assert library.verify().clean


def test_empty_query_and_empty_library_are_refused_in_words(library: Library, tmp_path: Path) -> None:
    with pytest.raises(VsearchError, match="empty"):
        search(library, "  ")
    with (
        Library.open(tmp_path / "new", create=True) as fresh,
        pytest.raises(LibraryError, match="vsearch index"),
    ):
        search(fresh, "the thing")


def test_a_cached_query_needs_no_model(library: Library) -> None:
    give_words(library)
    code = (
        "import sys\n"
        f"sys.argv = ['vsearch', 'query', 'the thing', '--jsonl', '--library', {str(library.path)!r}]\n"
        "from vsearch.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print([m for m in 'torch open_clip gradio'.split() if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    first = json.loads(done.stdout.splitlines()[0])
    assert {"rank", "path", "start", "end", "score"} <= first.keys()
    assert first["rank"] == 1


def test_every_moment_shown_holds_the_threshold(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "mixed.mp4", [0] * 4 + [6] * 8 + [0, 6, 0, 6] + [6] * 8 + [0] * 3)
    scores = sorted(
        m.score for h in search(library, "the thing", number=50).hits for m in (*h.more, h) if h.path
    )
    for threshold in scores:
        hits = search(library, "the thing", threshold=threshold, number=50).hits
        assert all(m.score >= threshold for hit in hits for m in (hit, *hit.more)), threshold


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused(library: Library, threshold: float) -> None:
    with pytest.raises(VsearchError, match="number"):
        search(library, "the thing", threshold=threshold)


def test_similar_of_a_copy_does_not_find_itself(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "a.mp4", [7] * 4, content="same")
    add_video(library, tmp_path / "b.mp4", [7] * 4, content="same")
    for name in ("a.mp4", "b.mp4"):
        hits = search_similar(library, library.find_video(name), 1_000).hits
        assert not {"a.mp4", "b.mp4"} & {Path(h.path).name for h in hits}


def test_an_answer_names_a_file_that_is_there_or_says_that_none_is(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "a.mp4", [0] * 4, content="same")
    add_video(library, tmp_path / "b.mp4", [0] * 4, content="same")

    def shown() -> tuple[str, int, bool]:
        (hit,) = (h for h in search(library, "the thing").hits if Path(h.path).name in ("a.mp4", "b.mp4"))
        return Path(hit.path).name, len(hit.also_at), hit.gone

    assert shown() == ("a.mp4", 1, False)
    (tmp_path / "a.mp4").unlink()
    assert shown() == ("b.mp4", 0, False)
    (tmp_path / "b.mp4").unlink()
    assert shown()[2]


def test_a_sentence_in_bytes_that_the_terminal_did_not_know_is_read_or_refused(library: Library) -> None:
    assert search(library, "the\udce2\udc80\udc83thing").query == "the thing"  # an em space, as bytes
    with pytest.raises(VsearchError, match="UTF-8"):
        search(library, "the \udcff")


def test_a_question_is_one_transaction_of_few_statements(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: object, **options: object) -> sqlite3.Connection:
        connection = connect(*arguments, **options)  # type: ignore[call-overload]
        connection.set_trace_callback(asked.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    with open_reading(library.path) as reader:
        asked.clear()
        assert search(reader, "the thing").hits
    assert asked.count("BEGIN") == 1
    assert asked.count("COMMIT") == 1
    assert len(asked) <= 12, asked


def test_a_question_that_falls_between_two_states_is_asked_again(library: Library, tmp_path: Path) -> None:
    with open_reading(library.path) as reader:
        seen = []

        def question() -> object:
            seen.append(reader.live_generation())
            if len(seen) == 1:
                add_video(library, tmp_path / "new.mp4", [0] * 8)  # published while the question is asked
                assert reader.live_generation() == seen[0]
                raise LibraryError("the file of that generation is gone")
            return reader.live_generation()

        assert reader.of_one_state(question) == library.live_generation()
        assert len(seen) == 2
