"""Prompts for action names: sentences to put a name in, and vectors learned around it (Efficient-Prompt, 3.1).

Both towers stay frozen; what is learned is a table of a few rows in the text tower's token space, the same for all
names, so it serves names that it was not trained on. It starts from the words of a template, not from noise as in
the paper: training sets here are small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from vsearch.models.backbone import Backbone
    from vsearch.models.prompts import ContinuousPrompts

Floats = npt.NDArray[np.float32]

# Names are short; sentences are what text towers know (ActionCLIP, section 3.2: prefix, cloze, suffix prompts).
ACTION_TEMPLATES = (
    "{}",
    "a video of {}",
    "a person {}",
    "someone is {}",
    "people {}",
    "a photo of the action {}",
    "this is {}, a human activity",
    "look, they are {}",
)
BEFORE, BEHIND = "a video of a person", "in a video"  # what the learned vectors start as


@dataclass(frozen=True)
class Pairs:
    """Distinct names, unit vectors (B, D) of clips and the name (B,) that each of them shows; -1: none of them."""

    names: list[str]
    clips: Floats
    owners: npt.NDArray[np.int64]


@dataclass(frozen=True)
class PromptOptions:
    steps: int = 60
    rate: float = 2e-3
    weight_decay: float = 0.0


def train_prompts(
    backbone: Backbone,
    batches: Callable[[int], Sequence[Pairs]],
    options: PromptOptions | None = None,
    start: ContinuousPrompts | None = None,
) -> ContinuousPrompts:
    """Prompts learned from `batches(step)`, whose losses are added up. The backbone is not changed.

    Loss: a clip must find its name among the names (cross-entropy), and a name its clips among the clips.
    """
    import torch

    options = options or PromptOptions()
    prompts = start_prompts(backbone)
    if start is not None:
        prompts.load_state_dict(start.state_dict())
    optimizer = torch.optim.AdamW(prompts.parameters(), lr=options.rate, weight_decay=options.weight_decay)
    clip: Any = backbone.clip
    scale = float(clip.logit_scale.detach().exp())
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.rate * 0.5 * (1 + np.cos(np.pi * step / options.steps))
        loss = torch.zeros((), device=backbone.device)
        for pairs in batches(step):
            names = torch.nn.functional.normalize(_read(backbone, prompts, pairs.names), dim=-1)
            clips = torch.from_numpy(pairs.clips).to(names)
            loss = loss + _loss(scale * clips @ names.T, torch.from_numpy(pairs.owners).to(names.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prompts.eval().requires_grad_(False)


def start_prompts(backbone: Backbone) -> ContinuousPrompts:
    """Prompts that are the words BEFORE and BEHIND. Raises ModelError for text towers that take none."""
    import torch

    from vsearch.models.prompts import ContinuousPrompts
    from vsearch.models.recipes import text_parts

    parts = text_parts(backbone.clip)
    rows = []
    with torch.no_grad():
        for words in (BEFORE, BEHIND):
            tokens = backbone.tokenizer([words])[0]
            rows.append(parts.token_embedding(tokens[1 : int(tokens.argmax())].to(backbone.device)))
    width, context = rows[0].shape[1], parts.positional_embedding.shape[0]
    prompts = ContinuousPrompts(width, len(rows[0]), len(rows[1]), context=context).to(backbone.device)
    prompts.table.data.copy_(torch.cat(rows))
    return prompts


def embed_names(backbone: Backbone, prompts: ContinuousPrompts, names: Sequence[str]) -> Floats:
    """(N, D) float32 unit vectors of the names between the prompts."""
    import torch

    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(_read(backbone, prompts, names).float(), dim=-1)
    return vectors.cpu().numpy()


def _read(backbone: Backbone, prompts: ContinuousPrompts, names: Sequence[str]) -> torch.Tensor:
    """(N, D), not normalised. What stands behind the last end mark is cut: it cannot reach it."""
    from vsearch.models.recipes import read, text_parts

    tokens = backbone.tokenizer(list(names)).to(backbone.device)
    embedded, end = prompts(tokens, text_parts(backbone.clip).token_embedding)
    return read(backbone.clip, embedded[:, : int(end.max()) + 1], end)[0]


def _loss(scores: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """scores (B, N) of clips and names, owners (B,): both directions. Clips of no name only compete for names."""
    import torch

    shown = owners >= 0
    to_names = torch.nn.functional.cross_entropy(scores[shown], owners[shown])
    shares = scores.log_softmax(dim=0)[shown, owners[shown]]  # of a name's clips among all
    return (to_names - shares.mean()) / 2
