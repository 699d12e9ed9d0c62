"""Stage 8: the files that are committed: `config.json`, `weights.safetensors`, the graphs of both towers with
`towers.json`, and `calibration.json`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.backbone import load_mini
from vsearch.models.mini.train.data import TokenCache, list_pictures, split_groups
from vsearch.models.mini.train.net import CONFIG
from vsearch.models.mini.train.text import encode
from vsearch.models.runtime import write_towers
from vsearch.models.runtime.compact import save_compact

INT8 = ("token_embedding.weight",)
QUANTILES = (
    0.0001, 0.001, 0.01, 0.05, 0.16, 0.25, 0.5, 0.75, 0.84, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999,
)  # fmt: skip


def export(data: Path, work: Path, out: Path) -> None:
    """Writes the weights, reads them back and measures the score distributions with what was read."""
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_compact(torch.load(work / "whole.pt", weights_only=True), out / "weights.safetensors", INT8)
    whole = load_mini(out)
    write_towers(
        out, whole.clip, whole.tokenizer, whole.preprocess, whole.identity, weights_file="weights.safetensors"
    )
    scores, own = validation_scores(whole.clip, data, work)
    related, unrelated = scores[own], scores[~own]
    # The best unrelated video of each sentence: what a search shows when nothing fits.
    best_wrong = np.where(own, -1, scores).max(1)
    document = {
        "what": "cosine of a sentence and the mean of unit frame vectors",
        "measured_on": "250 MSR-VTT training videos kept for validation, all their captions",
        "related": _quantiles(related),
        "unrelated": _quantiles(unrelated),
        "best_unrelated_of_250": _quantiles(best_wrong),
        "logit_scale": round(float(whole.clip.logit_scale.detach().exp()), 4),
    }
    (out / "calibration.json").write_text(json.dumps(document, indent=2) + "\n")


def validation_scores(clip: torch.nn.Module, data: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """(cosines (sentences, videos), which of them are own pairs)"""
    tokens, pictures = TokenCache(), list_pictures(data)
    groups = [group for group in split_groups(data, pictures)["val-videos"] if group.captions]
    features = torch.from_numpy(np.load(work / "pooled_v0.npy")).float()[: len(pictures)]
    with torch.inference_mode():
        videos = torch.stack(
            [F.normalize(clip.visual.head(features[list(g.pictures)]), dim=-1).mean(0) for g in groups]
        )
        sentences = [caption for group in groups for caption in group.captions]
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(sentences[i : i + 256])))
            for i in range(0, len(sentences), 256)
        ]
        scores = (F.normalize(torch.cat(parts), dim=-1) @ F.normalize(videos, dim=-1).T).numpy()
    answers = np.array([i for i, group in enumerate(groups) for _ in group.captions])
    return scores, answers[:, None] == np.arange(len(videos))


def _quantiles(values: np.ndarray) -> dict[str, list[float]]:
    return {"q": list(QUANTILES), "score": [round(float(v), 4) for v in np.quantile(values, QUANTILES)]}
