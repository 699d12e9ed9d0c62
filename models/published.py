"""Published models: every architecture of open_clip, with weights from its hub, from a file, or from a folder.

A weights file is laid over the architecture name by name: a key that is missing, left over or of another shape is named
and refused. What a file cannot say of itself, its activation and its preprocessing, is taken from it where it shows
OpenAI's own mark, and else asked for.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import ModelError, listed
from vsearch.models.hf_text import (
    described_text_tower,
    is_unreachable,
    needs_transformers,
    read_tokenizer,
    require_transformers,
)
from vsearch.models.preprocess import Preprocess, preprocess_of

if TYPE_CHECKING:
    import torch

_OPENAI_KEYS = {
    "input_resolution",
    "context_length",
    "vocab_size",
}  # numbers that OpenAI's files hold beside weights
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """`sources`: files on this machine that it was read from; none where open_clip keeps them."""

    clip: torch.nn.Module
    tokenizer: Callable[..., torch.Tensor]
    preprocess: Preprocess
    sources: list[Path]


@dataclass(frozen=True)
class _Place:
    """Where a name leads: open_clip's name of the architecture, a tag or a weights file, the folder of either."""

    arch: str
    tag: str = ""
    file: Path | None = None
    folder: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    remark: str = ""

    @property
    def remote(self) -> bool:
        return self.file is None


def load_published(name: str) -> Published:
    """The model of that name (see `backbone.py`) on the CPU. Raises ModelError."""
    import open_clip

    with quiet(), _sentences(name):
        place = _locate(name)
        config = open_clip.get_model_config(place.arch)
        if needs_transformers(config):
            require_transformers(name)
        tokenizer = read_tokenizer(place.arch, config, place.folder)
        with described_text_tower(config, place.folder) as described:
            clip = open_clip.create_model(
                place.arch, pretrained=place.tag or None, load_weights=place.remote,
                require_pretrained=place.remote, pretrained_text=False, **place.options, **described,
            )  # fmt: skip
        if place.file is not None:
            _lay_over(clip, place.file)
        pre = preprocess_of(open_clip.get_model_preprocess_cfg(clip))
    if place.remark:
        _log.warning("%s", place.remark)
    return Published(clip, tokenizer, pre, _sources(place))


def outline_of(name: str) -> torch.nn.Module:
    """Such a model as it is built, without values in its tensors, on torch's device 'meta'. Raises ModelError."""
    import open_clip
    import torch

    with quiet(), _sentences(name), torch.device("meta"):
        place = _locate(name, weights=False)
        with described_text_tower(open_clip.get_model_config(place.arch), place.folder) as described:
            return open_clip.create_model(
                place.arch,
                load_weights=False,
                pretrained_text=False,
                device="meta",
                **place.options,
                **described,
            )


def list_published() -> list[tuple[str, str]]:
    """(name, tag) of all that open_clip offers by name."""
    import open_clip

    return list(open_clip.list_pretrained())


def _locate(name: str, weights: bool = True) -> _Place:
    """`weights` False: a folder need not hold any. Raises ModelError for unknown names."""
    import open_clip

    arch, _, tag = name.partition(":")
    if (folder := Path(name)).is_dir() or (arch == "local-dir" and (folder := Path(tag)).is_dir()):
        folder = folder.resolve()
        if not (folder / "open_clip_config.json").is_file():
            raise ModelError(f"{folder} is no model: it has no open_clip_config.json")
        return _Place(f"local-dir:{folder}", "", _weights_in(folder) if weights else None, folder)
    if arch in ("hf-hub", "local-dir"):
        return _Place(name)
    if arch not in open_clip.list_models():
        raise ModelError(f"unknown model {arch!r}; `vsearch models list` shows the names")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if not tag:
        known = ", ".join(tags) or "none"
        raise ModelError(
            f"model {arch!r} needs weights: {arch}:TAG (tags: {known}) or {arch}:/path/to/weights"
        )
    if (file := Path(tag)).is_file():
        # A bare file says nothing of its preprocessing; the architecture's own tags do when they agree.
        options: dict[str, Any] = {"force_preprocess_cfg": _agreed_preprocess(arch)}
        quick, remark = _activation(arch, file)
        return _Place(arch, "", file.resolve(), file.resolve().parent, options | quick, remark)
    if tag not in tags:
        raise ModelError(f"{tag!r} is neither a pretrained tag of {arch} nor a weights file")
    quick_gelu = bool(open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu"))
    return _Place(arch, tag, options={"force_quick_gelu": quick_gelu})


def _weights_in(folder: Path) -> Path:
    """A hub's folder may hold weights for several programs: open_clip's own first."""
    found = [path for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file()]
    if not found:
        raise ModelError(f"{folder} holds no weights, such as open_clip_model.safetensors")
    return min(
        found,
        key=lambda p: (not p.name.startswith("open_clip"), p.suffix != ".safetensors", p.name),
    )


def _activation(arch: str, file: Path) -> tuple[dict[str, Any], str]:
    """Whether a weights file is for QuickGELU: an option for open_clip, and what the user is to be told."""
    import open_clip

    if open_clip.get_model_config(arch).get("quick_gelu"):
        return {}, ""
    if "quickgelu" in file.name.lower() or keys_of(file) >= _OPENAI_KEYS:
        return {"force_quick_gelu": True}, ""
    tags = open_clip.list_pretrained_tags_by_model(arch)
    quick = [tag for tag in tags if open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu")]
    if not quick:
        return {}, ""
    wanted = (
        f"{arch}-quickgelu:{file}"
        if f"{arch}-quickgelu" in open_clip.list_models()
        else "a folder with its config"
    )
    return {}, (
        f"{file.name} does not say its activation and is run with GELU; weights that stem from "
        f"{', '.join(quick)} need QuickGELU: give {wanted}"
    )


def keys_of(file: Path) -> set[str]:
    """The names in a weights file, at little cost. Raises ModelError for files that hold more than tensors."""
    if file.suffix == ".npz":
        return set()
    if file.suffix != ".safetensors":
        return set(read_tensors(file, mapped=True))
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as opened:
            return set(opened.keys())
    except (OSError, SafetensorError) as fault:
        raise ModelError(f"{file}: {_why_not_weights('')}") from fault


def read_tensors(file: Path, mapped: bool = False) -> dict[str, torch.Tensor]:
    """The state dict of a weights file, without the wrappings that trainers put around it.

    `mapped`: leave what can be on disk. Raises ModelError for files that are no weights, or hold more than tensors.
    """
    content = read_content(file, mapped)
    for wrapping in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{file}: no weights by name in it")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def read_content(file: Path, mapped: bool = False) -> Any:
    """The same with whatever else was saved beside them, as numbers, texts, lists and dicts."""
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        except (RuntimeError, ValueError):  # a file of the old kind cannot be mapped
            if not mapped:
                raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as fault:  # safetensors, zip and pickle have no common type for what they cannot read
        raise ModelError(f"{file}: {_why_not_weights(str(fault))}") from fault


def _why_not_weights(fault: str) -> str:
    if "TorchScript" in fault:
        return (
            "a TorchScript program, which is not run; OpenAI's models are there by name, as ViT-B-32:openai, or save "
            "the state dict of the loaded program with torch.save"
        )
    if "weights_only" in fault or "Weights only" in fault:
        return "holds more than tensors (a pickled program), which is not run; save its state dict alone"
    return "not a weights file, or a damaged one"


def _lay_over(clip: torch.nn.Module, file: Path) -> None:
    """The weights of a file into a model, every one. Raises ModelError with the names of those that do not fit."""
    import open_clip

    try:
        found = open_clip.load_checkpoint(clip, str(file), strict=False, weights_only=True)
    except RuntimeError as fault:
        shapes = re.findall(r"size mismatch for (\S+): .*?\[([\d, ]*)\]\).*?\[([\d, ]*)\]\)", str(fault))
        if not shapes:
            raise
        first = [f"{key} is [{theirs}], not [{own}]" for key, theirs, own in shapes]
        raise ModelError(f"{file}: weights of another architecture ({listed(first)})") from fault
    if not found:
        return
    fixed = {name for name, _ in clip.named_buffers()} | _OPENAI_KEYS  # which a model makes itself
    missing, left = found.missing_keys, [key for key in found.unexpected_keys if key not in fixed]
    if missing or left:
        said = [f"missing: {listed(missing)}"] * bool(missing) + [f"left over: {listed(left)}"] * bool(left)
        raise ModelError(f"{file}: weights of another architecture ({'; '.join(said)})")


def _sources(place: _Place) -> list[Path]:
    if place.arch.startswith("local-dir:") and place.folder:
        return sorted(path.resolve() for path in place.folder.iterdir() if path.is_file())
    return [place.file] if place.file else []


def _agreed_preprocess(arch: str) -> dict[str, Any]:
    """The preprocessing that all pretrained tags of an architecture share (open_clip issue #1068)."""
    import open_clip

    keys = ("mean", "std", "interpolation", "resize_mode")
    seen = []
    for tag in open_clip.list_pretrained_tags_by_model(arch):
        cfg = open_clip.get_pretrained_cfg(arch, tag)
        values = {k: cfg[k] for k in keys if cfg.get(k) is not None}
        if values not in seen:
            seen.append(values)
    if len(seen) > 1:
        raise ModelError(
            f"weights of {arch} come with different preprocessings, and a bare file does not say which is its own; "
            "give a folder with open_clip_config.json and the weights instead"
        )
    return copy.deepcopy(seen[0]) if seen else {}


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Whatever open_clip, its hub and transformers raise becomes one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as fault:  # hub, file format and shape errors have no common type
        first_line = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        advice = " (no network? give a local file or folder instead)" if is_unreachable(fault) else ""
        raise ModelError(f"cannot load model {name!r}: {first_line[:300]}{advice}") from fault


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip reports its every step to the root logger; only errors are worth a line."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub"), logging.getLogger("transformers")]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
