"""Text towers and tokenizers of Hugging Face: what open_clip needs transformers for (the extra `hf`).

open_clip's configurations name a text model and a tokenizer on the hub. All weights are in the model's own file, so of
the text model only its dimensions are wanted, and for the six that open_clip names those are known here: a file or a
folder loads without a network.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import ModelError

if TYPE_CHECKING:
    import torch

_ROBERTA = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_XLM = {**_ROBERTA, "model_type": "xlm-roberta", "vocab_size": 250002}
_MT5 = {
    "model_type": "mt5", "vocab_size": 250112, "d_kv": 64, "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6, "tie_word_embeddings": False,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "num_decoder_layers": 1,
}  # fmt: skip
_NLLB = {
    "model_type": "m2m_100", "vocab_size": 256206, "d_model": 1024, "encoder_attention_heads": 16,
    "decoder_attention_heads": 16, "max_position_embeddings": 1024, "scale_embedding": True,
    "activation_function": "relu", "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 2, "decoder_layers": 1,
}  # fmt: skip
# From the models' config.json on the hub, but for decoders, which open_clip leaves out.
_DIMENSIONS: dict[str, dict[str, Any]] = {
    "roberta-base": {**_ROBERTA, "model_type": "roberta", "vocab_size": 50265},
    "xlm-roberta-base": _XLM,
    "xlm-roberta-large": {
        **_XLM, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
    "google/mt5-base": {**_MT5, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "google/mt5-xl": {**_MT5, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "facebook/nllb-200-distilled-600M": {**_NLLB, "encoder_layers": 12, "encoder_ffn_dim": 4096},
    "facebook/nllb-200-distilled-1.3B": {**_NLLB, "encoder_layers": 24, "encoder_ffn_dim": 8192},
}  # fmt: skip
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "vocab.txt", "vocab.json",
)  # fmt: skip


def needs_transformers(config: Mapping[str, Any]) -> bool:
    """Whether an open_clip configuration has a text tower or a tokenizer of Hugging Face."""
    text = config.get("text_cfg", {})
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def require_transformers(name: str) -> None:
    """Raises ModelError where the extra is not installed."""
    absent = [m for m in ("transformers", "tokenizers") if importlib.util.find_spec(m) is None]
    if absent:
        raise ModelError(
            f"model {name!r} reads text as Hugging Face's models do, and {' and '.join(absent)} is not installed here: "
            "pip install 'vsearch[hf]'"
        )


def read_tokenizer(arch: str, config: Mapping[str, Any], folder: Path | None) -> Callable[..., torch.Tensor]:
    """open_clip's tokenizer of this architecture. Files of one in `folder` come before those of the hub.

    Raises ModelError where they are nowhere.
    """
    import open_clip

    text = config.get("text_cfg", {})
    if not (wanted := text.get("hf_tokenizer_name")):
        return open_clip.get_tokenizer(arch)
    here = folder is not None and any((folder / file).is_file() for file in _TOKENIZER_FILES)
    if not here and arch.startswith("local-dir:") and not Path(wanted).is_dir():
        raise ModelError(f"{folder} lacks the files of its tokenizer ({wanted}), such as tokenizer.json")
    try:
        return open_clip.tokenizer.HFTokenizer(
            str(folder) if here else wanted,
            context_length=text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )
    except Exception as fault:  # transformers has no common type for files that it cannot read
        if here:
            first_line = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise ModelError(f"cannot read the tokenizer in {folder}: {first_line[:300]}") from fault
        if is_unreachable(fault):
            raise ModelError(
                f"the tokenizer of {arch} ({wanted}) is not on this machine and the hub is out of reach; put its files, "
                "such as tokenizer.json, into the folder of the weights"
            ) from fault
        raise


@contextmanager
def described_text_tower(config: Mapping[str, Any], folder: Path | None) -> Iterator[dict[str, Any]]:
    """Arguments for open_clip by which it builds the text tower without asking the hub for its dimensions; none where it
    need not, or where they are not known."""
    text = config.get("text_cfg", {})
    wanted = text.get("hf_model_name")
    found = _dimensions(wanted, folder) if wanted else None
    if found is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="vsearch-") as place:
        (Path(place) / "config.json").write_text(json.dumps(found), encoding="utf-8")
        yield {"text_cfg": {**text, "hf_model_name": place, "hf_model_pretrained": False}}


def _dimensions(wanted: str, folder: Path | None) -> dict[str, Any] | None:
    """Those in `folder`, else those of the model of that name."""
    from open_clip.hf_configs import arch_dict

    for path in [
        Path(wanted) / "config.json",
        *([folder / wanted / "config.json", folder / "config.json"] if folder else []),
    ]:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for part in (values, values.get("text_config")) if isinstance(values, dict) else ():
            if isinstance(part, dict) and part.get("model_type") in arch_dict:
                return part
    return _DIMENSIONS.get(wanted.removeprefix("FacebookAI/"))


def is_unreachable(fault: BaseException | None) -> bool:
    """Whether it comes of a hub or an address that cannot be reached."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while fault is not None:
        if isinstance(fault, (LocalEntryNotFoundError, ConnectionError, TimeoutError)):
            return True
        if type(fault).__name__ in ("gaierror", "ConnectError", "URLError", "ConnectTimeout"):
            return True
        fault = fault.__cause__ or fault.__context__
    return False
