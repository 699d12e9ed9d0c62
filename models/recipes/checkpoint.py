"""What a training leaves: `weights.safetensors` with the parameters that were trained, `checkpoint.json` with
everything needed to use them rightly: recipe, backbone, normalisation, colour order, sampling, data, metrics."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import ModelError
from vsearch.models.recipes.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from vsearch.models.backbone import Backbone
    from vsearch.models.recipes.video_text import VideoText

FORMAT = 1
WEIGHTS, CARD = "weights.safetensors", "checkpoint.json"
LOCAL = "clip"  # the folder of a checkpoint's own backbone, where it has one


@dataclass(frozen=True)
class Card:
    """The JSON beside the weights."""

    recipe: Recipe
    model: str
    backbone: str
    dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    data: dict[str, Any]
    labels: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    weights: str = ""
    colour_order: str = "RGB"
    sampling: str = "one frame from each of `frames` equal segments; the middle one when not training"
    format: int = FORMAT

    @property
    def identity(self) -> str:
        """Changes with anything that changes a vector: recipe, weights, normalisation, classes."""
        said = json.dumps(
            [self.recipe.as_dict(), self.weights, self.mean, self.std, self.labels], sort_keys=True
        )
        return f"{self.recipe.name}@{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}"


def save(
    folder: Path,
    model: VideoText,
    backbone: Backbone,
    data: dict[str, Any],
    metrics: dict[str, float],
    seed: int,
    model_name: str = "",
) -> Card:
    """Write both files, each whole or not at all. Weights come first: a card never names weights that are missing.
    `model_name`: where the backbone is found, if not under its own name; './…' is in the folder."""
    from safetensors.torch import save as to_bytes

    tensors = {name: p.detach().cpu().contiguous() for name, p in model.trained()}
    content = to_bytes(tensors)
    card = Card(
        model.recipe, model_name or backbone.name, backbone.identity, backbone.dim, tuple(model.mean), tuple(model.std),
        backbone.preprocess.size, data, tuple(model.labels), metrics, seed,
        hashlib.blake2b(content, digest_size=12).hexdigest(),
    )  # fmt: skip
    write_whole(folder / WEIGHTS, content)
    write_whole(folder / CARD, (json.dumps(asdict(card), indent=1) + "\n").encode())
    return card


def read_card(folder: Path) -> Card:
    """Raises ModelError when the folder holds no checkpoint, a damaged one, or one of a newer version."""
    path = folder / CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no card")
    except FileNotFoundError as fault:
        raise ModelError(f"{folder}: no checkpoint there ({CARD}); train one with `vsearch train`") from fault
    except (OSError, ValueError, RecursionError) as fault:
        raise _damaged(path) from fault
    if values.get("format") != FORMAT:
        raise ModelError(
            f"{path}: format {values.get('format')!r} is not known here; a newer vsearch wrote it"
        )
    try:
        values["recipe"] = read_recipe(values["recipe"], str(path))
        for name in ("mean", "std", "labels"):
            values[name] = tuple(values[name])
        if values["model"].startswith("./"):
            values["model"] = str(folder.resolve() / values["model"])
        return Card(**values)
    except (LookupError, TypeError, ValueError) as fault:
        raise _damaged(path) from fault


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is damaged: adopt or train its checkpoint again")


def load(folder: Path, backbone: Backbone) -> tuple[VideoText, Card]:
    """The trained model on its backbone, whose towers are changed in place where the recipe trained them.

    Raises ModelError for another backbone than the one it was trained on, and for damaged weights.
    """
    from safetensors.torch import load_file

    from vsearch.models.recipes.video_text import VideoText

    card = read_card(folder)
    if card.backbone != backbone.identity:
        raise ModelError(
            f"{folder} was trained on {card.model} ({card.backbone}), not on {backbone.name} ({backbone.identity}); "
            f"use --model {card.model}"
        )
    check_weights(folder, card)
    model = VideoText(card.recipe, backbone, card.labels)
    put(model, load_file(folder / WEIGHTS), folder)
    return model.eval(), card


def check_weights(folder: Path, card: Card) -> None:
    """Raises ModelError for other weights than the card's. Read in pieces: memory for the whole of them would take
    longer to get than they take to hash."""
    digest = hashlib.blake2b(digest_size=12)
    try:
        with (folder / WEIGHTS).open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as fault:
        raise ModelError(f"{folder / WEIGHTS} is missing or cannot be read") from fault
    if digest.hexdigest() != card.weights:
        raise ModelError(f"{folder / WEIGHTS}: not the weights that {CARD} names; the copy is damaged")


def put(model: VideoText, tensors: dict[str, Any], where: Path) -> None:
    """Trained parameters into the model; every one must be there and fit."""
    import torch

    parameters = dict(model.trained())
    if set(parameters) != set(tensors) or any(parameters[n].shape != t.shape for n, t in tensors.items()):
        raise ModelError(f"{where}: its weights do not fit the recipe it names")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, wholly or not at all. Raises ModelError when the disk does not take it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ModelError(f"cannot write {path} ({why}); what was written before is kept") from error
