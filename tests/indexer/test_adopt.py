"""Adopting a trained head: from stored frames alone, all or nothing, and taken back bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Vsearch
from tests.moments import moments_of
from tests.shapes import DIRECTIONS, clip
from tests.towers import write_model
from vsearch.errors import LibraryError, ModelError
from vsearch.indexer import rollback
from vsearch.indexer.adopt import adopt
from vsearch.indexer.upkeep import embedder, register
from vsearch.library import Library
from vsearch.models import Encoder, Window, ZeroShotHead, load_backbone, load_encoder, plan_windows
from vsearch.models.recipes import CARD, WEIGHTS, VideoText, load_frame_side, load_recipe, trained_encoder
from vsearch.models.recipes.checkpoint import save
from vsearch.models.recipes.trained_head import load_trained_head
from vsearch.models.training import pick
from vsearch.models.training.samples import pad
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever.actions import localize_videos, search_in
from vsearch.retriever.actions.classify import classify
from vsearch.retriever.searching import search, search_similar

QUERY = "a square moves from left to right"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("adopt") / "model")


def checkpoint(folder: Path, model: Path, recipe: str, *, frozen: bool = True, seed: int = 0) -> Path:
    """What a training would leave, with weights that are random instead of learned."""
    backbone = load_backbone(str(model), "cpu")
    chosen = load_recipe(recipe).on_frozen_frames() if frozen else load_recipe(recipe)
    if chosen.temporal.from_text:  # the model's text tower has three layers
        chosen = replace(chosen, temporal=replace(chosen.temporal, layers=2))
    trained = VideoText(chosen, backbone)
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, parameter in trained.trained():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save(folder, trained, backbone, {"name": "made up"}, {}, seed)
    return folder


def fill(library: Library, model: Path, videos: int, frames: int = 40) -> None:
    """Videos that no longer exist, with recorded frame vectors of 2 frames a second."""
    encoder = Encoder(load_backbone(str(model), "cpu"), ZeroShotHead())
    encoder_id = register(library, encoder)
    times, length = np.arange(frames, dtype=np.int64) * 500, frames * 500
    windows = plan_windows(times, length, encoder.head.window_s, encoder.head.overlap)
    with library.writing():
        for i in range(videos):
            content = f"content {i}"
            rng = np.random.default_rng(3 if i == 11 else i)  # number 11 looks like number 3
            vectors = rng.normal(0, 1, (1, 32)) + rng.normal(0, 0.5, (frames, 32))
            library.record_indexed(
                files=[FoundFile(library.path.parent / "gone" / f"{i}.mp4", 1, 1)],
                fingerprint=content,
                media=MediaInfo("mp4", "h264", 64, 64, 0, length, 25.0),
                covered_ms=length,
                frames=library.frame_store.put(content, encoder.backbone.identity, 2.0, vectors, times),
                encoder_id=encoder_id,
                moments=[NewMoment(w.start_ms, w.end_ms, w.first_frame, w.last_frame) for w in windows],
            )
        library.publish_update(encoder_id, embed=embedder(library, encoder_id))


@pytest.fixture
def library(tmp_path: Path, model: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", create=True) as opened:
        fill(opened, model, 12)
        yield opened


_started: list[str] = []
_watching = False


def _watch(event: str, arguments: object) -> None:
    if _watching and event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"):
        _started.append(event)


@pytest.fixture
def processes() -> Iterator[list[str]]:
    """Every process that this one starts; decoders are processes."""
    global _watching
    if not _started and not _watching:
        sys.addaudithook(_watch)  # cannot be taken back, so it is told when to listen
    _started.clear()
    _watching = True
    yield _started
    _watching = False


def index_bytes(library: Library) -> bytes:
    live = library.live_generation()
    assert live is not None
    return (library.path / "index" / live.file).read_bytes()


def test_two_hundred_videos_change_heads_without_a_decoder_and_back_bit_for_bit(
    tmp_path: Path, model: Path, processes: list[str]
) -> None:
    run = checkpoint(tmp_path / "run", model, "efficient-prompt")
    with Library.open(tmp_path / "library", create=True) as library:
        fill(library, model, 200)
        before, old = search(library, QUERY), index_bytes(library)
        reports = []
        done = adopt(library, run, reports.append)
        assert (done.changed, done.moments) == (True, library.summary().moment_count)
        assert done.moments >= 200
        assert reports[-1].videos_done == reports[-1].videos == 200
        after = search(library, QUERY)
        assert [h.path for h in after.hits] != [h.path for h in before.hits]
        assert library.live_encoder().spec["head"]["recipe"] == "efficient-prompt"  # type: ignore[union-attr]
        assert library.verify().clean
        back = rollback(library)
        assert back.head == done.former
        assert search(library, QUERY) == before
        assert index_bytes(library) == old
    assert processes == []


def test_a_library_keeps_its_head_when_the_checkpoint_is_gone_and_it_has_moved(
    tmp_path: Path, model: Path
) -> None:
    run = checkpoint(tmp_path / "run", model, "actionclip")
    with Library.open(tmp_path / "library", create=True) as library:
        fill(library, model, 4)
        adopt(library, run)
        before = search(library, QUERY)
    shutil.rmtree(run)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "library").rename(tmp_path / "elsewhere" / "library")
    with Library.open(tmp_path / "elsewhere" / "library") as library:
        new = search(library, "never asked before")
        assert len(new.hits) == 4
        assert [h.score for h in search(library, QUERY).hits] == [h.score for h in before.hits]
        encoder = load_encoder(library.live_encoder().spec)  # type: ignore[union-attr]
        assert encoder.identity == library.live_encoder().identity  # type: ignore[union-attr]


def test_a_damaged_head_is_noticed_by_queries_and_by_verify(
    library: Library, tmp_path: Path, model: Path
) -> None:
    adopt(library, checkpoint(tmp_path / "run", model, "efficient-prompt"))
    head = Path(library.live_encoder().spec["head"]["checkpoint"])  # type: ignore[union-attr]
    assert library.path in head.parents
    assert library.verify().clean
    card = json.loads((head / CARD).read_text())
    card["recipe"]["frames"] += 1
    (head / CARD).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="but this library was indexed with"):
        search(library, "something new")
    (problem,) = library.verify().problems
    assert "vsearch adopt --rollback" in problem.what
    (head / WEIGHTS).unlink()
    assert not library.verify().clean
    rollback(library)
    assert search(library, "something new").hits


def test_every_question_works_with_a_head_that_looks_at_order(
    library: Library, tmp_path: Path, model: Path
) -> None:
    adopt(library, checkpoint(tmp_path / "run", model, "actionclip"))
    video = library.videos()[0]
    assert search(library, QUERY).hits[0].strength is not None  # measured for it anew
    similar = search_similar(library, video, 6000)
    assert len(similar.hits) > 1
    assert search_in(library, video, QUERY).hits
    assert localize_videos(library, [video], ["jump", "run"]).keys() == {video}
    guesses = classify(library, [video], ["jump", "run"])[video]
    assert sum(g.probability for g in guesses) == pytest.approx(1, abs=1e-3)


def test_similar_asks_in_the_space_of_the_head(library: Library, tmp_path: Path, model: Path) -> None:
    """The look of a time is embedded as moments are, so the video that looks the same has it, too, and exactly."""
    adopt(library, checkpoint(tmp_path / "run", model, "efficient-prompt"))
    video = library.find_video("gone/3.mp4")
    moment = moments_of(library, video, library.live_encoder().id)[1]  # type: ignore[union-attr]
    best = search_similar(library, video, (moment.start_ms + moment.end_ms) // 2).hits[0]
    assert Path(best.path).name == "11.mp4"
    assert best.start_ms <= moment.start_ms < moment.end_ms <= best.end_ms  # overlapping moments are one hit
    assert best.score == pytest.approx(1, abs=5e-3)


RECIPES = ["clip4clip", "clip4clip-seqlstm", "clip4clip-seqtransf", "actionclip", "efficient-prompt"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_moments_need_no_weights_of_the_model_and_are_those_of_the_whole_head(
    recipe: str, tmp_path: Path, model: Path
) -> None:
    run = checkpoint(tmp_path / "run", model, recipe)
    frames = np.random.default_rng(0).normal(0, 1, (40, 32)).astype(np.float16)
    times = np.arange(40, dtype=np.int64) * 500
    windows = plan_windows(times, 20_000, 8.0, 0.5)
    whole = load_trained_head(run, load_backbone(str(model), "cpu"))
    bare = shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    alone = load_frame_side(run, str(bare), "cpu")
    expected = whole.embed_windows(frames, times, windows)
    np.testing.assert_array_equal(alone.embed_windows(frames, times, windows), expected)
    if recipe == "clip4clip-seqtransf":  # blocks from the text tower keep its number of heads
        assert [block.attn.num_heads for block in alone.layers.blocks] == [2, 2]  # type: ignore[union-attr]
    assert alone.identity == whole.identity
    assert alone.spec() == {**whole.spec(), "model": str(bare)}


def test_a_tower_that_cannot_be_built_without_weights_is_loaded(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    run = checkpoint(tmp_path / "run", model, "clip4clip-seqtransf")
    create = open_clip.create_model

    def with_weights_only(*names: str, **options: object) -> torch.nn.Module:
        if options.get("device") == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        return create(*names, **options)  # type: ignore[arg-type]

    expected = load_frame_side(run, str(model), "cpu").layers.state_dict()
    monkeypatch.setattr(open_clip, "create_model", with_weights_only)
    found = load_frame_side(run, str(model), "cpu").layers.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_damaged_weights_are_refused(library: Library, tmp_path: Path, model: Path) -> None:
    run = checkpoint(tmp_path / "run", model, "actionclip")
    content = bytearray((run / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (run / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="the copy is damaged"):
        adopt(library, run)
    assert len(library.encoders()) == 1


def test_interrupted_before_the_switch_the_old_head_answers_and_adopting_again_works(
    library: Library, tmp_path: Path, model: Path
) -> None:
    run = checkpoint(tmp_path / "run", model, "efficient-prompt")
    before, old = search(library, QUERY), index_bytes(library)

    def interrupted(progress: object) -> None:
        if getattr(progress, "videos_done", 0) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt(library, run, interrupted)
    assert (search(library, QUERY), index_bytes(library)) == (before, old)
    assert library.verify().clean
    assert adopt(library, run).changed
    assert rollback(library).changed
    assert index_bytes(library) == old


@pytest.mark.slow
def test_kill_9_while_adopting_leaves_the_old_head(tmp_path: Path, model: Path, vsearch: Vsearch) -> None:
    run = checkpoint(tmp_path / "run", model, "efficient-prompt")
    with Library.open(tmp_path / "library", create=True) as library:
        fill(library, model, 60)
        before, old = search(library, QUERY), index_bytes(library)
    environment = {**os.environ, "VSEARCH_LIBRARY": str(tmp_path / "library"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vsearch", "adopt", str(run), "--progress", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if json.loads(line)["videos_done"] >= 1:
                break
        killed.send_signal(signal.SIGKILL)
    with Library.open(tmp_path / "library") as library:
        assert (search(library, QUERY), index_bytes(library)) == (before, old)
        assert library.verify().clean
    assert vsearch("adopt", run).returncode == 0
    assert vsearch("verify").returncode == 0
    assert vsearch("adopt", "--rollback").returncode == 0
    with Library.open(tmp_path / "library") as library:
        assert (search(library, QUERY), index_bytes(library)) == (before, old)


def test_what_cannot_be_adopted_is_refused_in_words(library: Library, tmp_path: Path, model: Path) -> None:
    with pytest.raises(LibraryError, match="no head to go back to"):
        rollback(library)
    with pytest.raises(ModelError, match=r"encoded again: vsearch index FOLDER --head .* --library NEW"):
        adopt(library, checkpoint(tmp_path / "xclip", model, "xclip", frozen=False))
    with pytest.raises(ModelError, match="pairs of video and text"):
        adopt(library, checkpoint(tmp_path / "tight", model, "clip4clip-tight"))
    with pytest.raises(ModelError, match="no checkpoint there"):
        adopt(library, tmp_path)
    run = checkpoint(tmp_path / "other", model, "efficient-prompt")
    card = json.loads((run / CARD).read_text())
    (run / CARD).write_text(json.dumps({**card, "backbone": "another@1"}))
    with pytest.raises(ModelError, match="but this library was indexed with"):
        adopt(library, run)
    assert len(library.encoders()) == 1


def test_adopting_the_same_head_twice_changes_nothing(library: Library, tmp_path: Path, model: Path) -> None:
    run = checkpoint(tmp_path / "run", model, "efficient-prompt")
    adopt(library, run)
    live = library.live_generation()
    assert adopt(library, run).changed is False
    assert library.live_generation() == live


def write_shapes(folder: Path, videos: int) -> Path:
    """Real videos of 4 s, with pictures that last 1/2 s."""
    import av

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(videos):
        with av.open(str(folder / f"{i}.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=4, options={"preset": "ultrafast"})
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            shown = clip(DIRECTIONS[i % 4], rng)
            for t in range(16):
                picture = av.VideoFrame.from_ndarray(shown[t * len(shown) // 16], "rgb24")
                out.mux(stream.encode(picture))
            out.mux(stream.encode())
        old = time.time() - 60
        os.utime(folder / f"{i}.mp4", (old, old))
    return folder


@pytest.mark.slow
def test_adopt_then_index_then_rollback_from_the_command_line(
    tmp_path: Path, model: Path, vsearch: Vsearch
) -> None:
    videos = write_shapes(tmp_path / "videos", 4)
    run = checkpoint(tmp_path / "run", model, "efficient-prompt")
    assert vsearch("index", videos, "--model", model).returncode == 0
    before = vsearch("query", QUERY, "--json").stdout
    videos.rename(tmp_path / "away")  # there is nothing to decode
    done = vsearch("adopt", run)
    assert done.returncode == 0, done.stderr
    (tmp_path / "away").rename(videos)
    shutil.rmtree(run)
    assert vsearch("query", QUERY, "--json").stdout != before
    write_shapes(tmp_path / "new", 1)
    (tmp_path / "new" / "0.mp4").rename(videos / "another.mp4")
    with (videos / "another.mp4").open("ab") as file:
        file.write(b"\0" * 64)  # of another content
    added = vsearch("index", videos, "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["indexed"] == 1
    assert json.loads(vsearch("status", "--json").stdout)["moment_count"] == 5
    back = vsearch("adopt", "--rollback")
    assert back.returncode == 0, back.stderr
    assert "1 videos were indexed since; `vsearch index`" in back.stderr
    assert vsearch("query", QUERY, "--json").stdout == before
    assert vsearch("index", videos).returncode == 0
    assert json.loads(vsearch("status", "--json").stdout)["moment_count"] == 5
    wrong = vsearch("adopt")
    assert (wrong.returncode, wrong.stdout) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "frozen"),
    [("efficient-prompt", True), ("clip4clip", False), ("xclip", False), ("m2clip", False)],
)
def test_a_new_library_is_indexed_with_a_head(
    recipe: str, frozen: bool, tmp_path: Path, model: Path, vsearch: Vsearch
) -> None:
    videos = write_shapes(tmp_path / "videos", 3)
    run = checkpoint(tmp_path / "run", model, recipe, frozen=frozen)
    done = vsearch("index", videos, "--head", run)
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "kept"
    run.rename(kept)
    asked = vsearch("query", QUERY, "--json")
    assert asked.returncode in (0, 1), asked.stderr  # found, or unlikely
    assert len(json.loads(asked.stdout)["hits"]) == 3
    again = vsearch("index", videos, "--head", kept, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["unchanged"] == 3
    other = vsearch("index", videos, "--head", checkpoint(tmp_path / "other", model, "actionclip"))
    assert other.returncode == 2
    assert "to change that, vsearch adopt" in other.stderr
    with Library.open(tmp_path / "library") as library:
        live = library.live_encoder()
        assert live is not None
        own = trained_encoder(kept, load_backbone(str(model), "cpu"))
        assert live.identity == own.identity
        stored = library.frames(library.frame_set_of(library.videos()[0], live.backbone).id)  # type: ignore[union-attr]
        (moment, *_) = moments_of(library, library.videos()[0], live.id)
        wanted = own.head.embed_windows(stored.vectors, stored.times_ms, [moment])  # type: ignore[list-item]
        view = library.open_live()
        scores, ids = view.search(wanted, 1)
        assert ids[0][0] == moment.id
        assert scores[0][0] == pytest.approx(1, abs=2e-3)


def test_a_tower_that_looks_across_frames_encodes_clips_as_training_saw_them(
    tmp_path: Path, model: Path
) -> None:
    run = checkpoint(tmp_path / "run", model, "xclip", frozen=False)
    encoder = trained_encoder(run, load_backbone(str(model), "cpu"), fps=2.0)
    together = encoder.backbone.frames_together
    assert encoder.head.window_s == together / 2
    frames = np.random.default_rng(0).integers(0, 256, (2 * together + 3, 64, 64, 3), dtype=np.uint8)
    vectors = encoder.backbone.encode_frames(frames)
    assert vectors.shape == (len(frames), 32)
    second = torch.from_numpy(frames[None, together : 2 * together])
    mask = torch.ones(1, together, dtype=torch.bool)
    with torch.inference_mode():
        seen = encoder.head.model.embed_video(second, mask).vectors[0].numpy()  # type: ignore[attr-defined]
    times = np.arange(len(frames)) * 500
    moments = plan_windows(times, len(frames) * 500, encoder.head.window_s, encoder.head.overlap)
    moment = encoder.head.embed_windows(vectors, times, moments[1:2])[0]
    np.testing.assert_allclose(moment, seen / np.linalg.norm(seen), atol=1e-4)
    assert encoder.backbone.identity != load_backbone(str(model), "cpu").identity


@pytest.mark.parametrize("recipe", ["efficient-prompt", "actionclip", "clip4clip", "clip4clip-seqlstm"])
def test_windows_of_any_length_get_the_vectors_of_one_padded_batch(
    recipe: str, tmp_path: Path, model: Path
) -> None:
    run = checkpoint(tmp_path / "run", model, recipe)
    head = load_trained_head(run, load_backbone(str(model), "cpu"))
    frames = np.random.default_rng(0).normal(0, 1, (90, 32)).astype(np.float16)
    spans = [(0, 16), (8, 24), (5, 6), (24, 90), (40, 43), (60, 76), (87, 90)]
    windows = [Window(500 * first, 500 * last, first, last) for first, last in spans]
    chosen = []
    for first, last in spans:
        own = frames[first:last].astype(np.float32)
        chosen.append(own[pick(len(own), head.card.recipe.frames, None)])
    with torch.inference_mode():
        side = head.model.embed_video(*pad(chosen)).vectors.numpy()
    expected = side / np.linalg.norm(side, axis=1, keepdims=True)
    times = np.arange(90, dtype=np.int64) * 500
    found = head.embed_windows(frames, times, windows, batch=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert head.embed_windows(frames, times, []).shape == (0, 32)
