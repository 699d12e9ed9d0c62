"""Recipes: which parts make up a system, what trains, and how. Data in TOML, checked against the classes below."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from vsearch.errors import ModelError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from typing import Literal

RECIPES = Path(__file__).parent


@dataclass(frozen=True)
class TextPart:
    """`prompts`: learned vectors; `templates`: ActionCLIP's sentences around labels; `template`: one sentence.

    `adapters`: adapted blocks at the end of the text tower (M2-CLIP), `hidden` wide.
    """

    kind: Literal["plain", "prompts", "templates"] = "plain"
    prefix: int = 16
    suffix: int = 16
    released_layout: bool = False
    template: str = "{}"
    adapters: int = 0
    hidden: int = 384


@dataclass(frozen=True)
class TowerPart:
    """`clip` is the backbone's own tower, frame by frame; the others need a ViT and re-encoding of videos."""

    kind: Literal["clip", "cross-frame", "ted", "shift", "patch3d"] = "clip"
    hidden: int = 384
    before_attention: bool = False
    before_mlp: bool = True


@dataclass(frozen=True)
class TemporalPart:
    kind: Literal["mean", "lstm", "conv", "transformer", "adapter"] = "mean"
    layers: int = 0
    positions: int = 77
    residual: bool = True
    std: float = 0.02
    from_text: bool = False


@dataclass(frozen=True)
class SimilarityPart:
    """`cosine` gives vectors to index; `tight` scores pairs and can only re-rank. `video-prompts` scores pairs, and what
    it bends, a sentence's vector, is good to search with as it was before."""

    kind: Literal["cosine", "tight", "video-prompts"] = "cosine"
    normalise_frames: bool = True


@dataclass(frozen=True)
class LossPart:
    """Weights of the losses. `temperature` 0: the backbone's learned scale. cmc, cmlm, vc need class labels.

    With class labels, `nce` is cross-entropy over the classes.
    """

    kind: Literal["nce", "kl"] = "nce"
    symmetric: bool = True
    temperature: float = 0.0
    contrastive: float = 1.0
    cmc: float = 0.0
    cmlm: float = 0.0
    vc: float = 0.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class OptimiserPart:
    """AdamW. `lr` for new parts, `backbone_lr` for CLIP's own weights; warm-up is a share of all steps; cosine to
    `floor` times the rate, or constant."""

    lr: float = 1e-4
    backbone_lr: float = 1e-7
    weight_decay: float = 0.2
    beta2: float = 0.98
    warmup: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    floor: float = 0.0
    epochs: int = 5
    batch: int = 128
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Recipe:
    name: str
    summary: str
    source: str
    frames: int = 12
    normalisation: Literal["backbone", "imagenet"] = "backbone"
    train_image: bool = False
    train_text: bool = False
    train_scale: bool = False
    text: TextPart = field(default_factory=TextPart)
    tower: TowerPart = field(default_factory=TowerPart)
    temporal: TemporalPart = field(default_factory=TemporalPart)
    similarity: SimilarityPart = field(default_factory=SimilarityPart)
    loss: LossPart = field(default_factory=LossPart)
    optimiser: OptimiserPart = field(default_factory=OptimiserPart)

    @property
    def in_network(self) -> bool:
        """Its weights change the frame vectors, so stored ones cannot be used: videos must be encoded again."""
        return self.train_image or self.tower.kind != "clip"

    @property
    def indexable(self) -> bool:
        """Videos and texts have vectors of their own."""
        return self.similarity.kind != "tight"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def on_frozen_frames(self) -> Recipe:
        """The same with the image tower left as it is, for training on stored frame vectors.

        Raises ModelError when the recipe is an in-network one by nature.
        """
        if self.tower.kind != "clip":
            raise ModelError(
                f"recipe {self.name} works inside the image tower ({self.tower.kind}); it cannot leave that frozen"
            )
        return replace(self, train_image=False)


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str | Path) -> Recipe:
    """A built-in recipe by name, or a TOML file. Raises ModelError with the place that is wrong."""
    path = Path(name) if str(name).endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ModelError(f"unknown recipe {str(name)!r}; known: {', '.join(recipe_names())}, or a .toml file")
    try:
        return read_recipe(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except tomllib.TOMLDecodeError as fault:
        raise ModelError(f"{path}: not TOML ({fault})") from fault


def read_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Checked against the schema: unknown keys, wrong types and unknown choices are refused."""
    return _build(Recipe, values, where)


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ModelError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return kind(
            **{name: _check(hints[name], value, f"{where}: {name}") for name, value in values.items()}
        )
    except TypeError as fault:
        raise ModelError(f"{where}: name, summary and source are required") from fault


def _check(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ModelError(f"{where} must be a table")
        return _build(hint, value, where)  # type: ignore[arg-type]
    choices = get_args(hint)
    if choices:
        if value not in choices:
            raise ModelError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ModelError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value
