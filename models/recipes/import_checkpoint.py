"""The authors' released files, and X-CLIP in Hugging Face's layout, as checkpoints of ours.

A released file holds all of CLIP, trained on, and what the system adds to it. They come apart: CLIP becomes a model
folder of its own (`clip/`), which the checkpoint beside it stands on, so frame vectors of systems that leave the image
tower as it is can be stored and searched like those of any model.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vsearch.errors import ModelError, listed
from vsearch.models.backbone import load_weights
from vsearch.models.published import read_content
from vsearch.models.recipes.checkpoint import LOCAL, Card, put, save
from vsearch.models.recipes.layouts import Weights, layers_in, renamed, their_name
from vsearch.models.recipes.recipe import Recipe, load_recipe
from vsearch.models.recipes.video_text import VideoText

KINDS = ("clip4clip", "xclip", "actionclip", "efficient-prompt", "m2clip")
_OPENAI = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_WRAPPINGS = ("model", "state_dict", "model_state_dict")
_FUSION = "fusion_model_state_dict"


def import_checkpoint(file: Path, kind: str, folder: Path, arch: str = "") -> tuple[Card, list[str]]:
    """Write the checkpoint into `folder`, which must be empty or new. Gives its card, and what was left out and why.

    `file`: the authors' file, or a folder as the hub serves it. `kind`: one of KINDS. `arch`: open_clip's name of the
    CLIP in it; by default what its weights show. Raises ModelError naming the keys that are missing or left over.
    """
    if kind not in KINDS:
        raise ModelError(f"unknown system {kind!r}; known: {', '.join(KINDS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} is there already; give another --out, or remove it")
    source, told = _weights_file(file), {}
    if source.parent == file and (file / "config.json").is_file():
        told = json.loads((file / "config.json").read_text(encoding="utf-8"))
    try:
        weights = _state(read_released(source), kind)
        layout = "xclip-hf" if "vision_model.pre_layernorm.weight" in weights else kind
        weights, remarks = _without_training_heads(weights, layout)
        ours, sources = renamed(weights, layout)
        if layout == "m2clip":
            ours, sources = _numbered_from_first(ours, sources)
        recipe = _recipe(kind, ours)
        config = _clip_config(ours, arch, told)
        ours = _checked(ours, sources, layout, recipe, config)
    except ModelError as fault:
        raise ModelError(f"{file} is no checkpoint of {kind} as it was released: {fault}") from fault
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=_parent(folder)) as place:
        written = Path(place) / folder.name
        _write_clip(written / LOCAL, ours, config)
        backbone = load_weights(str(written / LOCAL), "cpu")
        model = VideoText(recipe, backbone)
        put(model, {name: tensor for name, tensor in ours.items() if name.startswith("new.")}, file)
        about = {"name": file.name, "split": f"released {kind}", "videos": []}
        card = save(written, model, backbone, about, {}, 0, model_name=f"./{LOCAL}")
        written.replace(folder)
    return card, remarks


def _parent(folder: Path) -> Path:
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise ModelError(f"{parent} is not there; make it first, or give another --out")
    return parent


def _write_clip(folder: Path, ours: Weights, config: dict[str, Any]) -> None:
    """CLIP as a model folder that `--model` takes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    state = {
        name.removeprefix("clip."): tensor.contiguous().clone()
        for name, tensor in ours.items()
        if name.startswith("clip.")
    }
    save_file(state, folder / "open_clip_model.safetensors")
    said = {"model_cfg": config, "preprocess_cfg": {"size": config["vision_cfg"]["image_size"], **_OPENAI}}
    (folder / "open_clip_config.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def read_released(file: Path) -> Any:
    """What a released file holds. Nothing in it is run: settings of the two common kinds become plain ones."""
    known: list[Any] = [Namespace, (OrderedDict, "yacs.config.CfgNode")]
    with torch.serialization.safe_globals(known):
        return read_content(file)


def _weights_file(file: Path) -> Path:
    if not file.is_dir():
        if not file.is_file():
            raise ModelError(f"{file} is not there")
        return file
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (file / name).is_file():
            return file / name
    raise ModelError(f"{file} holds neither model.safetensors nor pytorch_model.bin")


def _state(content: Any, kind: str) -> Weights:
    """Names to tensors, without the wrappings of trainers. ActionCLIP's two parts keep their names in front."""
    if not isinstance(content, dict):
        raise ModelError("no weights by name in it")
    parts: dict[str, Any] = {}
    if kind == "actionclip":
        for outer in ("model_state_dict", _FUSION):
            if not isinstance(content.get(outer), dict):
                raise ModelError(f"missing: {outer}")
            parts |= {f"{outer}.{_bare(name)}": value for name, value in content[outer].items()}
    else:
        for wrapping in _WRAPPINGS:
            if isinstance(content.get(wrapping), dict):
                content = content[wrapping]
        parts = {_bare(name): value for name, value in content.items()}
    strange = [name for name, value in parts.items() if not isinstance(value, torch.Tensor)]
    if strange or not parts:
        raise ModelError(f"no weights: {listed(strange)}" if strange else "no weights by name in it")
    return parts


def _bare(name: Any) -> str:
    return str(name).removeprefix("module.")


def _without_training_heads(weights: Weights, layout: str) -> tuple[Weights, list[str]]:
    """What only training asked for, or nothing at all, is left out."""
    idle: dict[str, str] = {}
    if layout == "m2clip":
        for name in weights:
            if name.startswith(("visual.adapter_fc.", "mlm_adapter.")):
                idle[name] = "the heads of its closed classes and masked words, which no search asks"
        idle |= dict.fromkeys(_copied_block(weights), "the block of its masked words")
    lstm, shift = "lstm_visual.", f"{_FUSION}.shift."
    if any(name.startswith((lstm, f"{_FUSION}.{lstm}", shift)) for name in weights):
        idle |= {
            name: "positions, which this head never reads"
            for name in weights
            if name.endswith("frame_position_embeddings.weight")
        }
    remarks = [f"left out: {why}" for why in dict.fromkeys(idle.values())]
    if layout == "actionclip" and f"{shift}weight" in weights:
        remarks.append(
            "the release runs this Conv_1D with time and channels interchanged, and here it runs over time: other vectors"
        )
    return {name: tensor for name, tensor in weights.items() if name not in idle}, remarks


def _copied_block(weights: Weights) -> list[str]:
    """M2-CLIP's thirteenth text block: frozen, and but for its adapters a copy of the one before."""
    count = layers_in(weights, "transformer.resblocks.")
    last, before = (f"transformer.resblocks.{count - back}." for back in (1, 2))
    own = [name for name in weights if name.startswith(last)]
    plain = [name for name in own if ".adapter_" not in name]
    if count < 2 or not all(
        torch.equal(weights[name], weights.get(before + name.removeprefix(last), torch.empty(0)))
        for name in plain
    ):
        return []
    return own


def _numbered_from_first(weights: Weights, sources: Mapping[str, str]) -> tuple[Weights, dict[str, str]]:
    """M2-CLIP's text adapters by their place among those that there are."""
    begin = "new.text.adapters."
    blocks = sorted({int(name.split(".")[3]) for name in weights if name.startswith(begin)})
    if not blocks:
        return weights, dict(sources)
    if blocks != list(range(blocks[0], layers_in(weights, "clip.transformer.resblocks."))):
        raise ModelError(f"its text adapters are in blocks {blocks}, not in the last ones")
    becomes = {
        name: name.replace(f"{begin}{block}.", f"{begin}{block - blocks[0]}.")
        for name in weights
        for block in blocks
        if name.startswith(f"{begin}{block}.")
    }
    return (
        {becomes.get(name, name): tensor for name, tensor in weights.items()},
        {becomes.get(name, name): theirs for name, theirs in sources.items()},
    )


def _recipe(kind: str, ours: Weights) -> Recipe:
    """The recipe that these weights are of, with nothing left to train in CLIP, which is the checkpoint's own."""
    begins = {".".join(name.split(".")[:3]) for name in ours}
    has_blocks = "new.temporal.blocks" in begins
    if kind == "clip4clip":
        name = "clip4clip"
        if "new.tight.score" in begins:
            name = "clip4clip-tight"
        elif has_blocks:
            name = "clip4clip-seqtransf"
        elif "new.temporal.lstm" in begins:
            name = "clip4clip-seqlstm"
    elif kind == "xclip":
        name = "xclip-prompts" if "new.video_prompts.alpha" in begins else "xclip"
    else:
        name = kind
    recipe = replace(load_recipe(name), train_image=False, train_text=False, train_scale=False)
    if "new.tower.conv" in begins:
        recipe = replace(recipe, tower=load_recipe("clip4clip-3d").tower)
    temporal = replace(recipe.temporal, from_text=False)
    if has_blocks or "new.temporal.positions" in begins:
        layers = layers_in(ours, "new.temporal.blocks.")
        rows = ours.get("new.temporal.positions", torch.empty(1, 1)).shape[-2]
        temporal = replace(temporal, kind="transformer", layers=layers, positions=rows)
    elif kind in ("actionclip", "efficient-prompt"):
        others = {"new.temporal.lstm": "lstm", "new.temporal.conv": "conv"}
        found: Any = next((others[begin] for begin in begins if begin in others), "mean")
        temporal = replace(temporal, kind=found)
    recipe = replace(recipe, temporal=temporal)
    if kind == "xclip":
        recipe = replace(recipe, frames=temporal.positions)
    elif kind == "efficient-prompt":
        recipe = replace(recipe, text=replace(recipe.text, released_layout=True))
    elif kind == "m2clip":
        places = ("new.tower.attention_adapters", "new.tower.mlp_adapters")
        hidden = next((t.shape[0] for n, t in ours.items() if n.endswith(".difference_down.weight")), 384)
        recipe = replace(
            recipe,
            tower=replace(
                recipe.tower,
                hidden=hidden,
                before_attention=places[0] in begins,
                before_mlp=places[1] in begins,
            ),
            text=replace(
                recipe.text, adapters=layers_in(ours, "new.text.adapters."), hidden=_text_hidden(ours)
            ),
            loss=replace(recipe.loss, cmlm=0.0, vc=0.0),
        )
    return recipe


def _text_hidden(ours: Weights) -> int:
    return next((t.shape[0] for n, t in ours.items() if n.startswith("new.text.adapters.0.down.")), 384)


def _clip_config(ours: Weights, arch: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's configuration of the CLIP: of that name, or what the shapes of its weights show and `told`, Hugging
    Face's config.json, adds to it."""
    import open_clip

    if arch:
        config = open_clip.get_model_config(arch)
        if config is None:
            raise ModelError(f"there is no architecture {arch!r}; `vsearch models list` shows the names")
        return {**config, "quick_gelu": True}
    try:
        patches, places = ours["clip.visual.conv1.weight"], ours["clip.visual.positional_embedding"]
        words, table = ours["clip.token_embedding.weight"], ours["clip.positional_embedding"]
        dim = ours["clip.text_projection"].shape[1]
    except KeyError as fault:
        raise ModelError(f"missing: {fault.args[0].removeprefix('clip.')} of its CLIP") from fault
    width, patch = patches.shape[0], patches.shape[-1]
    vision, text = told.get("vision_config", {}), told.get("text_config", {})
    for part in (vision, text):
        if part.get("hidden_act", "quick_gelu") != "quick_gelu":
            raise ModelError(f"its activation is {part['hidden_act']}, and CLIP's is quick_gelu")
    return {
        "embed_dim": dim,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": round((len(places) - 1) ** 0.5) * patch,
            "layers": layers_in(ours, "clip.visual.transformer.resblocks."),
            "width": width,
            "patch_size": patch,
            "head_width": width // vision.get("num_attention_heads", max(1, width // 64)),
        },
        "text_cfg": {
            "context_length": len(table),
            "vocab_size": len(words),
            "width": words.shape[1],
            "heads": text.get("num_attention_heads", max(1, words.shape[1] // 64)),
            "layers": layers_in(ours, "clip.transformer.resblocks."),
        },
    }


def _checked(
    ours: Weights, sources: Mapping[str, str], layout: str, recipe: Recipe, config: dict[str, Any]
) -> Weights:
    """In the shapes that they have here. Raises ModelError with the names, as the file has them, of weights that do not
    fit, are missing or too many."""
    expected = _expected(recipe, config)
    missing = [their_name(name, layout) for name in expected if name not in ours]
    left = [sources[name] for name in ours if name not in expected]
    if missing or left:
        said = [f"missing: {listed(missing)}"] * bool(missing) + [f"left over: {listed(left)}"] * bool(left)
        raise ModelError("; ".join(said))
    for name, shape in expected.items():
        if ours[name].numel() != shape.numel():
            raise ModelError(f"{sources[name]} is {list(ours[name].shape)}, not {list(shape)}")
    return {name: ours[name].reshape(shape) for name, shape in expected.items()}


def _expected(recipe: Recipe, config: dict[str, Any]) -> dict[str, torch.Size]:
    """Shapes by name of CLIP's weights and of what the recipe adds."""
    import open_clip

    with torch.device("meta"):
        known = ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")
        clip = open_clip.model.CLIP(**{key: config[key] for key in known})
        found = {f"clip.{name}": tensor.shape for name, tensor in clip.state_dict().items()}
        outline: Any = SimpleNamespace(
            clip=clip, dim=config["embed_dim"], device="meta", tokenizer=None,
            preprocess=SimpleNamespace(mean=_OPENAI["mean"], std=_OPENAI["std"]),
        )  # fmt: skip
        return found | {name: p.shape for name, p in VideoText(recipe, outline).trained()}
