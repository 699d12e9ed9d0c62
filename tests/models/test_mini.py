"""The built-in model: small, complete, and the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vsearch.errors import ModelError
from vsearch.models import Backbone, load_backbone
from vsearch.models.backbone import MINI_DIR
from vsearch.models.runtime import load_compact
from vsearch.models.runtime.compact import save_compact

GOLDEN = Path(__file__).parent / "golden_mini.json"


@pytest.fixture(scope="module")
def mini() -> Backbone:
    return load_backbone("mini", "cpu")


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def synthetic_image() -> np.ndarray:
    """(1, 224, 224, 3) uint8: an orange disc on a blue gradient."""
    y, x = np.mgrid[0:224, 0:224]
    image = np.stack([x * 0.2, y * 0.4, 255 - y * 0.5], axis=-1)
    image[(x - 112) ** 2 + (y - 112) ** 2 < 60**2] = (250, 140, 20)
    return image.astype(np.uint8)[None]


def test_it_is_small(mini: Backbone) -> None:
    assert sum(p.numel() for p in mini.clip.visual.parameters()) <= 9_000_000
    assert sum(f.stat().st_size for f in MINI_DIR.iterdir() if f.is_file()) <= 40_000_000


def test_a_sentence_finds_its_paraphrase(mini: Backbone) -> None:
    a = unit(
        mini.encode_texts(["a man is cooking in a kitchen", "a football match", "a dog running on grass"])
    )
    b = unit(mini.encode_texts(["someone prepares food", "people play soccer", "a puppy runs across a lawn"]))
    assert (a @ b.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_padding_and_company_do_not_change_a_sentence(mini: Backbone) -> None:
    alone = mini.encode_texts(["a red car"])
    among = mini.encode_texts(["a much longer sentence about nothing in particular, at length", "a red car"])
    np.testing.assert_allclose(alone[0], among[1], rtol=1e-3, atol=1e-4)


def test_golden_vectors(mini: Backbone) -> None:
    golden = json.loads(GOLDEN.read_text())
    for sentence, head in golden["texts"].items():
        np.testing.assert_allclose(unit(mini.encode_texts([sentence]))[0, : len(head)], head, atol=2e-3)
    image = unit(mini.encode_frames(synthetic_image()))[0]
    np.testing.assert_allclose(image[: len(golden["image"])], golden["image"], atol=2e-3)


def test_calibration_tells_related_from_unrelated() -> None:
    table = json.loads((MINI_DIR / "calibration.json").read_text())
    for name in ("related", "unrelated", "best_unrelated_of_250"):
        assert len(table[name]["score"]) == len(table[name]["q"])
        assert table[name]["score"] == sorted(table[name]["score"])
    # half of the right pairs score above 95 of 100 wrong ones
    assert at(table["related"], 0.5) > at(table["unrelated"], 0.95)


def at(curve: dict[str, list[float]], quantile: float) -> float:
    return float(np.interp(quantile, curve["q"], curve["score"]))


def test_compact_round_trip(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 16, generator=generator) * torch.logspace(-3, 2, 50)[:, None]
    state = {"table": table, "matrix": torch.randn(4, 5, generator=generator), "count": torch.tensor(7)}
    save_compact(state, tmp_path / "a", int8=["table"])
    save_compact(dict(reversed(state.items())), tmp_path / "b", int8=["table"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = load_compact(tmp_path / "a")
    assert set(back) == set(state)
    # half a step of each row's own scale: large rows do not blur small ones
    step = table.abs().amax(1, keepdim=True) / 127
    assert ((back["table"] - table).abs() <= step * 0.5001).all()
    assert back["matrix"].dtype == torch.float32
    torch.testing.assert_close(back["matrix"], state["matrix"], rtol=1e-3, atol=1e-4)
    assert back["count"] == 7


def test_damaged_weights_are_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes((MINI_DIR / "weights.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot read model weights"):
        load_compact(path)
    with pytest.raises(ModelError, match="cannot read model weights"):
        load_compact(tmp_path / "missing")
