"""Trained heads in a library: stored frame vectors become moments, sentences become queries, nothing is decoded.

A recipe that was trained inside the image tower changes the frame vectors themselves. It is a backbone of its own
(`TunedBackbone`), which videos must be encoded with anew, and a head on top like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.maths import normalise
from vsearch.models.backbone import Backbone, load_backbone
from vsearch.models.encoder import Encoder
from vsearch.models.recipes.checkpoint import Card, load, read_card
from vsearch.models.recipes.frame_side import FrameSide, refuse_pairs, refuse_unfit

if TYPE_CHECKING:
    import torch

    from vsearch.models.recipes.video_text import VideoText


@dataclass(frozen=True)
class TrainedHead(FrameSide):
    """Offers what `encoder.Head` asks for."""

    model: VideoText = field(repr=False, kw_only=True)

    def embed_texts(self, texts: Sequence[str], backbone: Backbone | None = None) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors, through the learned prompts."""
        import torch

        with torch.inference_mode():
            return normalise(self.model.embed_text(list(texts)).float().cpu().numpy())


class TunedBackbone(Backbone):
    """A backbone whose image side is a recipe's. Towers that look across frames see `frames_together` at a time."""

    def __init__(self, base: Backbone, model: VideoText, card: Card) -> None:
        _ = base.clip
        self.__dict__.update(base.__dict__)
        self._towers = None
        self.identity = f"{base.identity}*{card.identity}"
        self.frames_together = _together(card)
        self._model = model

    def arrange(self) -> None:
        """Its towers run as they are."""

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, S, S, 3) uint8 RGB in order of time -> (N, D) float32; each run of `frames_together` is one clip."""
        import torch

        size = self.frames_together
        whole = len(pixels) - len(pixels) % size
        clips = [pixels[:whole].unflatten(0, (-1, size))] if whole else []
        clips += [pixels[None, whole:]] if whole < len(pixels) else []
        with self._precision():
            return torch.cat([self._model.see(clip).features.flatten(0, 1).float() for clip in clips])


def trained_encoder(folder: Path, backbone: Backbone, fps: float = 2.0) -> Encoder:
    """Backbone and head of a checkpoint, whatever its recipe trained; the given backbone is changed in place.

    Where frames are seen together, a moment is just such a clip: `frames` of the recipe at `fps` a second.
    Raises ModelError for another backbone than the checkpoint's, and for recipes without vectors to index.
    """
    card = read_card(folder)
    if _together(card) == 1:
        return _encoder(folder, backbone)
    return _encoder(folder, backbone, _together(card) / fps, 0.0)


def load_trained_head(
    folder: Path, backbone: Backbone, window_s: float = 8.0, overlap: float = 0.5
) -> TrainedHead:
    """The head in a checkpoint's folder, for frame vectors of `backbone`. Its text tower is the backbone's, changed in
    place where it was trained.

    Raises ModelError for recipes that change the frame vectors, or that have no vectors to index.
    """
    refuse_unfit(read_card(folder), folder)
    head = _encoder(folder, backbone, window_s, overlap).head
    assert isinstance(head, TrainedHead)
    return head


def restored_encoder(head: dict[str, Any], backbone: Backbone) -> Encoder:
    """The encoder of a trained head's stored spec, on the backbone that it names (changed in place).

    Raises ModelError when the checkpoint is gone, damaged, or another one.
    """
    found = _encoder(Path(head["checkpoint"]), backbone, head["window_s"], head["overlap"])
    if found.head.identity != head["identity"]:
        raise ModelError(
            f"{head['checkpoint']} holds {found.head.identity}, but this library was indexed with {head['identity']}; "
            "put the right checkpoint back, or take another: vsearch adopt CHECKPOINT"
        )
    return found


@lru_cache(maxsize=1)
def head_alone(checkpoint: str, identity: str, model: str, window_s: float, overlap: float) -> TrainedHead:
    """A trained head for stored frame vectors, kept for the next call; it brings its backbone for its text tower."""
    spec = {"checkpoint": checkpoint, "identity": identity, "window_s": window_s, "overlap": overlap}
    head = restored_encoder(spec, load_backbone(model)).head
    assert isinstance(head, TrainedHead)
    return head


def _encoder(folder: Path, backbone: Backbone, window_s: float = 8.0, overlap: float = 0.5) -> Encoder:
    refuse_pairs(read_card(folder))
    model, card = load(folder, backbone)
    if card.recipe.in_network:
        backbone = TunedBackbone(backbone, model, card)
    layers = model.new["temporal"]
    place = folder.resolve(), backbone.name
    return Encoder(backbone, TrainedHead(card, *place, layers, model.device, window_s, overlap, model=model))


def _together(card: Card) -> int:
    return 1 if card.recipe.tower.kind == "clip" else card.recipe.frames
