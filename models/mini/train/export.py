"""Stage 7: the files that are committed: `config.json`, `weights.safetensors`, the graphs of both towers with
`towers.json`, and `calibration.json`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.backbone import load_mini
from vsearch.models.mini.train.align import load_material
from vsearch.models.mini.train.data import TokenCache
from vsearch.models.mini.train.hubs import HUBS, hub_aware
from vsearch.models.mini.train.net import CONFIG, build_clip
from vsearch.models.mini.train.text import encode
from vsearch.models.runtime import load_compact, write_towers
from vsearch.models.runtime.compact import save_compact

INT8 = ("token_embedding.weight",)
QUANTILES = (
    0.0001, 0.001, 0.01, 0.05, 0.16, 0.25, 0.5, 0.75, 0.84, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999,
)  # fmt: skip


def export(data: Path, work: Path, out: Path) -> None:
    """Writes the weights, reads them back and measures the score distributions with what was read."""
    (out / "config.json").write_text(json.dumps({**CONFIG, "hubs": HUBS}, indent=2) + "\n")
    save_compact(torch.load(work / "corrected.pt", weights_only=True), out / "weights.safetensors", INT8)
    whole = load_mini(out)
    write_towers(
        out, whole.clip, whole.tokenizer, whole.preprocess, whole.identity, weights_file="weights.safetensors"
    )
    clip = hub_aware(build_clip())
    clip.load_state_dict(load_compact(out / "weights.safetensors"))
    scores, own = validation_scores(clip.eval(), data, work)
    related, unrelated = scores[own], scores[~own]
    # The best unrelated video of each sentence: what a search shows when nothing fits.
    best_wrong = np.where(own, -1, scores).max(1)
    document = {
        "what": "cosine of a sentence and the mean of unit frame vectors",
        "measured_on": "250 MSR-VTT training videos kept for validation, all their captions",
        "related": _quantiles(related),
        "unrelated": _quantiles(unrelated),
        "best_unrelated_of_250": _quantiles(best_wrong),
        "logit_scale": round(float(clip.logit_scale.detach().exp()), 4),
    }
    (out / "calibration.json").write_text(json.dumps(document, indent=2) + "\n")


def validation_scores(clip: torch.nn.Module, data: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """(cosines (sentences, videos), which of them are own pairs)"""
    material, tokens = load_material(data, work), TokenCache()
    raw = material.features[0] * material.std + material.mean
    with torch.inference_mode():
        videos = torch.stack(
            [F.normalize(clip.visual.head(raw[list(g)]), dim=-1).mean(0) for g, _ in material.check]
        )
        sentences = [material.sentences[i] for _, own in material.check for i in own]
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(sentences[i : i + 256])))
            for i in range(0, len(sentences), 256)
        ]
        scores = (F.normalize(torch.cat(parts), dim=-1) @ F.normalize(videos, dim=-1).T).numpy()
    answers = np.array([i for i, (_, own) in enumerate(material.check) for _ in own])
    return scores, answers[:, None] == np.arange(len(videos))


def _quantiles(values: np.ndarray) -> dict[str, list[float]]:
    return {"q": list(QUANTILES), "score": [round(float(v), 4) for v in np.quantile(values, QUANTILES)]}
