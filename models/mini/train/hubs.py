"""Stage 6: the correction of hubs (`vsearch.models.hubs`), put into the weights.

The bank is one caption of each training video and photo, as centroids. The weakest principal direction of pictures
and bank makes room for the correction. On the text side the last column of the projection gives every sentence the
same number: what the final layer norm puts out, before its scale and shift, sums to zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.hubs import make_hub_aware
from vsearch.models.mini.train.align import load_material
from vsearch.models.mini.train.data import TokenCache
from vsearch.models.mini.train.net import CONFIG, build_clip
from vsearch.models.mini.train.text import encode

# Chosen on validation: 256 centroids, temperature 0.05, strength 0.75.
HUBS: dict[str, Any] = {"centroids": 256, "temperature": 0.05}  # goes into config.json
STRENGTH = 0.75  # of the correction, against the cosine
CONSTANT = 0.3  # last component of a sentence, as a part of its norm


def hub_aware(clip: torch.nn.Module) -> torch.nn.Module:
    return make_hub_aware(clip, CONFIG["model_cfg"]["embed_dim"], **HUBS)


def correct_hubs(data: Path, work: Path) -> None:
    """Reads `mini.pt`, writes `corrected.pt`."""
    material, tokens = load_material(data, work), TokenCache()
    clip = build_clip().eval()
    clip.load_state_dict(torch.load(work / "mini.pt", weights_only=True))
    rng = np.random.default_rng(0)
    chosen = [material.sentences[own[rng.integers(len(own))]] for _, own in material.train]
    raw = material.features[0] * material.std + material.mean
    with torch.inference_mode():
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(chosen[i : i + 256])))
            for i in range(0, len(chosen), 256)
        ]
        norm = torch.cat(parts).norm(dim=-1).mean()
        bank = F.normalize(torch.cat(parts), dim=-1)
        rows = [row for group, _ in material.train for row in group]
        pictures = F.normalize(clip.visual.head(raw[rows]), dim=-1)

        head = hub_aware(clip).visual.head
        head.centroids[:], share = clusters(bank, HUBS["centroids"])
        head.log_share[:] = share.log()
        _, axes = torch.linalg.eigh(pictures.T @ pictures / len(pictures) + bank.T @ bank / len(bank))
        head.basis[:] = axes[:, 1:]
        head.level.fill_(head.hubness(pictures).mean())
        head.weight.fill_(STRENGTH / CONSTANT)

        add_constant(clip, axes[:, 1:], CONSTANT * float(norm))
    torch.save(clip.state_dict(), work / "corrected.pt")


def add_constant(clip: torch.nn.Module, basis: torch.Tensor, value: float) -> None:
    """The text projection P (W, D) becomes P @ basis (D, D - 1) and a column that gives every sentence `value`.

    The layer norm's output before scale g and shift b sums to zero, so y @ (1 / g) = sum(b / g) for every sentence's
    y. That sum is brought to `lift`, far enough from zero for float16, and what the new shift adds to the other
    columns is taken off again by a multiple of 1 / g.
    """
    norm: Any = clip.ln_final
    constant, lift = 1 / norm.weight, 16.0
    step = (lift - (norm.bias * constant).sum()) / len(constant)
    norm.bias += step * norm.weight
    kept = clip.text_projection @ basis
    kept = kept - constant[:, None] * (step * norm.weight @ kept / lift)
    clip.text_projection.data = torch.cat([kept, constant[:, None] * (value / lift)], dim=1)


def clusters(vectors: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) unit -> (count, D) means of k-means clusters, (count,) their shares; empty ones are zero."""
    if len(vectors) <= count:
        spare = count - len(vectors)
        share = torch.cat([torch.full((len(vectors),), 1 / len(vectors)), torch.zeros(spare)])
        return torch.cat([vectors, torch.zeros(spare, vectors.shape[1])]), share
    search = faiss.Kmeans(
        vectors.shape[1], count, niter=15, seed=0, spherical=True, min_points_per_centroid=1
    )
    search.train(vectors.numpy())
    own = torch.from_numpy(search.index.search(vectors.numpy(), 1)[1][:, 0])
    size = torch.bincount(own, minlength=count)
    sums = torch.zeros(count, vectors.shape[1]).index_add_(0, own, vectors)
    return sums / size.clamp(min=1)[:, None], size / len(vectors)
