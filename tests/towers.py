"""Small random CLIPs for tests of what is built on them."""

from __future__ import annotations

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
