"""Models of open_clip by name, file and folder, those with Hugging Face text towers included, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.media import picture, write_video
from tests.towers import MULTILINGUAL, write_multilingual
from vsearch.errors import ModelError
from vsearch.models import load_backbone

WITHOUT = "needs the extra `hf` (transformers)"
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
FOREIGN = ("Hund läuft auf der Straße", "狗在街上", "собака на улице ночью")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason=WITHOUT)
    return Path(write_multilingual(tmp_path_factory.mktemp("multilingual")))


@pytest.fixture(scope="module")
def arch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small architecture that open_clip knows by name."""
    import open_clip

    path = tmp_path_factory.mktemp("configs") / "tests-tiny.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    import open_clip

    torch.manual_seed(0)
    state = open_clip.model.CLIP(**TINY).state_dict()
    return {
        name: value + 0.3 * torch.randn(value.shape) for name, value in state.items()
    }  # so that GELUs differ


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def vectors(name: str) -> tuple[np.ndarray, np.ndarray]:
    found = load_backbone(name, "cpu")
    return found.encode_frames(picture(1, (64, 64))[None]), found.encode_texts(["a dog on grass"])


@pytest.mark.parametrize("sentencepiece", [False, True], ids=["tokenizer.json", "sentencepiece"])
def test_a_multilingual_folder_of_the_hub_answers_without_torch(tmp_path: Path, sentencepiece: bool) -> None:
    pytest.importorskip("transformers", reason=WITHOUT)
    folder = write_multilingual(tmp_path / "model", sentencepiece)
    whole = load_backbone(str(folder), "cpu")
    texts = whole.encode_texts(FOREIGN)
    whole.arrange()
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from vsearch.models import load_quick_encoder\n"
        "spec = {'model': sys.argv[1], 'backbone': sys.argv[2], 'head': {'recipe': 'zero-shot', 'window_s': 8.0,"
        " 'overlap': 0.5, 'templates': ['{}']}}\n"
        "encoder = load_quick_encoder(spec)\n"
        "np.save(sys.argv[3], encoder.backbone.encode_texts(sys.argv[4:]))\n"
        "print([m for m in 'torch open_clip timm transformers onnx'.split() if m in sys.modules])\n"
    )
    arguments = [
        sys.executable,
        "-c",
        code,
        str(folder),
        whole.identity,
        str(tmp_path / "found.npy"),
        *FOREIGN,
    ]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), texts, rtol=1e-3, atol=1e-4)
    assert len(np.unique(texts.round(4), axis=0)) == len(FOREIGN)


def test_german_chinese_and_russian_lose_nothing_in_the_tokenizer(multilingual: Path) -> None:
    whole = load_backbone(str(multilingual), "cpu")
    backend: Any = whole.tokenizer
    for sentence in (*MULTILINGUAL, *FOREIGN):
        [numbers] = whole.tokenizer([sentence]).tolist()
        assert backend.tokenizer.decode(numbers, skip_special_tokens=True) == sentence
        assert backend.tokenizer.unk_token_id not in numbers


def test_a_library_of_a_multilingual_model_is_asked_in_three_languages(
    multilingual: Path, tmp_path: Path, vsearch: Any
) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "one.mp4")
    assert vsearch("index", tmp_path / "videos", "--model", multilingual).returncode == 0
    for sentence in FOREIGN:
        found = vsearch("query", sentence, "--json")
        assert found.returncode in (0, 1), found.stderr
        assert "one.mp4" in found.stdout


def test_tokenizer_files_beside_a_weights_file_are_its_own(multilingual: Path, arch: str) -> None:
    import open_clip

    config = json.loads((multilingual / "open_clip_config.json").read_text())["model_cfg"]
    named = multilingual.parent / "tests-multilingual.json"
    named.write_text(json.dumps(config))
    open_clip.add_model_config(named)
    by_file = load_backbone(f"{named.stem}:{multilingual / 'open_clip_model.safetensors'}", "cpu")
    by_folder = load_backbone(str(multilingual), "cpu")
    np.testing.assert_array_equal(by_file.encode_texts(FOREIGN), by_folder.encode_texts(FOREIGN))


def test_without_the_extra_a_sentence_names_it(
    multilingual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in (
        str(multilingual),
        "ViT-B-16-SigLIP2:webli",
        "nllb-clip-base:v1",
        "xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k",
    ):
        with pytest.raises(
            ModelError, match=r"transformers is not installed here: pip install 'vsearch\[hf\]'"
        ) as told:
            load_backbone(name, "cpu")
        assert "network" not in str(told.value)


def test_a_folder_without_its_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=WITHOUT)
    folder = write_multilingual(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(ModelError, match=r"lacks the files of its tokenizer \(xlm-roberta-base\)"):
        load_backbone(str(folder), "cpu")


def test_published_text_towers_are_built_without_asking_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=WITHOUT)
    import open_clip
    from safetensors.torch import save_file

    from vsearch.models.published import outline_of

    save_file({"none": torch.zeros(1)}, tmp_path / "weights.safetensors")
    named = {
        n: open_clip.get_model_config(n)["text_cfg"].get("hf_model_name") for n in open_clip.list_models()
    }
    of_each = {text: name for name, text in named.items() if text and not name.startswith("tests-")}
    assert len(of_each) >= 7
    for name in of_each.values():
        text: Any = outline_of(f"{name}:{tmp_path / 'weights.safetensors'}").text
        assert sum(p.numel() for p in text.transformer.parameters()) > 8e7


def test_weights_with_openais_marks_run_with_quickgelu(
    arch: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    marks = {
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    theirs = vectors(f"{arch}:{saved(tmp_path / 'openai.pt', weights | marks)}")
    plain = vectors(f"{arch}:{saved(tmp_path / 'plain.pt', weights)}")
    folder = tmp_path / "folder"
    folder.mkdir()
    saved(folder / "open_clip_pytorch_model.bin", weights)
    config = {"model_cfg": TINY | {"quick_gelu": True}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for found, expected, other in zip(theirs, vectors(str(folder)), plain, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found - other).max() > 1e-3


def test_a_file_of_either_kind_is_never_silently_taken_for_one(
    arch: str, weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    import open_clip

    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda arch: ["openai", "laion2b"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, tag: {"quick_gelu": tag == "openai"})
    load_backbone(f"{arch}:{saved(tmp_path / 'some.pt', weights)}", "cpu")
    assert "weights that stem from openai need QuickGELU" in caplog.text
    caplog.clear()
    load_backbone(f"{arch}:{saved(tmp_path / 'vit-quickgelu-46683a32.pt', weights)}", "cpu")
    assert not caplog.text


def test_keys_that_do_not_fit_are_named(arch: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    less = {k: v for k, v in weights.items() if k != "visual.proj"}
    more = weights | {"visual.extra": torch.zeros(1)}
    wide = weights | {"text_projection": torch.zeros(32, 48)}
    for state, told in (
        (less, r"missing: visual\.proj"),
        (more, r"left over: visual\.extra"),
        (wide, r"text_projection is \[32, 48\], not \[32, 32\]"),
    ):
        with pytest.raises(ModelError, match=told) as fault:
            load_backbone(f"{arch}:{saved(tmp_path / 'weights.pt', state)}", "cpu")
        assert "network" not in str(fault.value)


class Program:
    """What only a pickle that runs code can hold."""


def test_programs_are_refused_in_a_sentence(arch: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pickled program"):
        load_backbone(f"{arch}:{saved(tmp_path / 'pickle.pt', {'a': Program()})}", "cpu")
    archive = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(archive))
    with pytest.raises(ModelError, match="TorchScript program, which is not run"):
        load_backbone(f"{arch}:{archive}", "cpu")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ModelError, match="not a weights file"):
        load_backbone(f"{arch}:{tmp_path / 'text.safetensors'}", "cpu")


def test_inputs_that_are_not_square_are_refused_with_the_reason(tmp_path: Path) -> None:
    import open_clip

    config = TINY | {"vision_cfg": {**TINY["vision_cfg"], "image_size": [64, 96]}}  # type: ignore[dict-item]
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    saved(tmp_path / "open_clip_pytorch_model.bin", open_clip.model.CLIP(**config).state_dict())
    with pytest.raises(ModelError, match="pictures of 64x96; only square inputs"):
        load_backbone(str(tmp_path), "cpu")
