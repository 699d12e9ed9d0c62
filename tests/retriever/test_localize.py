"""Detections, classification and moments, on made-up frames and through the command line."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media import write_video
from vsearch.errors import VsearchError
from vsearch.library import Library
from vsearch.models import ZeroShotHead
from vsearch.models.training import AnnotatedVideo, Segment
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever.actions import Detection, Limits, annotated_frames, classify
from vsearch.retriever.actions import videos as actions
from vsearch.retriever.actions.localize import (
    DEFAULT_LIMITS,
    Background,
    apart,
    background_from,
    localize,
    soft_nms,
)
from vsearch.retriever.actions.proposals import Timeline, propose

DIM = 24
NAMES = ["archery", "surfing", "piano"]
TEXTS = np.eye(DIM, dtype=np.float32)[:3]
BACKGROUND = Background(np.zeros(3, np.float32), np.full(3, 0.2, np.float32))


def frames(*scenes: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noisy frames of (direction, count) scenes."""
    kinds = np.concatenate([[kind] * count for kind, count in scenes])
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(kinds), DIM))
    return (6 * (np.eye(DIM)[kinds] + noise)).astype(np.float32)


def timeline(*scenes: tuple[int, int]) -> Timeline:
    vectors = frames(*scenes)
    return Timeline.of(vectors, np.arange(len(vectors), dtype=np.int64) * 500, 500 * len(vectors))


def found_in(*scenes: tuple[int, int], limits: Limits = DEFAULT_LIMITS) -> list[Detection]:
    line = timeline(*scenes)
    return localize(line, propose(line), NAMES, TEXTS, BACKGROUND, limits)


def test_each_action_is_found_where_it_is() -> None:
    found = found_in((9, 20), (0, 16), (8, 30), (1, 20), (0, 12), (7, 20))
    best = {(d.label, d.start_ms, d.end_ms) for d in found[:3]}
    assert best == {("archery", 9750, 17_750), ("surfing", 32_750, 42_750), ("archery", 42_750, 48_750)}
    assert all(d.label != "piano" for d in found)


def test_footage_without_the_actions_gives_nothing() -> None:
    assert found_in((9, 20), (8, 20), (7, 20)) == []


def test_a_video_that_is_one_action_throughout_is_found_whole() -> None:
    found = found_in((1, 30))
    assert (found[0].label, found[0].start_ms, found[0].end_ms) == ("surfing", 0, 15_000)


def test_two_actions_at_once_are_both_found() -> None:
    both = np.concatenate([frames((9, 20)), frames((0, 16)) + frames((1, 16), seed=1), frames((8, 20))])
    line = Timeline.of(both, np.arange(len(both), dtype=np.int64) * 500, 500 * len(both))
    found = localize(line, propose(line), NAMES, TEXTS, BACKGROUND)
    spans = {d.label: (d.start_ms, d.end_ms) for d in reversed(found)}
    assert spans == {"archery": (9750, 17_750), "surfing": (9750, 17_750)}


def test_intervals_of_one_name_neither_overlap_nor_touch() -> None:
    # Shots of one action that differ, as a camera moves: proposals are nested.
    shots = np.concatenate([frames((0, 12)) + frames((kind, 12), seed=kind) for kind in (10, 11, 12)])
    scene = np.concatenate([frames((9, 20)), shots, frames((8, 20))])
    line = Timeline.of(scene, np.arange(len(scene), dtype=np.int64) * 500, 500 * len(scene))
    everything = localize(line, propose(line), NAMES, TEXTS, BACKGROUND, Limits(overlapping=True))
    inside = [d for d in everything if d.label == "archery"]
    assert any(a.start_ms < b.end_ms and b.start_ms < a.end_ms for a in inside for b in inside if a != b)
    (whole,) = localize(line, propose(line), NAMES, TEXTS, BACKGROUND)
    assert (whole.label, whole.start_ms, whole.end_ms) == ("archery", 9750, 27_750)


def test_intervals_that_touch_become_one_or_the_better() -> None:
    bounds = np.array([[0, 10], [10, 20], [30, 40], [40, 50], [2, 8], [60, 70], [71, 80]])
    scores = np.array([0.8, 0.7, 0.6, 0.9, 0.75, 0.55, 0.65], np.float32)
    assert [(start, end) for start, end, _ in apart(bounds, scores)] == [
        (40, 50),
        (0, 20),
        (71, 80),
        (60, 70),
    ]
    assert [score for _, _, score in apart(bounds, scores)] == pytest.approx([0.9, 0.8, 0.65, 0.55])


INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 20), st.floats(0, 1, width=32)), max_size=12
)


@given(INTERVALS)
def test_whatever_is_proposed_lies_apart_in_the_end(found: list[tuple[int, int, float]]) -> None:
    bounds = np.array([(start, start + length) for start, length, _ in found], np.int64).reshape(-1, 2)
    scores = np.array([score for *_, score in found], np.float32)
    kept = sorted(apart(bounds, scores))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(kept))
    assert bool(kept) == bool(found)
    if found:
        assert max(score for *_, score in kept) == pytest.approx(float(scores.max()))


def test_limits_hold() -> None:
    scenes = [(kind, 10) for kind in (0, 9, 0, 8, 0, 7, 1, 9, 1)]
    assert len(found_in(*scenes)) >= 5
    few = found_in(*scenes, limits=Limits(per_class=2, per_video=3))
    assert len(few) == 3
    assert max(sum(d.label == name for d in few) for name in NAMES) <= 2
    assert all(d.score >= 0.9 for d in found_in(*scenes, limits=Limits(least_score=0.9)))


def test_no_names_or_no_frames_give_nothing() -> None:
    line = timeline((0, 5))
    assert localize(line, propose(line), [], TEXTS[:0], BACKGROUND) == []
    none = Timeline.of(np.zeros((0, DIM)), np.zeros(0, np.int64), 0)
    assert localize(none, propose(none), NAMES, TEXTS, BACKGROUND) == []


def test_soft_nms_weakens_neighbours_and_leaves_others() -> None:
    bounds = np.array([[0, 10], [0, 10], [5, 15], [50, 60]])
    kept, scores = soft_nms(bounds, np.array([0.9, 0.8, 0.8, 0.7], np.float32), 0.0, 10)
    assert kept[:2] == [0, 3]
    assert scores[:2] == pytest.approx([0.9, 0.7])
    by_index = dict(zip(kept, scores, strict=True))
    assert by_index[2] == pytest.approx(0.8 * np.exp(-((1 / 3) ** 2) / 0.3), rel=1e-5)
    assert by_index[1] < 0.1
    assert soft_nms(bounds, np.array([0.9, 0.8, 0.8, 0.7], np.float32), 0.5, 10)[0] == [0, 3, 2]


def test_background_does_not_mind_a_few_scenes_that_show_the_action() -> None:
    rng = np.random.default_rng(0)
    footage = rng.normal(size=(400, DIM)).astype(np.float32)
    footage /= np.linalg.norm(footage, axis=1, keepdims=True)
    plain = background_from(footage, TEXTS)
    mixed = background_from(np.concatenate([footage, np.repeat(TEXTS[:1], 40, axis=0)]), TEXTS)
    assert mixed.middle == pytest.approx(plain.middle, abs=0.05)
    assert mixed.deviation == pytest.approx(plain.deviation, rel=0.2)


# With a library


def add_video(library: Library, file: Path, vectors: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(file.name.encode())
    times = np.arange(len(vectors), dtype=np.int64) * 500
    head = ZeroShotHead()
    encoder = library.register_encoder("enc", "bb", head.identity, {"model": "made-up", "head": head.spec()})
    recorded = library.record_indexed(
        files=[FoundFile(file, file.stat().st_size, file.stat().st_mtime_ns)],
        fingerprint=str(file),
        media=MediaInfo("mp4", "h264", 64, 64, 0, 500 * len(vectors), 25.0),
        covered_ms=500 * len(vectors),
        frames=library.frame_store.put(str(file), "bb", 2.0, vectors, times),
        encoder_id=encoder,
        moments=[NewMoment(0, 500 * len(vectors), 0, len(vectors))],
    )
    mean = vectors.mean(axis=0, keepdims=True)
    unit = (mean / np.linalg.norm(mean)).astype(np.float32)
    library.publish_update(encoder, [(np.asarray(recorded.moment_ids), unit)])


@pytest.fixture
def library(tmp_path: Path):
    with Library.open(tmp_path / "library", create=True) as opened:
        add_video(opened, tmp_path / "show.mp4", frames((9, 20), (0, 16), (8, 20), (1, 12), (7, 20)))
        add_video(opened, tmp_path / "other.mp4", frames(*((kind, 12) for kind in range(3, 20)), seed=3))
        encoder = opened.live_encoder()
        assert encoder is not None
        for name, text in zip(NAMES, TEXTS, strict=True):
            key = actions.cache_key(actions.TEMPLATES, name)
            opened.cache_text(encoder.id, key, np.tile(text, len(actions.TEMPLATES)))
        opened.cache_text(encoder.id, "a wave is ridden", TEXTS[1])
        yield opened


def test_a_library_is_localized_from_stored_frames_alone(library: Library) -> None:
    found = actions.localize_videos(library, library.videos(), NAMES)
    by_name = {video.path.name: detections for video, detections in found.items()}
    assert {(d.label, d.start_ms, d.end_ms) for d in by_name["show.mp4"][:2]} == {
        ("archery", 9750, 17_750),
        ("surfing", 27_750, 33_750),
    }
    assert by_name["other.mp4"] == []
    assert found == actions.localize_videos(library, library.videos(), NAMES)


def test_a_head_with_a_space_of_its_own_gives_dense_features(library: Library) -> None:
    before = actions.timeline_of(library, library.find_video("show.mp4"))
    encoder = library.live_encoder()
    assert encoder is not None
    with contextlib.closing(sqlite3.connect(library.path / "catalogue.sqlite")) as catalogue:
        catalogue.execute(
            "UPDATE encoders SET head = 'own space'"
        )  # the plain head's name holds its description
        catalogue.commit()
    own_space = {**encoder.spec, "head": {**encoder.spec["head"], "frame_space": False}}
    library.register_encoder(encoder.identity, encoder.backbone, encoder.head, own_space)
    dense = actions.dense_timeline_of(library, library.find_video("show.mp4"))
    assert (dense.edges_ms == before.edges_ms).all()
    window = before.unit[26:35].mean(axis=0)  # two seconds each way
    assert dense.unit[30] == pytest.approx(window / np.linalg.norm(window), abs=1e-5)
    found = actions.localize_videos(library, [library.find_video("show.mp4")], NAMES)
    (detections,) = found.values()
    assert {(d.label, d.start_ms, d.end_ms) for d in detections[:2]} == {
        ("archery", 9750, 17_750),
        ("surfing", 27_750, 33_750),
    }


def test_a_sentence_is_found_as_intervals_of_one_video(library: Library) -> None:
    answer = actions.search_in(library, library.find_video("show.mp4"), " a wave\tis ridden ", number=3)
    assert (answer.hits[0].rank, answer.hits[0].start_ms, answer.hits[0].end_ms) == (1, 27_750, 33_750)
    strict = actions.search_in(library, library.find_video("show.mp4"), "a wave is ridden", threshold=0.8)
    assert len(strict.hits) == 1
    with pytest.raises(VsearchError, match="empty"):
        actions.search_in(library, library.find_video("show.mp4"), " ")


def test_annotated_videos_of_the_library_are_found_by_id(library: Library) -> None:
    segments = (Segment("v_show", 9.75, 17.75, "archery"), Segment("v_show", 27.75, 33.75, "surfing"))
    annotated = [AnnotatedVideo("v_show", 44.0, "", segments), AnnotatedVideo("absent", 9.0, "", ())]
    (video,) = annotated_frames(library, annotated)
    assert video.instances.tolist() == [[20, 36], [56, 68]]
    assert video.vectors.shape == (88, DIM)


def test_clips_are_classified_by_name(library: Library, tmp_path: Path) -> None:
    add_video(library, tmp_path / "surf.mp4", frames((1, 8)))
    video = library.find_video("surf.mp4")
    guesses = classify.classify(library, [video], NAMES, number=2)[video]
    assert guesses[0].label == "surfing"
    assert guesses[0].probability > 0.9
    assert len(guesses) == 2
    assert sum(g.probability for g in classify.classify(library, [video], NAMES)[video]) == pytest.approx(1)


def test_examples_become_a_vocabulary_that_is_kept(library: Library, tmp_path: Path) -> None:
    labels = {"jump": 4, "spin": 5, "roll": 6}
    for label, kind in labels.items():
        for i in range(4):
            add_video(library, tmp_path / f"{label}{i}.mp4", frames((kind, 6), seed=i))
    clips = {label: [library.find_video(f"{label}{i}.mp4") for i in range(3)] for label in labels}
    learned = classify.learn(library, clips)
    assert (learned.names, learned.accuracy, learned.examples) == (("jump", "spin", "roll"), 1.0, 9)
    classify.save(library, "tricks", learned)
    again = classify.load(library, "tricks")
    assert again is not None
    assert (again.vectors == learned.vectors).all()
    unseen = library.find_video("spin3.mp4")
    guesses = classify.classify(library, [unseen], [], learned=again)[unseen]
    assert guesses[0].label == "spin"
    assert guesses[0].probability > 0.5
    other = library.find_video("other.mp4")
    found = actions.localize_videos(
        library, [other], again.names, limits=Limits(least_score=0), learned=again
    )
    best = {d.label: (d.start_ms, d.end_ms) for d in reversed(found[other])}
    assert best == {"jump": (5750, 11_750), "spin": (11_750, 17_750), "roll": (17_750, 23_750)}
    assert classify.load(library, "../tricks") is None
    with pytest.raises(VsearchError, match="no name"):
        classify.save(library, "../x", learned)
    with pytest.raises(VsearchError, match="two labels"):
        classify.learn(library, {"jump": clips["jump"]})


def test_leaving_out_is_honest_about_chance() -> None:
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(60, DIM)).astype(np.float32)
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    _, accuracy = classify.leave_one_out(clips, np.repeat(np.arange(4), 15), 4)
    assert accuracy < 0.45
    _, lonely = classify.leave_one_out(clips[:3], np.array([0, 1, 1]), 2)
    assert lonely <= 2 / 3  # the only clip of its class cannot be found without itself


def test_names_come_from_lists_files_and_data_sets(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# sports\narchery\n\nplaying piano\narchery\n")
    assert actions.parse_actions(str(names)) == ["archery", "playing piano"]
    assert actions.parse_actions(" archery ,playing  piano, ") == ["archery", "playing piano"]
    counts = {name: len(set(labels)) for name, labels in actions.vocabularies().items()}
    assert counts == {"ucf101": 101, "kinetics400": 400, "hmdb51": 51, "thumos14": 20, "activitynet200": 200}
    assert "apply eye makeup" in actions.vocabulary("ucf101")
    for wrong, text in (
        ((None, None), "either"),
        ((" , ", None), "no action names"),
        ((None, "x"), "no vocabulary"),
    ):
        with pytest.raises(VsearchError, match=text):
            actions.named_actions(*wrong)


# The command line


@pytest.mark.slow
def test_localize_and_classify_as_a_user_runs_them(tmp_path: Path, tiny_model: Path, vsearch) -> None:
    folder = tmp_path / "clips"
    for label in ("one", "two"):
        (folder / label).mkdir(parents=True)
        for i in range(2):
            write_video(folder / label / f"{i}.mp4", frames=20 + 5 * i + 20 * (label == "two"))
    assert vsearch("index", folder, "--model", tiny_model).returncode == 0
    clip = folder / "one" / "0.mp4"
    done = vsearch(
        "localize", clip, "--actions", "archery, surfing", "--threshold", "0", "--format", "activitynet"
    )
    assert done.returncode == 0, done.stderr
    (entries,) = json.loads(done.stdout)["results"].values()
    assert {entry["label"] for entry in entries} == {"archery", "surfing"}
    longest = [
        "localize",
        folder / "two" / "1.mp4",
        "--actions",
        "archery",
        "--threshold",
        0,
        "--format",
        "csv",
    ]
    assert vsearch(*longest).stdout.count("archery") < vsearch(*longest, "--all").stdout.count("archery")
    done = vsearch("localize", clip, "--actions", "archery", "--threshold", "0", "--format", "srt")
    assert done.stdout.startswith("1\n00:00"), done.stderr
    assert "█" in vsearch("localize", "--vocabulary", "thumos14", "--threshold", "0").stdout
    done = vsearch("classify", clip, "--examples", folder, "--save", "mine", "-n", "1")
    assert "examples found when left out" in done.stderr
    again = vsearch("classify", clip, "--vocabulary", "mine", "-n", "1", "--json")
    (result,) = json.loads(again.stdout)["results"]
    assert result["labels"][0]["label"] in done.stdout
