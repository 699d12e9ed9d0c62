"""The side of a trained head that stored frame vectors go through: windows become moments.

It stands on no tower, so another head for a library needs neither the time nor the memory that the model takes which
encoded the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.maths import normalise
from vsearch.models.backbone import outline, resolve_device
from vsearch.models.encoder import Vectors, Window
from vsearch.models.recipes.checkpoint import WEIGHTS, Card, check_weights, read_card

if TYPE_CHECKING:
    import torch

_OWN = "new.temporal."  # how a checkpoint's names of these layers begin


@dataclass(frozen=True)
class FrameSide:
    """Window and overlap are the library's, not the training's. `backbone` names the model that the checkpoint stands
    on; `layers`: the temporal head, on `device`."""

    card: Card
    folder: Path
    backbone: str
    layers: torch.nn.Module = field(repr=False)
    device: torch.device
    window_s: float = 8.0
    overlap: float = 0.5

    @property
    def identity(self) -> str:
        return f"{self.card.identity}/{self.window_s:g}s/{self.overlap:g}"

    def spec(self) -> dict[str, Any]:
        from vsearch.models.prompts import TEMPLATES

        text = self.card.recipe.text
        return {
            "recipe": self.card.recipe.name,
            "checkpoint": str(self.folder),
            "identity": self.identity,
            "model": self.backbone,
            "in_network": self.card.recipe.in_network,
            "window_s": self.window_s,
            "overlap": self.overlap,
            "action_templates": list(TEMPLATES) if text.kind == "templates" else [text.template],
            # only the plain mean leaves moments in the space of frame vectors
            "frame_space": self.card.recipe.temporal.kind == "mean",
        }

    def embed_windows(
        self, frames: Vectors, times_ms: npt.NDArray[np.int64], windows: Sequence[Window], batch: int = 160
    ) -> npt.NDArray[np.float32]:
        """(T, D) stored frame vectors -> (M, D) float32 unit vectors, one a window.

        Windows of equally many frames go together, so that none is padded; `batch` windows at most, and about as many
        each time: products of few rows are slower. Threads may call this at once.
        """
        import torch

        from vsearch.models.recipes.temporal import pool
        from vsearch.models.training import pick

        found = np.zeros((len(windows), self.card.dim), np.float32)
        kinds: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            kinds.setdefault(window.last_frame - window.first_frame, []).append(i)
        for length, members in kinds.items():
            picked = np.asarray(pick(length, self.card.recipe.frames, None))
            first = np.asarray([windows[i].first_frame for i in members])
            size = math.ceil(len(members) / math.ceil(len(members) / batch))
            for begin in range(0, len(members), size):
                some = slice(begin, begin + size)
                own = np.ascontiguousarray(frames[first[some, None] + picked])  # (B, t, D)
                with torch.inference_mode():
                    video = torch.from_numpy(own).to(self.device).float()
                    whole = torch.ones(video.shape[:2], dtype=torch.bool, device=self.device)
                    pooled = pool(
                        self.layers(video, whole), whole, self.card.recipe.similarity.normalise_frames
                    )
                    found[members[some]] = pooled.cpu().numpy()
        return normalise(found)


def load_frame_side(
    folder: Path, backbone: str, device: str = "auto", window_s: float = 8.0, overlap: float = 0.5
) -> FrameSide:
    """This side of the head in a checkpoint's folder, for frame vectors of the model named `backbone`, whose weights
    are not read. That the checkpoint was trained on this model is for the caller to compare (`Card.backbone`).

    Raises ModelError for damaged weights, for recipes that change the frame vectors, or that have no vectors to index.
    """
    import torch
    from safetensors import safe_open

    from vsearch.models.recipes.temporal import temporal_layers

    card = read_card(folder)
    refuse_unfit(card, folder)
    check_weights(folder, card)
    with torch.device("meta"):
        layers = temporal_layers(card.recipe.temporal, card.dim, lambda: outline(backbone))
    with safe_open(folder / WEIGHTS, "pt") as file:
        names = file.keys()
        own = {name.removeprefix(_OWN): file.get_tensor(name) for name in names if name.startswith(_OWN)}
    try:
        layers.load_state_dict(own, assign=True)
    except RuntimeError as fault:
        raise ModelError(f"{folder}: its weights do not fit the recipe it names") from fault
    where = torch.device(resolve_device(device))
    return FrameSide(card, folder.resolve(), backbone, layers.to(where).eval(), where, window_s, overlap)


def refuse_unfit(card: Card, folder: Path) -> None:
    """Raises ModelError for heads that stored frame vectors are of no use to."""
    refuse_pairs(card)
    if card.recipe.in_network:
        raise ModelError(
            f"recipe {card.recipe.name} was trained inside the image tower, so stored frame vectors do not fit it and "
            f"the videos must be encoded again: vsearch index FOLDER --head {folder} --library NEW"
        )


def refuse_pairs(card: Card) -> None:
    if not card.recipe.indexable:
        raise ModelError(
            f"recipe {card.recipe.name} scores pairs of video and text; it has no vectors to index"
        )
