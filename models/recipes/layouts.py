"""How the released files of the five systems name their weights, and X-CLIP's in Hugging Face's layout.

A table of (their name, ours) for each: the first line that a name begins with counts, and `#` stands for the number of
a layer. Our names are those of `VideoText`: `clip.` is the backbone, `new.` what the recipe adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vsearch.errors import ModelError, listed

Names = Sequence[tuple[str, str]]
Weights = dict[str, Tensor]

_PROMPT_LAYERS = [
    (f"prompts_generator.decoder.#.{theirs}.", f"new.video_prompts.layers.#.{ours}.")
    for theirs, ours in (
        ("norm1", "ln_1"), ("norm3", "ln_2"), ("cross_attn.q_proj", "q"), ("cross_attn.k_proj", "k"), ("cross_attn.v_proj", "v"),
        ("cross_attn.proj", "out"), ("mlp.0", "mlp.c_fc"), ("mlp.3", "mlp.c_proj"),
    )
]  # fmt: skip
_TED = [
    (f"visual.transformer.resblocks.#.adapter_pre_{place}.{theirs}.", f"new.tower.{kind}_adapters.#.{ours}.")
    for place, kind in (("mlp", "mlp"), ("attn", "attention"))
    for theirs, ours in (
        ("fc1", "down"), ("conv", "over_time"), ("fc2", "up"), ("offset_adapter.fc1", "difference_down"),
        ("offset_adapter.conv", "over_space"), ("offset_adapter.fc2", "difference_up"),
    )
]  # fmt: skip
_OF_A_BLOCK = [
    ("self_attn.out_proj.", "attn.out_proj."), ("self_attn.", "attn."), ("layer_norm1.", "ln_1."), ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."),
]  # fmt: skip


def _blocks(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Hugging Face's names of the parts of a block."""
    return [(f"{theirs}.#.{part}", f"{ours}.#.{own}") for part, own in _OF_A_BLOCK]


TABLES: dict[str, Names] = {
    "clip4clip": [
        ("clip.visual.conv2.", "new.tower.conv."),
        ("clip.", "clip."),
        ("transformerClip.resblocks.#.", "new.temporal.blocks.#."),
        ("frame_position_embeddings.weight", "new.temporal.positions"),
        ("lstm_visual.", "new.temporal.lstm."),
        ("cross.transformer.resblocks.#.", "new.tight.blocks.#."),
        ("cross.embeddings.position_embeddings.weight", "new.tight.positions"),
        ("cross.pooler.ln_pool.", "new.tight.pooler.0."),
        ("cross.pooler.dense.", "new.tight.pooler.1."),
        ("similarity_dense.", "new.tight.score."),
    ],
    "xclip": [
        ("visual.transformer.resblocks.#.message_fc.", "new.tower.message.#."),
        ("visual.transformer.resblocks.#.message_ln.", "new.tower.ln.#."),
        ("visual.transformer.resblocks.#.message_attn.", "new.tower.attn.#."),
        ("mit.resblocks.#.", "new.temporal.blocks.#."),
        ("mit.positional_embedding", "new.temporal.positions"),
        ("prompts_visual_ln.", "new.video_prompts.ln_patches."),
        ("prompts_visual_proj", "new.video_prompts.proj"),
        ("prompts_generator.norm.", "new.video_prompts.ln_video."),
        ("prompts_generator.alpha", "new.video_prompts.alpha"),
        *_PROMPT_LAYERS,
        ("", "clip."),
    ],
    "xclip-hf": [
        ("vision_model.encoder.layers.#.message_fc.", "new.tower.message.#."),
        ("vision_model.encoder.layers.#.message_ln.", "new.tower.ln.#."),
        ("vision_model.encoder.layers.#.message_attn.", "new.tower.attn.#."),
        *_blocks("vision_model.encoder.layers", "clip.visual.transformer.resblocks"),
        ("vision_model.embeddings.class_embedding", "clip.visual.class_embedding"),
        ("vision_model.embeddings.patch_embedding.", "clip.visual.conv1."),
        ("vision_model.embeddings.position_embedding.weight", "clip.visual.positional_embedding"),
        ("vision_model.pre_layernorm.", "clip.visual.ln_pre."),
        ("vision_model.post_layernorm.", "clip.visual.ln_post."),
        ("visual_projection.weight", "clip.visual.proj"),
        *_blocks("text_model.encoder.layers", "clip.transformer.resblocks"),
        ("text_model.embeddings.token_embedding.", "clip.token_embedding."),
        ("text_model.embeddings.position_embedding.weight", "clip.positional_embedding"),
        ("text_model.final_layer_norm.", "clip.ln_final."),
        ("text_projection.weight", "clip.text_projection"),
        ("logit_scale", "clip.logit_scale"),
        *_blocks("mit.encoder.layers", "new.temporal.blocks"),
        ("mit.position_embedding", "new.temporal.positions"),
        ("prompts_visual_layernorm.", "new.video_prompts.ln_patches."),
        ("prompts_visual_projection", "new.video_prompts.proj"),
        ("prompts_generator.layernorm.", "new.video_prompts.ln_video."),
        ("prompts_generator.alpha", "new.video_prompts.alpha"),
        *_PROMPT_LAYERS,
    ],
    "actionclip": [
        ("fusion_model_state_dict.transformer.resblocks.#.", "new.temporal.blocks.#."),
        ("fusion_model_state_dict.frame_position_embeddings.weight", "new.temporal.positions"),
        ("fusion_model_state_dict.lstm_visual.", "new.temporal.lstm."),
        ("fusion_model_state_dict.shift.", "new.temporal.conv."),
        ("model_state_dict.", "clip."),
    ],
    "efficient-prompt": [
        ("clipmodel.", "clip."),
        ("embedding.weight", "new.prompts.table"),
        ("temporalEmbedding.weight", "new.temporal.positions"),
        ("temporalModelling.resblocks.#.", "new.temporal.blocks.#."),
    ],
    "m2clip": [
        *_TED,
        ("visual.t_adapter.fc1.", "new.temporal.down."),
        ("visual.t_adapter.conv.", "new.temporal.conv."),
        ("visual.t_adapter.fc2.", "new.temporal.up."),
        ("transformer.resblocks.#.adapter_pre_mlp.textad_fc1.", "new.text.adapters.#.down."),
        ("transformer.resblocks.#.adapter_pre_mlp.textad_fc2.", "new.text.adapters.#.up."),
        ("", "clip."),
    ],
}  # fmt: skip
_BUFFERS = re.compile(
    r"(^|\.)(input_resolution|context_length|vocab_size|position_ids|attn_mask)$"
)  # that hold no weights
_JOINED = re.compile(r"(.*attn\.)([qkv])_proj\.(weight|bias)")


def renamed(weights: Mapping[str, Tensor], kind: str) -> tuple[Weights, dict[str, str]]:
    """A file's weights under our names, in float32, and which of its names each comes from.

    Raises ModelError with the names of those that are nowhere in the table of `kind`.
    """
    weights = {name: tensor for name, tensor in weights.items() if not _BUFFERS.search(name)}
    if kind == "xclip-hf":
        weights = _joined(weights)
    found: Weights = {}
    sources: dict[str, str] = {}
    unknown = []
    for name, tensor in weights.items():
        if (ours := _translated(name, TABLES[kind])) is None:
            unknown.append(name)
        else:
            found[ours], sources[ours] = tensor.detach().float(), name
    if unknown:
        raise ModelError(f"left over: {listed(unknown)}")
    if kind == "xclip-hf":
        for name in ("clip.visual.proj", "clip.text_projection"):
            if name in found:
                found[name] = found[name].T
    return found, sources


def their_name(ours: str, kind: str) -> str:
    """What a file of this kind calls one of our weights."""
    backwards = [(own, theirs) for theirs, own in TABLES[kind]]
    return _translated(ours, sorted(backwards, key=lambda pair: -len(pair[0]))) or ours


def _translated(name: str, table: Names) -> str | None:
    for begin, becomes in table:
        pattern = re.escape(begin).replace(r"\#", r"(\d+)")
        if match := re.match(pattern, name):
            if not begin.endswith(".") and begin and match.end() != len(name):
                continue
            return becomes.replace("#", match.group(1) if match.groups() else "#") + name[match.end() :]
    return None


def _joined(weights: Mapping[str, Tensor]) -> Weights:
    """Attention's three projections as one, but for those of the prompts, which stay apart here too."""
    found: Weights = {}
    apart: dict[str, Weights] = {}
    for name, tensor in weights.items():
        match = _JOINED.fullmatch(name)
        if match and not name.startswith("prompts_generator."):
            apart.setdefault(f"{match.group(1)}in_proj_{match.group(3)}", {})[match.group(2)] = tensor
        else:
            found[name] = tensor
    for name, parts in apart.items():
        if len(parts) != 3:
            begin, _, what = name.rpartition("in_proj_")
            missing = [f"{begin}{part}_proj.{what}" for part in "qkv" if part not in parts]
            raise ModelError(f"missing: {listed(missing)}")
        found[name] = torch.cat([parts[part] for part in "qkv"])
    return found


def layers_in(weights: Mapping[str, Tensor], begin: str) -> int:
    """How many numbered layers there are under a name."""
    numbers = {
        int(m.group(1))
        for name in weights
        if (m := re.match(re.escape(begin) + r"(\d+)\.", name)) is not None
    }
    return max(numbers, default=-1) + 1
