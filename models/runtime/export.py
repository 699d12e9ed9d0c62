"""Writing a backbone's towers as graphs for ONNX Runtime (see `exported.py`)."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vsearch.errors import ModelError
from vsearch.models.preprocess import Preprocess
from vsearch.models.runtime.bpe import Tokenizer
from vsearch.models.runtime.exported import CARD, MODULE, Towers
from vsearch.models.runtime.hub_tokenizer import CLEANINGS, HubTokenizer

OPSET = 17
TOLERANCE = 1e-4  # largest difference of a value, as a part of the largest value of the vector
_SENTENCES = ("a dog running on grass", "Two people, one of them in a café, talk & laugh at 10 o'clock!", "")
_MORE = (  # to tell tokenizers apart
    "Ein Straßenfest in  Köln\u00a0\u2014 HUNDE_und Katzen", "一只狗在草地上奔跑。", "Собака бежит по траве, ёлка", "&lt;b&gt; [SEP] </s> <eos> <pad>",
    "🐕‍🦺 naïve ﬁancée", "word " * 300,
)  # fmt: skip


class _ImageSide(nn.Module):
    def __init__(self, clip: nn.Module, pre: Preprocess) -> None:
        super().__init__()
        self.clip: Any = clip
        self._mean = [255 * value for value in pre.mean]
        self._std = [255 * value for value in pre.std]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB -> (N, D)"""
        mean = torch.tensor(self._mean).view(3, 1, 1)
        std = torch.tensor(self._std).view(3, 1, 1)
        return self.clip.encode_image((pixels.permute(0, 3, 1, 2).float() - mean) / std).float()


class _TextSide(nn.Module):
    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) -> (N, D)"""
        return self.clip.encode_text(tokens).float()


def write_towers(
    folder: Path,
    clip: nn.Module,
    tokenizer: Callable[..., Tensor],
    pre: Preprocess,
    identity: str,
    weights_file: str | None = None,
) -> None:
    """Into `folder`, which is there. `weights_file`: safetensors in it that hold the weights already; else they are
    written. The text side is left out where `tokenizer` cannot be had without transformers.

    Raises ModelError where the exported towers cannot be had or give other vectors than the model itself.
    """
    clip = clip.eval()
    size = pre.size
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8))
    sides: dict[str, tuple[nn.Module, Tensor, str]] = {"image": (_ImageSide(clip, pre), frames, "pixels")}
    tokens = tokenizer(list(_SENTENCES))
    if (own := _without_transformers(tokenizer)) is not None:
        sides["text"] = _TextSide(clip), tokens, "tokens"
    card: dict[str, Any] = {"identity": identity, "preprocess": asdict(pre), "sides": {}, "sha256": {}}
    expected: dict[str, Tensor] = {}
    for side, (module, example, input_name) in sides.items():
        names = _write_graph(folder / f"{side}.onnx", module, example, input_name)
        stored = weights_file or f"{side}.safetensors"
        if weights_file is None:
            state = clip.state_dict()
            save_file({name: state[name].float().contiguous().clone() for name in names}, folder / stored)
        card["sides"][side] = {"graph": f"{side}.onnx", "weights": stored, "names": names}
        with torch.inference_mode():
            expected[side] = module(example)
        for name in (f"{side}.onnx", stored):
            card["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    card["dim"] = expected["image"].shape[1]
    if own is not None:
        content, said = own
        card["sides"]["text"] |= {"context_length": tokens.shape[1], **said}
        if content:
            (folder / said["tokenizer"]).write_bytes(content)
            card["sha256"][said["tokenizer"]] = hashlib.sha256(content).hexdigest()
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    written = Towers(folder)
    _compare(written.encode_frames(frames.numpy()), expected["image"])
    _compare(written.encode_frames(frames[:1].numpy()), expected["image"][:1])
    if "text" in sides:
        _compare(written.encode_texts(_SENTENCES), expected["text"])
        _compare(written.encode_texts(_SENTENCES[:1]), expected["text"][:1])


def _without_transformers(tokenizer: Callable[..., Tensor]) -> tuple[bytes, dict[str, Any]] | None:
    """What gives the same numbers: the content of a file, empty for CLIP's own, and what the card says of it; None where
    nothing does."""
    sentences = [*_SENTENCES, *_MORE]
    expected = tokenizer(sentences).numpy()
    if np.array_equal(Tokenizer(expected.shape[1]).rows(sentences), expected):
        return b"", {}
    of_the_hub: Any = getattr(tokenizer, "tokenizer", None)
    backend = getattr(of_the_hub, "backend_tokenizer", None)
    if backend is None:
        return None
    content = backend.to_str()  # as the call has left it: truncating and padding
    for cleaning in CLEANINGS:
        for blanked in (None, of_the_hub.sep_token_id):
            try:
                found = HubTokenizer(content, cleaning, blanked).rows(sentences)
            except (ModelError, ValueError):  # of rows of several lengths
                return None
            if np.array_equal(found, expected):
                said = {"tokenizer": "tokenizer.json", "cleaning": cleaning, "blanked": blanked}
                return content.encode("utf-8"), said
    return None


def _write_graph(path: Path, module: nn.Module, example: Tensor, input_name: str) -> list[str]:
    """A graph without weights; gives their names in the state dict. Raises ModelError."""
    import onnx

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator cannot be exported
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of tracing: the sizes that it fixes are those of the model
            torch.onnx.export(
                module.eval(), (example,), path, input_names=[input_name], output_names=["vectors"],
                dynamic_axes={input_name: {0: "n"}, "vectors": {0: "n"}}, opset_version=OPSET, dynamo=False,
                do_constant_folding=False, export_params=False,
            )  # fmt: skip
    except Exception as fault:  # torch has no common type for what it cannot export
        raise ModelError(f"this model cannot be exported: {type(fault).__name__}") from fault
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    model = onnx.load(path)
    state, names = module.state_dict(), []
    for given in [each for each in model.graph.input if each.name in state]:
        model.graph.input.remove(given)
        weight = model.graph.initializer.add(
            name=given.name,
            dims=list(state[given.name].shape),
            data_type=given.type.tensor_type.elem_type,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        weight.external_data.add(key="location", value="weights")
        names.append(given.name.removeprefix(MODULE))
    if len(model.graph.input) != 1:
        raise ModelError("this model cannot be exported: not all of its weights have names")
    path.write_bytes(model.SerializeToString())
    return names


def _compare(vectors: Any, expected: Tensor) -> None:
    difference = (torch.from_numpy(vectors) - expected).abs().max()
    if not difference <= TOLERANCE * expected.abs().max():
        raise ModelError("this model cannot be exported: its vectors would differ")
