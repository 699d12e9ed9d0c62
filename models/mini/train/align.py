"""Stages 4 to 6: pictures and sentences meet.

`fit_heads`: a small MLP on picture features and a linear map of teacher vectors, into one space, with the trunk
and the teacher frozen. A minute of work, and the joint space's definition for what follows.
`run_jointly`: the distilled text tower takes the teacher's place (its projection times the sentence map) and is
trained together with the picture head. Random sentences and phrases go on being distilled meanwhile, so that
words outside the paired captions keep their meaning. `average` takes the mean of several such runs. What is kept of
all this is the text tower: `make_room` gives its vectors a component that is the same for every sentence, where the
picture head (stage 7) puts its correction of hubs.

Loss of both: symmetric cross-entropy over a batch of videos, on the mean of two frames (weight 1) and on a
single frame (weight 0.5); targets are 0.7 of the own pair and 0.3 of the teacher's sentence similarities, since
another video's caption is often right too.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.mini.train.data import Group, TokenCache, list_pictures, split_groups
from vsearch.models.mini.train.distill import RowAdam
from vsearch.models.mini.train.net import DEVICE, build_clip, text_state
from vsearch.models.mini.train.text import encode, text_parameters

SEEDS = (0, 1)
CONSTANT = 0.3  # last component of a sentence, as a part of its norm


@dataclass(frozen=True)
class Material:
    """`features[view]` (pictures, 1280) standardised; `teacher` (sentences, 384); train: (pictures, sentences)."""

    features: list[torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor
    sentences: list[str]
    captions: int
    teacher: np.ndarray
    train: list[tuple[tuple[int, ...], list[int]]]
    check: list[tuple[tuple[int, ...], list[int]]]


def load_material(data: Path, work: Path) -> Material:
    pictures = list_pictures(data)
    groups = split_groups(data, pictures)
    raw = [torch.from_numpy(np.load(p)).float()[: len(pictures)] for p in sorted(work.glob("pooled_v*.npy"))]
    mean, std = raw[0].mean(0), raw[0].std(0) + 1e-3
    kept = json.loads((work / "sentences.json").read_text())
    sentences = kept["captions"] + kept["phrases"]
    row = {s: i for i, s in enumerate(sentences)}

    def indexed(part: list[Group]) -> list[tuple[tuple[int, ...], list[int]]]:
        found = [(g.pictures, [row[c] for c in g.captions if c in row]) for g in part]
        return [pair for pair in found if pair[1]]

    if min(len(groups["train"]), len(groups["val-videos"])) < 2:
        raise SystemExit(f"error: {data} holds too few captioned pictures; twenty files are the least")
    return Material(
        [(x - mean) / std for x in raw], mean, std, sentences, len(kept["captions"]),
        np.load(work / "teacher.npy", mmap_mode="r"), indexed(groups["train"]), indexed(groups["val-videos"]),
    )  # fmt: skip


def alignment_loss(
    frames: torch.Tensor, sentences: torch.Tensor, teacher: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """frames (B, 2, D) unit, sentences (B, D) unit, teacher (B, 384) unit"""
    target = 0.7 * torch.eye(len(teacher), device=teacher.device) + 0.3 * F.softmax(
        teacher @ teacher.T / 0.05, -1
    )
    loss = torch.zeros((), device=teacher.device)
    for picture, weight in ((F.normalize(frames.mean(1), dim=-1), 1.0), (frames[:, 0], 0.5)):
        scores = scale * sentences @ picture.T
        both = (target * F.log_softmax(scores, -1)).sum(-1) + (target.T * F.log_softmax(scores.T, -1)).sum(-1)
        loss = loss - weight * both.mean() / 2
    return loss


class Sampler:
    """Endless batches of (frame features (B, 2, 1280), sentence rows (B,)), every group once an epoch."""

    def __init__(self, material: Material, size: int, seed: int) -> None:
        self.material, self.size = material, size
        self.rng = np.random.default_rng(seed)
        self.order = np.zeros(0, np.int64)

    def __call__(self) -> tuple[torch.Tensor, np.ndarray]:
        train = self.material.train
        if len(self.order) < self.size:
            self.order = self.rng.permutation(len(train))
        chosen, self.order = self.order[: self.size], self.order[self.size :]
        groups = [train[i] for i in chosen]
        frames = np.array([g[j] for g, _ in groups for j in self.rng.choice(len(g), 2, replace=len(g) < 2)])
        views = self.rng.integers(len(self.material.features), size=len(frames))
        x = torch.stack([self.material.features[v][f] for v, f in zip(views, frames, strict=True)])
        rows = np.array([own[self.rng.integers(len(own))] for _, own in groups])
        return x.view(self.size, 2, -1), rows


def picture_head(dropout: float, hidden: int = 768, dim: int = 384) -> torch.nn.Sequential:
    """What timm's MLP head is, on standardised features (B, 1280) -> (B, dim); dropout for the small data."""
    return torch.nn.Sequential(
        torch.nn.Dropout(dropout),
        torch.nn.Linear(1280, hidden),
        torch.nn.GELU(),
        torch.nn.Dropout(0.4),
        torch.nn.Linear(hidden, dim),
    )


def fit_heads(data: Path, work: Path, epochs: int = 30, batch: int = 512) -> None:
    """Writes `heads.pt`: the picture head, the sentence map and the scale."""
    torch.manual_seed(0)
    material = load_material(data, work)
    batch = min(batch, len(material.train))
    picture, sentence = picture_head(0.2), torch.nn.Linear(384, 384, bias=False)
    sentence.weight.data.copy_(torch.eye(384))
    log_scale = torch.nn.Parameter(torch.tensor(math.log(20.0)))
    optimizer = torch.optim.AdamW(
        [
            {"params": picture.parameters(), "lr": 2e-3, "weight_decay": 0.5},
            {"params": sentence.parameters(), "lr": 3e-4, "weight_decay": 0.0},
            {"params": [log_scale], "lr": 1e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    sample = Sampler(material, batch, seed=0)
    steps = epochs * (len(material.train) // batch)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        schedule(optimizer, rates, step, steps)
        x, rows = sample()
        teacher = torch.from_numpy(material.teacher[rows].astype(np.float32))
        frames = F.normalize(picture(x), dim=-1)
        q = F.normalize(sentence(teacher), dim=-1)
        loss = alignment_loss(frames, q, teacher, log_scale.exp().clamp(max=100))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(
        {"picture": picture.state_dict(), "sentence": sentence.weight.data, "log_scale": log_scale.data},
        work / "heads.pt",
    )


def average(work: Path) -> None:
    """Writes `mini.pt`: the mean of the weights of all runs, which have one start (Wortsman et al. 2022, model soups)."""
    runs = [torch.load(work / f"aligned_{seed}.pt", weights_only=True) for seed in SEEDS]
    mean = {
        key: sum(run[key] for run in runs) / len(runs) if value.is_floating_point() else value
        for key, value in runs[0].items()
    }
    torch.save(mean, work / "mini.pt")


def make_room(data: Path, work: Path) -> None:
    """Reads `mini.pt`, writes `room.pt`: the text tower. Of the space's directions the one in which pictures and
    sentences have least gives way to the component."""
    material, tokens = load_material(data, work), TokenCache()
    clip = build_clip().eval()
    clip.load_state_dict(torch.load(work / "mini.pt", weights_only=True))
    rng = np.random.default_rng(0)
    chosen = [material.sentences[own[rng.integers(len(own))]] for _, own in material.train]
    rows = [row for group, _ in material.train for row in group]
    raw = material.features[0][rows] * material.std + material.mean
    with torch.inference_mode():
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(chosen[i : i + 256])))
            for i in range(0, len(chosen), 256)
        ]
        norm = torch.cat(parts).norm(dim=-1).mean()
        bank = F.normalize(torch.cat(parts), dim=-1)
        pictures = F.normalize(clip.visual.head(raw), dim=-1)
        _, axes = torch.linalg.eigh(pictures.T @ pictures / len(pictures) + bank.T @ bank / len(bank))
        add_constant(clip, axes[:, 1:], CONSTANT * float(norm))
    torch.save(text_state(clip), work / "room.pt")


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


def keep_text(work: Path) -> None:
    """Writes `room.pt` from the text tower that is in the package, so that sentences keep their vectors."""
    from vsearch.models.backbone import load_mini

    torch.save(text_state(load_mini().clip), work / "room.pt")


def run_jointly(data: Path, work: Path, seed: int, steps: int, batch: int = 256, extra: int = 96) -> None:
    """One run: `aligned_{seed}.pt`, the whole model's state dict, and `aligned_{seed}.csv`. `extra`: sentences
    of a step that are only distilled."""
    torch.manual_seed(seed)
    material = load_material(data, work)
    batch = min(batch, len(material.train))
    heads = torch.load(work / "heads.pt", weights_only=True)
    clip, picture = build_clip(), picture_head(0.25)
    clip.load_state_dict(torch.load(work / "text.pt", weights_only=True), strict=False)
    clip.text_projection.data.copy_(clip.text_projection.data @ heads["sentence"].T)
    picture.load_state_dict(heads["picture"])
    clip.to(DEVICE), picture.to(DEVICE)
    log_scale = torch.nn.Parameter(heads["log_scale"].to(DEVICE))
    parameters, table = text_parameters(clip), clip.token_embedding.weight.data
    rows_optimizer = RowAdam(table)
    text_rate = 3e-4
    optimizer = torch.optim.AdamW(
        [
            {"params": picture.parameters(), "lr": 6e-4, "weight_decay": 0.2},
            {"params": parameters, "lr": text_rate, "weight_decay": 0.02},
            {"params": [log_scale], "lr": 5e-4, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    tokens, sample, rng = TokenCache(), Sampler(material, batch, seed), np.random.default_rng(seed + 100)
    begun = time.time()
    log = open(work / f"aligned_{seed}.csv", "w", buffering=1)  # noqa: SIM115 - open for the whole stage
    log.write("step,seconds,loss,validation_R@1,R@5,R@10\n")
    for step in range(steps):
        factor = schedule(optimizer, rates, step, steps)
        x, rows = sample()
        captions = rng.integers(0, material.captions, extra // 2)
        phrases = rng.integers(material.captions, len(material.sentences), extra - extra // 2)
        every = np.concatenate([rows, captions, phrases])
        teacher = torch.from_numpy(material.teacher[every].astype(np.float32))
        want = F.normalize(teacher @ heads["sentence"].T, dim=-1).to(DEVICE)
        ids = torch.from_numpy(tokens.batch([material.sentences[i] for i in every])).to(DEVICE)
        distinct, where = ids.unique(return_inverse=True)
        leaf = table[distinct].requires_grad_()
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            q = encode(clip, ids, leaf[where])
        q = F.normalize(q.float(), dim=-1)
        away = 1 - (q * want).sum(-1)
        frames = F.normalize(picture(x.to(DEVICE)), dim=-1)
        loss = alignment_loss(frames, q[:batch], teacher[:batch].to(DEVICE), log_scale.exp().clamp(max=100))
        loss = loss + away[:batch].mean() + 2 * away[batch:].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rows_optimizer.step(distinct, leaf.grad, text_rate / 2 * factor)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            recall = validate(clip, picture, material, tokens)
            log.write(
                f"{step + 1},{time.time() - begun:.0f},{loss.item():.3f}," + ",".join(map(str, recall)) + "\n"
            )
    log.close()
    clip.cpu(), picture.cpu()
    fold_head(clip, picture, material)
    clip.logit_scale.data.copy_(log_scale.data.cpu())
    torch.save(clip.state_dict(), work / f"aligned_{seed}.pt")


def fold_head(clip: torch.nn.Module, picture: torch.nn.Sequential, material: Material) -> None:
    """The trained head becomes timm's, standardising included: W (x - mean) / std + b."""
    first, last, mlp = picture[1], picture[4], clip.visual.head.mlp
    weight = first.weight.data / material.std
    mlp.fc1.weight.data.copy_(weight)
    mlp.fc1.bias.data.copy_(first.bias.data - weight @ material.mean)
    mlp.fc2.load_state_dict(last.state_dict())


def validate(
    clip: torch.nn.Module, picture: torch.nn.Module, material: Material, tokens: TokenCache
) -> tuple[float, float, float]:
    """Text-to-video R@1, 5, 10 in % over all captions of the validation videos."""
    picture.eval()
    with torch.inference_mode():
        videos = torch.stack(
            [
                F.normalize(picture(material.features[0][list(g)].to(DEVICE)), dim=-1).mean(0)
                for g, _ in material.check
            ]
        )
        sentences = [material.sentences[i] for _, own in material.check for i in own]
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(sentences[i : i + 256])).to(DEVICE))
            for i in range(0, len(sentences), 256)
        ]
        scores = (torch.cat(parts) @ F.normalize(videos, dim=-1).T).cpu()
    picture.train()
    answers = torch.tensor([i for i, (_, own) in enumerate(material.check) for _ in own])
    found = (scores > scores[torch.arange(len(answers)), answers][:, None]).sum(1) + 1
    r1, r5, r10 = (round(100 * (found <= k).float().mean().item(), 2) for k in (1, 5, 10))
    return r1, r5, r10


def schedule(optimizer: torch.optim.Optimizer, rates: list[float], step: int, steps: int) -> float:
    """Warm-up over 30 steps, then a cosine to zero; sets the rates and returns the factor."""
    factor = min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    return factor
