"""Encoding on a CUDA device: batches side by side, with the vectors of the CPU in the order of the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu as benchmark
from tests.towers import write_model
from vsearch.errors import ModelError
from vsearch.indexer.encoding import Lanes
from vsearch.models import load_backbone
from vsearch.models.backbone import resolve_device
from vsearch.models.gpu import Streams, on_device

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_batches_side_by_side_give_the_vectors_of_one_after_the_other(device: str, tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model"))
    plain, backbone = load_backbone(model, "cpu"), load_backbone(model, device)
    rng = np.random.default_rng(0)
    size = backbone.preprocess.size
    batches = [rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8) for count in [8] * 11 + [3]]
    with Lanes(backbone) as lanes:
        results = [future.result() for future in [lanes.submit(batch) for batch in batches]]
    for batch, result in zip(batches, results, strict=True):
        found, expected = result.astype(np.float32), plain.encode_frames(batch)
        cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() > 0.999  # half precision on a GPU


@pytest.mark.parametrize("device", DEVICES)
def test_frames_arrive_as_they_are_and_may_be_let_go_of_at_once(device: str) -> None:
    streams, arrived = Streams(device), []
    with streams.own():
        for i in range(20):
            arrived.append(on_device(np.full((4, 64, 64, 3), i, np.uint8), device))
        assert [int(frames.float().mean().cpu()) for frames in arrived] == list(range(20))
        assert arrived[0].shape == (4, 64, 64, 3)
        assert arrived[0].dtype == torch.uint8


def test_the_benchmark_says_so_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    benchmark.main([str(tmp_path)])
    assert capsys.readouterr().out.startswith("no CUDA device")


@pytest.mark.parametrize("device", ["cuda:0,cuda:1", "cuda:", "cuda:x", "gpu", "mps"])
def test_a_device_that_cannot_be_is_refused_in_a_sentence(device: str) -> None:
    with pytest.raises(ModelError, match="unknown device"):
        resolve_device(device)
