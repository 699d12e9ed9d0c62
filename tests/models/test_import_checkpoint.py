"""Released files, made here with random weights under the authors' names, become checkpoints that work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.media import write_video
from vsearch.errors import ModelError
from vsearch.models import load_backbone
from vsearch.models.recipes import VideoText, load, load_recipe, read_card
from vsearch.models.recipes.import_checkpoint import import_checkpoint

WIDTH, DIM, LAYERS, PATCH, SIDE = 128, 64, 2, 16, 64
TEXTS = ["a dog running", "people talk at a table", "rain"]
FRAMES = torch.randint(
    0, 256, (2, 4, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
)
MASK = torch.ones(2, 4, dtype=torch.bool)
State = dict[str, torch.Tensor]


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Off its start, where convolutions are zero and copies are alike."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "logit_scale" not in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module


def system(tmp_path: Path, name: str, **changes: Any) -> VideoText:
    """A recipe over a small CLIP of OpenAI's kind, with random weights."""
    import json

    import open_clip

    torch.manual_seed(0)
    config = {
        "embed_dim": DIM, "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH, "head_width": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": DIM, "heads": 1, "layers": LAYERS},
    }  # fmt: skip
    folder = tmp_path / "base"
    folder.mkdir()
    pre = {
        "size": SIDE, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pre}))
    torch.save(open_clip.model.CLIP(**config).state_dict(), folder / "open_clip_pytorch_model.bin")
    model = VideoText(replace(load_recipe(name), **changes), load_backbone(str(folder), "cpu"))
    return shaken(model).eval()  # type: ignore[return-value]


def clip_of(model: VideoText, prefix: str = "") -> State:
    return {f"{prefix}{name}": value.clone() for name, value in model.clip.state_dict().items()}


def moved(module: torch.nn.Module, *names: tuple[str, str]) -> State:
    """The state of a part under other names: (how ours begins, how theirs does)."""
    found = {}
    for name, value in module.state_dict().items():
        [(ours, theirs), *_] = [(o, t) for o, t in names if name.startswith(o)]
        found[theirs + name.removeprefix(ours)] = value.clone()
    return found


def clip4clip(tmp_path: Path, recipe: str) -> tuple[VideoText, Any]:
    model = system(tmp_path, recipe)
    state = clip_of(model, "clip.")
    if "seqtransf" in recipe:
        state |= moved(
            model.new["temporal"],
            ("blocks.", "transformerClip.resblocks."),
            ("positions", "frame_position_embeddings.weight"),
        )
    if "seqlstm" in recipe:
        state |= moved(model.new["temporal"], ("lstm.", "lstm_visual."))
        state["frame_position_embeddings.weight"] = torch.zeros(77, DIM)
    if "3d" in recipe:
        state |= {"clip.visual.conv2.weight": model.new["tower"].conv.weight.detach().clone()}
    if "tight" in recipe:
        state |= moved(
            model.new["tight"], ("blocks.", "cross.transformer.resblocks."), ("positions", "cross.embeddings.position_embeddings.weight"),
            ("pooler.0.", "cross.pooler.ln_pool."), ("pooler.1.", "cross.pooler.dense."), ("score.", "similarity_dense."),
        )  # fmt: skip
    return model, state


def xclip(tmp_path: Path, recipe: str = "xclip-prompts") -> tuple[VideoText, Any]:
    temporal = replace(load_recipe(recipe).temporal, positions=4)
    model = system(tmp_path, recipe, temporal=temporal, frames=4)
    state = clip_of(model)
    tower, prompts = model.new["tower"], model.new["video_prompts"]
    for layer in range(LAYERS):
        theirs = f"visual.transformer.resblocks.{layer}."
        state |= moved(tower.message[layer], ("", theirs + "message_fc."))
        state |= moved(tower.ln[layer], ("", theirs + "message_ln."))
        state |= moved(tower.attn[layer], ("", theirs + "message_attn."))
    state |= moved(
        model.new["temporal"], ("blocks.", "mit.resblocks."), ("positions", "mit.positional_embedding")
    )
    state["mit.positional_embedding"] = state["mit.positional_embedding"][None]
    state |= moved(prompts.ln_patches, ("", "prompts_visual_ln.")) | moved(
        prompts.ln_video, ("", "prompts_generator.norm.")
    )
    state |= {"prompts_visual_proj": prompts.proj.data, "prompts_generator.alpha": prompts.alpha.data}
    for layer, block in enumerate(prompts.layers):
        state |= moved(
            block, *((f"{ours}.", f"prompts_generator.decoder.{layer}.{theirs}.") for ours, theirs in (
                ("ln_1", "norm1"), ("ln_2", "norm3"), ("q", "cross_attn.q_proj"), ("k", "cross_attn.k_proj"),
                ("v", "cross_attn.v_proj"), ("out", "cross_attn.proj"), ("mlp.c_fc", "mlp.0"), ("mlp.c_proj", "mlp.3"),
            ))
        )  # fmt: skip
    return model, {"model": state, "epoch": 3, "max_accuracy": 80.5}


def actionclip(tmp_path: Path) -> tuple[VideoText, Any]:
    model = system(tmp_path, "actionclip")
    fusion = moved(
        model.new["temporal"], ("blocks.", "module.transformer.resblocks."), ("positions", "module.frame_position_embeddings.weight"),
    )  # fmt: skip
    return model, {
        "epoch": 1,
        "model_state_dict": clip_of(model, "module."),
        "fusion_model_state_dict": fusion,
    }


def efficient_prompt(tmp_path: Path) -> tuple[VideoText, Any]:
    text = replace(load_recipe("efficient-prompt").text, released_layout=True)
    model = system(tmp_path, "efficient-prompt", text=text)
    state = clip_of(model, "clipmodel.") | {"embedding.weight": model.new["prompts"].table.data}
    state |= moved(
        model.new["temporal"], ("blocks.", "temporalModelling.resblocks."), ("positions", "temporalEmbedding.weight"),
    )  # fmt: skip
    return model, state


def m2clip(tmp_path: Path) -> tuple[VideoText, Any]:
    recipe = load_recipe("m2clip")
    model = system(
        tmp_path, "m2clip", tower=replace(recipe.tower, hidden=24), text=replace(recipe.text, hidden=16)
    )
    state = clip_of(model)
    for layer, adapter in enumerate(model.new["tower"].mlp_adapters):
        theirs = f"visual.transformer.resblocks.{layer}.adapter_pre_mlp."
        state |= moved(
            adapter, ("down.", theirs + "fc1."), ("over_time.", theirs + "conv."), ("up.", theirs + "fc2."),
            ("difference_down.", theirs + "offset_adapter.fc1."), ("over_space.", theirs + "offset_adapter.conv."),
            ("difference_up.", theirs + "offset_adapter.fc2."),
        )  # fmt: skip
        conv = theirs + "offset_adapter.conv.weight"
        state[conv] = state[conv].unsqueeze(2)  # a 3-D convolution, one frame deep
    state |= moved(
        model.new["temporal"], ("down.", "visual.t_adapter.fc1."), ("conv.", "visual.t_adapter.conv."), ("up.", "visual.t_adapter.fc2."),
    )  # fmt: skip
    last = f"transformer.resblocks.{LAYERS - 1}."
    extra = f"transformer.resblocks.{LAYERS}."
    state |= {extra + n.removeprefix(last): v.clone() for n, v in state.items() if n.startswith(last)}
    for block in (last, extra):
        state |= moved(
            model.new["text"].adapters[0], ("down.", block + "adapter_pre_mlp.textad_fc1."), ("up.", block + "adapter_pre_mlp.textad_fc2."),
        )  # fmt: skip
    state |= {"visual.adapter_fc.weight": torch.zeros(5, WIDTH), "visual.adapter_fc.bias": torch.zeros(5)}
    state |= {"mlm_adapter.transform.dense.weight": torch.zeros(DIM, DIM), "mlm_adapter.bias": torch.zeros(7)}
    return model, {"model": state}


MADE = {
    "clip4clip": lambda p: clip4clip(p, "clip4clip"),
    "clip4clip-seqtransf": lambda p: clip4clip(p, "clip4clip-seqtransf"),
    "clip4clip-seqlstm": lambda p: clip4clip(p, "clip4clip-seqlstm"),
    "clip4clip-3d": lambda p: clip4clip(p, "clip4clip-3d"),
    "clip4clip-tight": lambda p: clip4clip(p, "clip4clip-tight"),
    "xclip": xclip,
    "actionclip": actionclip,
    "efficient-prompt": efficient_prompt,
    "m2clip": m2clip,
}


def kind_of(name: str) -> str:
    return "clip4clip" if name.startswith("clip4clip") else name


def logits(model: VideoText) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model.embed_video(FRAMES, MASK), model.embed_text(TEXTS))


def imported(folder: Path) -> VideoText:
    return load(folder, load_backbone(read_card(folder).model, "cpu"))[0]


@pytest.mark.parametrize("name", MADE)
def test_a_released_file_gives_the_logits_of_the_model_that_it_is_of(name: str, tmp_path: Path) -> None:
    model, content = MADE[name](tmp_path)
    torch.save(content, tmp_path / "released.pth")
    card, _ = import_checkpoint(tmp_path / "released.pth", kind_of(name), tmp_path / "out")
    assert card.recipe.name.startswith(name if name != "clip4clip-3d" else "clip4clip")
    torch.testing.assert_close(logits(imported(tmp_path / "out")), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["clip4clip-seqtransf", "xclip", "actionclip", "efficient-prompt", "m2clip"])
def test_keys_missing_and_left_over_are_named_as_the_file_has_them(name: str, tmp_path: Path) -> None:
    _, content = MADE[name](tmp_path)
    outer = {"xclip": "model", "m2clip": "model", "actionclip": "fusion_model_state_dict"}.get(name)
    state = content[outer] if outer else content
    gone = {
        "clip4clip-seqtransf": "transformerClip.resblocks.1.ln_1.weight", "xclip": "mit.resblocks.0.ln_2.bias",
        "actionclip": "module.transformer.resblocks.3.mlp.c_fc.bias", "efficient-prompt": "embedding.weight",
        "m2clip": "visual.t_adapter.fc2.bias",
    }[name]  # fmt: skip
    kept = state.pop(gone)
    file = tmp_path / "released.pth"
    torch.save(content, file)
    with pytest.raises(ModelError, match="missing: .*" + gone.removeprefix("module.").replace(".", r"\.")):
        import_checkpoint(file, kind_of(name), tmp_path / "out")
    state |= {gone: kept, "visual.joint_embedding": torch.zeros(3)}
    torch.save(content, file)
    with pytest.raises(ModelError, match=r"left over: .*visual\.joint_embedding"):
        import_checkpoint(file, kind_of(name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_saved_beside_the_weights_are_not_run_and_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = xclip(tmp_path)
    yacs = ModuleType("yacs.config")
    yacs.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", yacs)
        settings = yacs.CfgNode({"DATA": yacs.CfgNode({"FRAMES": 8})})
        settings.frozen = True
        torch.save(content | {"config": settings}, tmp_path / "released.pth")
    import_checkpoint(tmp_path / "released.pth", "xclip", tmp_path / "out")
    torch.save(content | {"config": Program()}, tmp_path / "released.pth")
    with pytest.raises(ModelError, match="holds more than tensors"):
        import_checkpoint(tmp_path / "released.pth", "xclip", tmp_path / "other")


class Program:
    """What only a pickle that runs code can hold."""


def test_the_architecture_that_is_named_must_be_that_of_the_weights(tmp_path: Path) -> None:
    _, content = clip4clip(tmp_path, "clip4clip")
    torch.save(content, tmp_path / "released.pth")
    with pytest.raises(ModelError, match=r"missing: .*resblocks\.2\."):
        import_checkpoint(tmp_path / "released.pth", "clip4clip", tmp_path / "out", "ViT-B-16")
    with pytest.raises(ModelError, match="there is no architecture 'ViT-B-17'"):
        import_checkpoint(tmp_path / "released.pth", "clip4clip", tmp_path / "out", "ViT-B-17")


def test_xclip_of_hugging_face_gives_the_vectors_and_logits_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra `hf` (transformers)")
    torch.manual_seed(0)
    config = transformers.XCLIPConfig(
        text_config={"hidden_size": DIM, "intermediate_size": 4 * DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "eos_token_id": 2},
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
            "image_size": SIDE, "patch_size": PATCH, "mit_hidden_size": DIM, "mit_intermediate_size": 4 * DIM,
            "mit_num_attention_heads": 1, "num_frames": 4,
        },
        projection_dim=DIM, prompt_num_attention_heads=1,
    )  # fmt: skip
    theirs = shaken(transformers.XCLIPModel(config)).eval()
    theirs.save_pretrained(tmp_path / "hub")
    _, remarks = import_checkpoint(tmp_path / "hub", "xclip", tmp_path / "out")
    ours = imported(tmp_path / "out")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (ours.mean, ours.std))
    pixels = (FRAMES.permute(0, 1, 4, 2, 3).float() / 255 - mean) / std
    ids = ours.tokenizer(TEXTS)
    with torch.inference_mode():
        expected = theirs(input_ids=ids, pixel_values=pixels, attention_mask=None)
        video = ours.embed_video(FRAMES, MASK)
        unit = torch.nn.functional.normalize(video.vectors, dim=-1)
        torch.testing.assert_close(unit, expected.video_embeds, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            ours.logits(video, ours.embed_text(TEXTS)), expected.logits_per_video, rtol=1e-4, atol=1e-4
        )
    assert not remarks


@pytest.mark.parametrize(
    "name",
    ["xclip", *(pytest.param(n, marks=pytest.mark.slow) for n in ("clip4clip-seqtransf", "actionclip", "efficient-prompt", "m2clip"))],
)  # fmt: skip
def test_an_imported_checkpoint_indexes_answers_names_actions_and_is_evaluated(
    name: str, tmp_path: Path, vsearch: Any
) -> None:
    _, content = MADE[name](tmp_path)
    torch.save(content, tmp_path / "released.pth")
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "one.mp4")
    write_video(tmp_path / "videos" / "two.mp4", frames=50)
    done = vsearch(
        "import-checkpoint", tmp_path / "released.pth", "--as", kind_of(name), "--out", "head", "--json"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "plain.csv").write_text("video,caption\none.mp4,a moving square\ntwo.mp4,a colour\n")
    found = vsearch(
        "eval",
        "--checkpoint",
        "head",
        "--dataset",
        "plain",
        "--annotations",
        "plain.csv",
        "--videos",
        "videos",
        "--json",
    )
    assert found.returncode == 0, found.stderr
    indexed = vsearch("index", tmp_path / "videos", "--head", "head")
    assert indexed.returncode == 0, indexed.stderr
    assert "one.mp4" in vsearch("query", "a moving square").stdout
    named = vsearch("classify", "videos/one.mp4", "--actions", "running, dancing", "--json")
    assert named.returncode == 0, named.stderr
    assert "dancing" in named.stdout
    assert vsearch("localize", "videos/one.mp4", "--actions", "running, dancing").returncode in (0, 1)


def test_what_is_there_already_is_not_written_over(tmp_path: Path, vsearch: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "released.pth").write_bytes(b"")
    done = vsearch("import-checkpoint", tmp_path / "released.pth", "--as", "xclip", "--out", "out")
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert np.array_equal([p.name for p in (tmp_path / "out").iterdir()], ["mine.txt"])
