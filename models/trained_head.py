"""A trained head for a library: stored frame vectors become moments, sentences become queries, nothing is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.models.checkpoint import Card, load
from vsearch.models.encoder import Vectors, Window, normalise

if TYPE_CHECKING:
    from vsearch.models.backbone import Backbone
    from vsearch.models.video_text import VideoText


@dataclass(frozen=True)
class TrainedHead:
    """Offers what `encoder.Head` asks for. Window and overlap are the library's, not the training's."""

    card: Card
    folder: Path
    model: VideoText = field(repr=False)
    window_s: float = 8.0
    overlap: float = 0.5

    @property
    def identity(self) -> str:
        return f"{self.card.identity}/{self.window_s:g}s/{self.overlap:g}"

    def spec(self) -> dict[str, Any]:
        return {
            "recipe": self.card.recipe.name,
            "checkpoint": str(self.folder),
            "weights": self.card.weights,
            "window_s": self.window_s,
            "overlap": self.overlap,
            # only the plain mean leaves moments in the space of frame vectors
            "frame_space": self.card.recipe.temporal.kind == "mean",
        }

    def embed_windows(
        self, frames: Vectors, times_ms: npt.NDArray[np.int64], windows: Sequence[Window], batch: int = 64
    ) -> npt.NDArray[np.float32]:
        """(T, D) stored frame vectors -> (M, D) float32 unit vectors, one a window."""
        import torch

        from vsearch.models.samples import pad, pick

        found = [np.zeros((0, self.card.dim), np.float32)]
        for i in range(0, len(windows), batch):
            chosen = []
            for window in windows[i : i + batch]:
                own = np.asarray(frames[window.first_frame : window.last_frame], np.float32)
                chosen.append(own[pick(len(own), self.card.recipe.frames, None)])
            video, mask = pad(chosen)
            with torch.inference_mode():
                side = self.model.embed_video(video.to(self.model.device), mask.to(self.model.device))
            found.append(side.vectors.float().cpu().numpy())
        return normalise(np.concatenate(found))

    def embed_texts(self, texts: Sequence[str], backbone: Backbone | None = None) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors, through the learned prompts."""
        import torch

        with torch.inference_mode():
            return normalise(self.model.embed_text(list(texts)).float().cpu().numpy())


def load_trained_head(
    folder: Path, backbone: Backbone, window_s: float = 8.0, overlap: float = 0.5
) -> TrainedHead:
    """The head in a checkpoint's folder. Its text tower is the backbone's, changed in place where it was trained.

    Raises ModelError for recipes that change the frame vectors, or that have no vectors to index.
    """
    model, card = load(folder, backbone)
    if card.recipe.in_network:
        raise ModelError(
            f"recipe {card.recipe.name} was trained inside the image tower: stored frame vectors do not fit it, "
            "the videos must be encoded again (vsearch index --head)"
        )
    if not card.recipe.indexable:
        raise ModelError(
            f"recipe {card.recipe.name} scores pairs of video and text; it has no vectors to index"
        )
    return TrainedHead(card, folder.resolve(), model, window_s, overlap)
