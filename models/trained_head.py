"""Trained heads in a library: stored frame vectors become moments, sentences become queries, nothing is decoded.

A recipe that was trained inside the image tower changes the frame vectors themselves. It is a backbone of its own
(`TunedBackbone`), which videos must be encoded with anew, and a head on top like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.models.backbone import Backbone, load_backbone
from vsearch.models.checkpoint import Card, load, read_card
from vsearch.models.encoder import Encoder, Vectors, Window, normalise

if TYPE_CHECKING:
    import torch

    from vsearch.models.cpu_temporal import Moments
    from vsearch.models.video_text import VideoText


@dataclass(frozen=True)
class TrainedHead:
    """Offers what `encoder.Head` asks for. Window and overlap are the library's, not the training's.

    `backbone` names the model that the checkpoint stands on.
    """

    card: Card
    folder: Path
    backbone: str
    model: VideoText = field(repr=False)
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
        self, frames: Vectors, times_ms: npt.NDArray[np.int64], windows: Sequence[Window], batch: int = 64
    ) -> npt.NDArray[np.float32]:
        """(T, D) stored frame vectors -> (M, D) float32 unit vectors, one a window.

        Windows of equally many frames go together, so that none is padded; `batch` windows at most. Threads may call
        this at once, after `arrange`.
        """
        import torch

        from vsearch.models.samples import pick

        found = np.zeros((len(windows), self.card.dim), np.float32)
        kinds: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            kinds.setdefault(window.last_frame - window.first_frame, []).append(i)
        for length, members in kinds.items():
            picked = np.asarray(pick(length, self.card.recipe.frames, None))
            first = np.asarray([windows[i].first_frame for i in members])
            for begin in range(0, len(members), batch):
                some = slice(begin, begin + batch)
                own = np.ascontiguousarray(frames[first[some, None] + picked])  # (B, t, D)
                with torch.inference_mode():
                    video = torch.from_numpy(own).to(self.model.device).float()
                    found[members[some]] = self._moments(video).cpu().numpy()
        return normalise(found)

    def arrange(self) -> None:
        """Bring the layers into the arrangement for this machine, which the first window would do otherwise."""
        _ = self._moments

    @cached_property
    def _moments(self) -> Moments:
        from vsearch.models.cpu_temporal import moments_of

        normalise_frames = self.card.recipe.similarity.normalise_frames
        return moments_of(self.model.new["temporal"], normalise_frames, self.card.dim, self.model.device)

    def embed_texts(self, texts: Sequence[str], backbone: Backbone | None = None) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors, through the learned prompts."""
        import torch

        with torch.inference_mode():
            return normalise(self.model.embed_text(list(texts)).float().cpu().numpy())


class TunedBackbone(Backbone):
    """A backbone whose image side is a recipe's. Towers that look across frames see `frames_together` at a time."""

    def __init__(self, base: Backbone, model: VideoText, card: Card) -> None:
        self.__dict__.update(base.__dict__)
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
    card = read_card(folder)
    if card.recipe.in_network:
        raise ModelError(
            f"recipe {card.recipe.name} was trained inside the image tower, so stored frame vectors do not fit it and "
            f"the videos must be encoded again: vsearch index FOLDER --head {folder} --library NEW"
        )
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
    _refuse_pairs(read_card(folder))
    model, card = load(folder, backbone)
    if card.recipe.in_network:
        backbone = TunedBackbone(backbone, model, card)
    return Encoder(backbone, TrainedHead(card, folder.resolve(), backbone.name, model, window_s, overlap))


def _together(card: Card) -> int:
    return 1 if card.recipe.tower.kind == "clip" else card.recipe.frames


def _refuse_pairs(card: Card) -> None:
    if not card.recipe.indexable:
        raise ModelError(
            f"recipe {card.recipe.name} scores pairs of video and text; it has no vectors to index"
        )
