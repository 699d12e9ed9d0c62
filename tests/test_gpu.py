"""Encoding on CUDA devices: batches side by side and on several of them, with the vectors of one in the order of the
frames. What can be held without a GPU is held on the CPU in its place."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import gpu as benchmark
from tests.media import picture, write_video
from vsearch.errors import ModelError
from vsearch.indexer import IndexOptions, index_videos
from vsearch.indexer.decode import DecodeOptions, FrameShape, default_workers
from vsearch.indexer.decode.sampling import decode
from vsearch.indexer.encoding import Lanes
from vsearch.library import Library
from vsearch.models import Backbone, load_backbone, resolve_devices
from vsearch.models.backbone import resolve_device
from vsearch.models.runtime import for_gpu, low_precision, on_device
from vsearch.models.runtime.gpu import on_stream, own_stream

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def pictures(backbone: Backbone, count: int, seed: int = 0) -> np.ndarray:
    size = backbone.preprocess.size
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("device", DEVICES)
def test_batches_side_by_side_give_the_vectors_of_one_after_the_other(device: str, tiny_model: Path) -> None:
    plain, backbone = load_backbone(str(tiny_model), "cpu"), load_backbone(str(tiny_model), device)
    batches = [pictures(backbone, count, i) for i, count in enumerate([8] * 11 + [3])]
    with Lanes(backbone) as lanes:
        results = [future.result() for future in [lanes.submit(batch) for batch in batches]]
    for batch, result in zip(batches, results, strict=True):
        found, expected = result.astype(np.float32), plain.encode_frames(batch)
        cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > 0.999  # half precision on a GPU


@pytest.mark.parametrize("device", DEVICES)
def test_frames_arrive_as_they_are_and_may_be_let_go_of_at_once(device: str) -> None:
    arrived = []
    with on_stream(own_stream(device)):
        for i in range(20):
            arrived.append(on_device(np.full((4, 64, 64, 3), i, np.uint8), device))
        assert [int(frames.float().mean().cpu()) for frames in arrived] == list(range(20))
        assert arrived[0].shape == (4, 64, 64, 3)
        assert arrived[0].dtype == torch.uint8


def test_replicas_share_the_batches_and_give_the_same_vectors(tiny_model: Path) -> None:
    backbone = load_backbone(str(tiny_model), "cpu")
    batches = [pictures(backbone, 4, i) for i in range(12)]
    expected = [backbone.encode_frames(batch).astype(np.float16) for batch in batches]
    first, second = backbone.replicas(["cpu", "cpu"])
    assert first is backbone
    assert second.clip is not first.clip
    assert second.identity == first.identity
    met = threading.Barrier(2)
    for replica in (first, second):
        replica.encode_frames = meeting(replica.encode_frames, met)  # type: ignore[method-assign]
    with Lanes(first, second) as lanes:
        results = [future.result() for future in [lanes.submit(batch) for batch in batches]]
    for found, vectors in zip(results, expected, strict=True):
        np.testing.assert_allclose(found, vectors, rtol=2e-3, atol=2e-3 * np.abs(vectors).max())


def meeting(encode: Any, met: threading.Barrier) -> Any:
    """The first call waits for that of another replica."""
    first = True

    def encoded(frames: np.ndarray) -> np.ndarray:
        nonlocal first
        if first:
            first = False
            met.wait(20)
        return encode(frames)

    return encoded


def test_an_index_made_on_two_devices_has_the_vectors_of_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4")
    made: list[list[Backbone]] = []
    replicas = Backbone.replicas

    def watched(self: Backbone, devices: list[str]) -> list[Backbone]:
        made.append(replicas(self, devices))
        return made[-1]

    monkeypatch.setattr(Backbone, "replicas", watched)
    monkeypatch.setattr("vsearch.models.resolve_devices", lambda devices: ["cpu", "cpu"])
    options = IndexOptions(model=str(tiny_model), fps=10, batch_size=4, workers=1)
    index_videos(tmp_path / "library", [tmp_path / "videos"], options, lambda progress: None)
    with Library.open(tmp_path / "library") as library:
        (video,) = library.videos()
        kept = library.frame_set_of(video, library.encoders()[0].backbone)
        assert kept
        stored = library.frames(kept.id)
    ((first, second),) = made
    assert second.clip is not first.clip
    sink = Sampled()
    decode(tmp_path / "videos" / "a.mp4", DecodeOptions(fps=10, shape=FrameShape(64)), sink)
    assert stored.times_ms.tolist() == sink.times
    expected = load_backbone(str(tiny_model), "cpu").encode_frames(np.stack(sink.frames))
    np.testing.assert_allclose(stored.vectors, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


class Sampled:
    """A `decode.Sink` that keeps times and pictures."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.frames: list[np.ndarray] = []

    def info(self, info: Any) -> None: ...

    def frame(self, time_ms: int, image: np.ndarray) -> None:
        self.times.append(time_ms)
        self.frames.append(image.copy())

    def progress(self, time_ms: int) -> None: ...

    def poster(self, jpeg: bytes) -> None: ...


def test_one_precision_for_all_devices_the_one_that_each_has(monkeypatch: pytest.MonkeyPatch) -> None:
    generations = {"cuda:0": (9, 0), "cuda:1": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", generations.__getitem__)
    assert low_precision(["cuda:0"]) == torch.bfloat16
    assert low_precision(["cuda:0", "cuda:1"]) == torch.float16
    assert low_precision(["cuda:0"], "float16") == torch.float16
    assert low_precision(["cpu", "cpu"]) is None


@pytest.mark.parametrize("model", ["tiny", "mini"])
def test_weights_cast_once_give_what_autocast_gives(model: str, tiny_model: Path) -> None:
    backbone = load_backbone(str(tiny_model) if model == "tiny" else "mini", "cpu")
    clip: Any = backbone.clip
    size = backbone.preprocess.size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    weights = {tuple(part.shape) for part in clip.visual.parameters() if part.dim() > 1}
    arranged: Any = for_gpu(clip, torch.bfloat16)
    casts = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = clip.encode_image(pixels)
        for tower in (clip, arranged):
            with Casts() as seen:
                found = tower.encode_image(pixels)
            casts.append(sum(shape in weights for shape in seen.shapes))
    assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()  # layouts choose kernels
    own = sum(type(part).__name__ == "Conv2dSame" for part in clip.visual.modules())  # casts for itself
    assert casts[0] > own + 5
    assert casts[1] <= own + 2  # positions and projection, which are no layers
    assert {part.dtype for part in clip.parameters()} == {torch.float32}  # sentences go through these


def test_the_built_in_model_keeps_its_vectors_in_the_precision_of_gpus() -> None:
    mini = load_backbone("mini", "cpu")
    frames = np.stack([picture(number, (224, 224)) for number in (0, 7, 100)])
    expected = mini.encode_frames(frames)
    _ = mini.clip
    mini._towers, mini._low = None, getattr(torch, mini._half)  # the GPU's way, on the CPU
    mini.arrange()
    found = mini.encode_frames(frames)
    assert (found != expected).any()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.9995


class Casts(TorchDispatchMode):
    """Shapes of what is cast from float32 to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_too_little_memory_is_said_in_a_sentence(tiny_model: Path) -> None:
    backbone = load_backbone(str(tiny_model), "cpu")

    def encode(frames: np.ndarray) -> np.ndarray:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    batch = pictures(backbone, 4)
    backbone.encode_frames = encode  # type: ignore[method-assign]
    with Lanes(backbone) as lanes, pytest.raises(ModelError, match="too little free memory for batches of 4"):
        lanes.submit(batch).result()


def test_more_processes_decode_where_the_cores_need_not_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsearch.indexer.decode.source.available_cores", lambda: 16)
    assert default_workers(["cpu"]) == 8
    assert default_workers(["cuda"]) == 15
    assert default_workers(["cuda:0", "cuda:1"]) == 14


def test_the_benchmark_says_so_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmark.main([str(tmp_path)])
    assert capsys.readouterr().out.startswith("no CUDA device")


def test_the_benchmark_measures_what_it_says(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(2):
        write_video(tmp_path / f"{i}.mp4", frames=60 + i)
    few = ["--batch", "4", "--workers", "1", "--seconds", "0.2", "--device", "cpu"]
    benchmark.main([str(tmp_path), "--models", str(tiny_model), *few])
    out = capsys.readouterr().out
    assert "cosine with float32 on the CPU: 1.00000 at least" in out
    assert re.search(r"encoder alone, batches of 4: [1-9]\d* frames/s", out)
    assert re.search(r"^ +1 +[1-9]\d* frames/s +[1-9]\d* /s +\d+% +unknown$", out, re.M)
    assert re.search(r"vsearch index, 2 videos, [12] processes:", out)


def test_the_benchmark_makes_models_without_a_network(tmp_path: Path) -> None:
    assert benchmark.is_bare("ViT-B-32")
    assert not benchmark.is_bare("ViT-B-32:openai")
    place = benchmark.random_model("ViT-S-32-alt", tmp_path / "model")
    assert load_backbone(place, "cpu").preprocess.size == 224


@pytest.mark.usefixtures("two_gpus")
def test_several_devices_are_gpus_by_number() -> None:
    assert resolve_devices("auto") == ["cuda"]
    assert resolve_devices("cpu") == ["cpu"]
    assert resolve_devices("cuda:1, cuda:0") == ["cuda:1", "cuda:0"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cuda:0,cuda:2", "there is no cuda:2: this machine has 2"),
        ("cuda:0,cuda:00", "cuda:0 is named twice"),
        ("cuda,cuda:0", "each must be a GPU by its number"),
        ("cpu,cpu", "each must be a GPU by its number"),
        ("cpu,cuda:0", "each must be a GPU by its number"),
        ("cuda:0,", "unknown device ''"),
        ("cuda:0,gpu", "unknown device 'gpu'"),
    ],
)
def test_devices_that_cannot_be_together_are_refused_in_a_sentence(devices: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_devices(devices)


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "gpu", "mps:0"])
def test_a_device_that_cannot_be_is_refused_in_a_sentence(device: str) -> None:
    with pytest.raises(ModelError, match="unknown device"):
        resolve_device(device)


def test_what_works_on_one_device_refuses_several() -> None:
    with pytest.raises(ModelError, match="only `vsearch index` works on several devices"):
        resolve_device("cuda:0,cuda:1")
