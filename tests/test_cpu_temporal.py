"""Temporal heads arranged for the CPU: the moments of the layers as trained, within what is promised."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsearch.indexer.side_by_side import side_by_side
from vsearch.models import cpu_temporal
from vsearch.models.cpu_temporal import COSINE, arranged, moments_of, multiplies_bfloat16
from vsearch.models.temporal import TemporalTransformer, build_temporal, pool

DIM, CPU = 64, torch.device("cpu")
PRECISIONS = [
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not multiplies_bfloat16(), reason="a CPU without bfloat16")),
    torch.float32,
]  # fmt: skip
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def transformer(
    residual: bool, activation: nn.Module | None = None, size: float = 0.1
) -> TemporalTransformer:
    torch.manual_seed(0)
    layers = build_temporal("transformer", DIM, 3, 16, residual).eval()
    assert isinstance(layers, TemporalTransformer)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    for block in layers.blocks:
        block.mlp.gelu = activation or block.mlp.gelu  # type: ignore[union-attr]
    return layers


def windows(count: int, frames: int) -> Tensor:
    """Of videos that look alike, as real ones do: unrelated moments have a cosine of .5 or so."""
    rng = torch.Generator().manual_seed(1)
    shared, own = torch.randn(1, 1, DIM, generator=rng), torch.randn(count, 1, DIM, generator=rng)
    return shared + own + 0.5 * torch.randn(count, frames, DIM, generator=rng)


def as_trained(layers: nn.Module, normalise_frames: bool, frames: Tensor) -> Tensor:
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    with torch.inference_mode():
        return F.normalize(pool(layers(frames, mask), mask, normalise_frames), dim=1)


@needs_onednn
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("residual", "normalise_frames", "activation"),
    [(True, True, None), (True, False, nn.GELU()), (False, False, None)],
)
def test_moments_and_their_ranking_stay(
    residual: bool, normalise_frames: bool, activation: nn.Module | None, precision: torch.dtype
) -> None:
    layers = transformer(residual, activation)
    run = arranged(layers, normalise_frames, precision, windows(8, 8))
    assert run is not None
    for count, frames in ((1, 1), (5, 3), (7, 16), (3, 40), (200, 8)):
        given = windows(count, frames)
        expected = as_trained(layers, normalise_frames, given)
        with torch.inference_mode():
            found = F.normalize(run(given.clone()), dim=1)
        assert F.cosine_similarity(found.double(), expected.double(), dim=1).min() >= COSINE[precision]
    asked = F.normalize(expected[::10] + 0.1 * torch.randn(20, DIM), dim=1)
    torch.testing.assert_close(asked @ found.T, asked @ expected.T, atol=3e-3, rtol=0)
    assert torch.equal((asked @ found.T).argmax(1), (asked @ expected.T).argmax(1))


@needs_onednn
def test_a_head_that_bfloat16_would_change_keeps_its_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention this sharp turns on small differences of large scores."""
    monkeypatch.setattr(cpu_temporal, "multiplies_bfloat16", lambda: True)
    layers = transformer(residual=False, size=2.0)
    given = windows(50, 8)
    assert arranged(layers, False, torch.bfloat16, given) is None
    with torch.inference_mode():
        found = moments_of(layers, False, DIM, CPU)(given.clone())
    torch.testing.assert_close(F.normalize(found, dim=1), as_trained(layers, False, given), atol=1e-3, rtol=0)


@needs_onednn
@pytest.mark.parametrize("blocks", [0, 3])
def test_blocks_of_another_kind_and_none_are_left_to_the_layers_themselves(blocks: int) -> None:
    layers = transformer(residual=True, activation=nn.Tanh())
    layers.blocks = layers.blocks[:blocks]
    given = windows(5, 8)
    assert arranged(layers, True, torch.float32, given) is None
    with torch.inference_mode():
        found = moments_of(layers, True, DIM, CPU)(given)
    torch.testing.assert_close(F.normalize(found, dim=1), as_trained(layers, True, given), atol=1e-5, rtol=0)


def test_work_side_by_side_comes_in_order_from_one_thread_a_core_and_faults_in_their_place() -> None:
    taken: list[int] = []
    before = torch.get_num_threads()

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    def work(i: int) -> tuple[int, int, str]:
        time.sleep(0.001 * (i % 3))
        if i == 60:
            raise ValueError("of number 60")
        return i, torch.get_num_threads(), threading.current_thread().name

    with side_by_side() as each:
        results = iter(each(work, items()))
        found = [next(results) for _ in range(60)]
        assert len(taken) <= 60 + 2 * before + 1
        with pytest.raises(ValueError, match="of number 60"):
            next(results)
    assert [i for i, _, _ in found] == list(range(60))
    assert {threads for _, threads, _ in found} == {1}
    assert threading.current_thread().name not in {name for _, _, name in found}
    assert torch.get_num_threads() == before
