"""The NumPy text side against open_clip itself: same tokens, same identity, same vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsearch.models import load_backbone, normalise
from vsearch.models.bpe import Tokenizer
from vsearch.models.quick_text import load_quick_text

SENTENCES = [
    "a dog running on grass",
    "",
    "!",
    "Ein Mädchen spielt Geige &amp; lacht — 日本語 🎉",
    "the word " * 60,
]


@pytest.fixture(scope="module")
def theirs() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer()


@settings(deadline=None)
@given(st.text(max_size=80))
@example("it's 3 o'clock: they're <start_of_text> here <END_OF_TEXT>")
@example("ﬁ İstanbul &lt;b&gt; schÃ¶n \x00")
@example("don't " * 60)
def test_tokens_are_those_of_open_clip(ours: Tokenizer, theirs: Any, text: str) -> None:
    row = theirs([text])[0].tolist()
    tokens = ours(text)
    assert tokens + [0] * (77 - len(tokens)) == row


def test_mini_gives_the_same_vectors_under_the_same_identity() -> None:
    quick, whole = load_quick_text("mini"), load_backbone("mini", "cpu")
    assert quick is not None
    assert (quick.identity, quick.dim) == (whole.identity, whole.dim)
    found, wanted = normalise(quick.encode_texts(SENTENCES)), normalise(whole.encode_texts(SENTENCES))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [{}, {"quick_gelu": True}, {"preprocess_cfg": {"mean": [0.5] * 3, "interpolation": "bilinear"}}],
)
def test_a_folder_gives_the_same_vectors_under_the_same_identity(
    tiny_model: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = variant(tiny_model, tmp_path, changed)
    quick, whole = load_quick_text(str(folder)), load_backbone(str(folder), "cpu")
    assert quick is not None
    assert (quick.identity, quick.dim) == (whole.identity, whole.dim)
    found, wanted = normalise(quick.encode_texts(SENTENCES)), normalise(whole.encode_texts(SENTENCES))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "changed", [{"text_cfg": {"pool_type": "last"}}, {"text_cfg": {"hf_model_name": "x"}}]
)
def test_text_towers_of_another_kind_are_left_to_open_clip(
    tiny_model: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    assert load_quick_text(str(variant(tiny_model, tmp_path, changed))) is None
    assert load_quick_text("ViT-B-32:openai") is None


def test_damaged_weights_are_left_to_the_loader_that_explains_them(tiny_model: Path, tmp_path: Path) -> None:
    folder = variant(tiny_model, tmp_path, {})
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert load_quick_text(str(folder)) is None


def test_other_weights_are_another_identity(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = variant(tiny_model, tmp_path, {})
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.proj"] = state["visual.proj"] + np.float32(1e-3)  # an image weight: frames would differ
    save_file(state, folder / "open_clip_model.safetensors")
    quick, before = load_quick_text(str(folder)), load_quick_text(str(tiny_model))
    assert quick is not None
    assert before is not None
    assert quick.identity.partition("@")[2] != before.identity.partition("@")[2]


def test_it_needs_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys\n"
        "from vsearch.models.quick_text import load_quick_text\n"
        "load_quick_text('mini').encode_texts(['a dog'])\n"
        "print([m for m in 'torch open_clip timm transformers'.split() if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def variant(model: Path, tmp_path: Path, changed: dict[str, Any]) -> Path:
    folder = Path(shutil.copytree(model, tmp_path / "variant"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    if "quick_gelu" in changed:
        config["model_cfg"]["quick_gelu"] = changed["quick_gelu"]
    config["model_cfg"]["text_cfg"].update(changed.get("text_cfg", {}))
    config["preprocess_cfg"] = changed.get("preprocess_cfg", {})
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
