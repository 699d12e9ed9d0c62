"""Small random CLIPs for tests of what is built on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def small_clip(**text: int) -> Any:
    """64-pixel pictures, 16 patches, two vision and three text layers, joint dimension 32."""
    import open_clip

    torch.manual_seed(0)
    return open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3, **text},
    ).eval()


def tokens(sentences: list[str]) -> torch.Tensor:
    import open_clip

    return open_clip.SimpleTokenizer()(sentences)


def shape_of(name: str) -> Any:
    """A published architecture without memory behind it: for counting."""
    import open_clip

    with torch.device("meta"):
        return open_clip.model.CLIP(**open_clip.get_model_config(name))


def sighted_clip() -> Any:
    """`small_clip` whose last LayerNorms are set so that pictures of shapes, and sentences about them, spread out.

    A random tower maps everything to nearly one vector; trained ones do not, and heads rely on that.
    """
    import numpy as np

    from tests.shapes import DIRECTIONS, clip
    from vsearch.models.prompts import TEMPLATES

    model, rng = small_clip(), np.random.default_rng(7)
    pictures = np.concatenate([clip(DIRECTIONS[i % 4], rng) for i in range(64)])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 * 4 - 2  # mean 0.5, std 0.25
    ids = tokens([t.replace("{}", d) for t in TEMPLATES for d in DIRECTIONS])
    ends = (torch.arange(len(ids)), ids.argmax(1))
    with torch.no_grad():
        _spread(model.visual.ln_post, lambda: model.encode_image(pixels), (slice(None), 0), 0.1)
        _spread(model.ln_final, lambda: model.encode_text(ids), ends, 1.0)
    return model


def _spread(norm: Any, run: Any, rows: Any, size: float) -> None:
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda module, given, out: seen.append(out))
    run()
    handle.remove()
    picked = seen[0][rows]
    norm.weight.copy_(size / picked.std(0))
    norm.bias.copy_(-size * picked.mean(0) / picked.std(0))


def write_model(folder: Any) -> Any:
    """`sighted_clip` as a model folder that `--model` takes."""
    import json

    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
    }
    pre = {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pre}))
    tensors = {k: v.contiguous() for k, v in sighted_clip().state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


MULTILINGUAL = (
    "a dog running on grass", "ein Hund läuft über das Gras", "狗在草地上奔跑", "собака бежит по траве",
    "people on a street at night", "Menschen nachts auf der Straße", "夜晚街上的人们", "люди ночью на улице",
)  # fmt: skip


def write_multilingual(folder: Any, sentencepiece: bool = False) -> Any:
    """A model folder as the hub serves it, its text side a small XLM-R with a tokenizer of its own.

    `sentencepiece`: the tokenizer as a sentencepiece model, as the oldest repositories have it.
    """
    import json

    import open_clip
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True, exist_ok=True)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if sentencepiece:
        import sentencepiece as spm

        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(MULTILINGUAL * 20), model_prefix=str(folder / "sentencepiece.bpe"), vocab_size=150,
            character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / "sentencepiece.bpe.vocab").unlink()
        said = {"tokenizer_class": "XLMRobertaTokenizer"}
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        tokenizer.train_from_iterator(MULTILINGUAL, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
        said = {"tokenizer_class": "PreTrainedTokenizerFast"}
    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | marks))
    text = {
        "model_type": "xlm-roberta", "vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 80, "type_vocab_size": 1, "pad_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(text))
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {
            "hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base", "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear", "context_length": 40,
        },
    }  # fmt: skip
    pre = {"size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pre}))
    torch.manual_seed(0)
    told: Any = {**config["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    clip = open_clip.model.CustomTextCLIP(32, config["vision_cfg"], told)
    tensors = {k: v.contiguous().clone() for k, v in clip.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """A CLIP of 64-pixel pictures and 32 dimensions with random weights, in open_clip's folder form."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    state = {k: v.contiguous() for k, v in open_clip.model.CLIP(**config).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
