"""Towers on the CPU: the vectors of torch without torch, under the same identity."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.media import picture
from vsearch.errors import ModelError
from vsearch.models import Backbone, Preprocess, load_backbone
from vsearch.models.backbone import MINI_DIR
from vsearch.models.runtime import Towers, enough_memory, write_towers
from vsearch.models.runtime.bpe import Tokenizer

SENTENCES = [
    "a dog running on grass",
    "",
    "!",
    "Ein Mädchen spielt Geige &amp; lacht — 日本語 🎉",
    "the word " * 60,
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def theirs() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer()


def pictures(size: int, count: int = 3) -> np.ndarray:
    return np.stack([picture(number, (size, size)) for number in range(count)])


def plain_vectors(backbone: Backbone, frames: np.ndarray) -> np.ndarray:
    """As open_clip computes them: its own preprocessing constants, its own tower."""
    pre = backbone.preprocess
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous() / 255
    pixels = (pixels - torch.tensor(pre.mean).view(3, 1, 1)) / torch.tensor(pre.std).view(3, 1, 1)
    with torch.inference_mode():
        return backbone.clip.encode_image(pixels).numpy()  # type: ignore[operator]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.99999
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@settings(deadline=None)
@given(st.text(max_size=80))
@example("it's 3 o'clock: they're <start_of_text> here <END_OF_TEXT>")
@example("ﬁ İstanbul &lt;b&gt; schÃ¶n \x00")
@example("don't " * 60)
def test_tokens_are_those_of_open_clip(ours: Tokenizer, theirs: Any, text: str) -> None:
    row = theirs([text])[0].tolist()
    tokens = ours(text)
    assert tokens + [0] * (77 - len(tokens)) == row


def test_the_built_in_model_gives_the_vectors_of_torch_under_the_identity_of_its_weights() -> None:
    mini, by_torch = load_backbone("mini", "cpu"), load_backbone("mini", "cpu")
    frames = pictures(224)
    found, texts = mini.encode_frames(frames), mini.encode_texts(SENTENCES)
    assert_same(found, plain_vectors(by_torch, frames))  # which refuses weights of another identity
    assert_same(texts, by_torch.encode_texts(SENTENCES))


def test_it_needs_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from vsearch.models import load_backbone\n"
        "mini = load_backbone('mini', 'cpu')\n"
        "mini.encode_texts(['a dog']), mini.encode_frames(np.zeros((1, 224, 224, 3), np.uint8))\n"
        "print([m for m in 'torch open_clip timm transformers onnx'.split() if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


CHANGES: list[dict[str, Any]] = [
    {},
    {"quick_gelu": True},
    {"preprocess_cfg": {"mean": [0.5] * 3, "interpolation": "bilinear"}},
    {"text_cfg": {"pool_type": "last"}},
]


@pytest.mark.parametrize("changed", CHANGES, ids=["plain", "quick gelu", "preprocessing", "pooling"])
def test_a_model_in_a_folder_is_exported_once_and_answers_without_torch(
    tiny_model: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = variant(tiny_model, tmp_path, changed)
    whole = load_backbone(str(folder), "cpu")
    frames = pictures(whole.preprocess.size)
    expected, texts = whole.encode_frames(frames), whole.encode_texts(SENTENCES)
    whole.arrange()
    assert_same(whole.encode_frames(frames), expected)
    again = load_backbone(str(folder), "cpu", whole.identity)
    assert (again.identity, again.dim, again.preprocess) == (whole.identity, whole.dim, whole.preprocess)
    assert_same(again.encode_frames(frames), expected)
    assert_same(again.encode_texts(SENTENCES), texts)
    assert again._clip is None


def test_batches_of_any_size_agree(tiny_model: Path) -> None:
    small = load_backbone(str(tiny_model), "cpu")
    small.arrange()
    frames = pictures(64, 9)
    one_by_one = np.concatenate([small.encode_frames(frame[None]) for frame in frames])
    np.testing.assert_allclose(small.encode_frames(frames), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", ["image.onnx", "text.safetensors", "towers.json"])
def test_kept_towers_that_are_damaged_are_made_again(tiny_model: Path, cache: Path, file: str) -> None:
    whole = load_backbone(str(tiny_model), "cpu")
    whole.arrange()
    [damaged] = cache.rglob(file)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = load_backbone(str(tiny_model), "cpu", whole.identity)
    frames = pictures(64)
    assert_same(again.encode_frames(frames), plain_vectors(whole, frames))
    assert_same(again.encode_texts(SENTENCES), whole.encode_texts(SENTENCES))


def test_a_model_whose_files_were_replaced_is_not_answered_for(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = variant(tiny_model, tmp_path, {})
    before = load_backbone(str(folder), "cpu")
    before.arrange()
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.proj"] = state["visual.proj"] + np.float32(1e-3)
    save_file(state, folder / "open_clip_model.safetensors")
    assert load_backbone(str(folder), "cpu", before.identity).identity != before.identity


def test_where_nothing_can_be_kept_torch_does_the_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    small = load_backbone(str(tiny_model), "cpu")
    small.arrange()
    frames = pictures(64)
    assert_same(small.encode_frames(frames), plain_vectors(small, frames))


def test_a_tower_that_the_runtime_would_change_is_refused(tmp_path: Path) -> None:
    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = torch.nn.Parameter(torch.ones(3, 4))

        def encode_image(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((2, 3))
            # a choice that tracing freezes as the probe made it
            return (
                mean if float(mean[0, 0]) > 1e9 or torch.onnx.is_in_onnx_export() else -mean
            ) @ self.projection

    pre = Preprocess(16, (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ModelError, match="vectors would differ"):
        write_towers(
            tmp_path, Clip(), lambda texts: torch.zeros(len(texts), 5, dtype=torch.int64), pre, "x@1"
        )


def test_a_damaged_built_in_model_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(MINI_DIR, folder, ignore=shutil.ignore_patterns("train", "*.py", "__pycache__"))
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is damaged"):
        Towers(folder).encode_texts(["a dog"])


def variant(model: Path, tmp_path: Path, changed: dict[str, Any]) -> Path:
    folder = Path(shutil.copytree(model, tmp_path / "variant"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    if "quick_gelu" in changed:
        config["model_cfg"]["quick_gelu"] = changed["quick_gelu"]
    config["model_cfg"]["text_cfg"].update(changed.get("text_cfg", {}))
    config["preprocess_cfg"] = changed.get("preprocess_cfg", {})
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_memory_that_an_apple_gpu_lacks_is_told_in_a_sentence() -> None:
    with (
        pytest.raises(ModelError, match="too little free memory for 8 frames"),
        enough_memory("mps", "8 frames"),
    ):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB).")
    with pytest.raises(RuntimeError, match="other"), enough_memory("mps", "8 frames"):
        raise RuntimeError("other")
