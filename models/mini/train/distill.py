"""Stage 2: the CLIP text tower learns the sentence encoder's space from text alone.

Loss: cosine to the teacher's vector plus a relational term (the student's similarities to the batch's teacher
vectors follow the teacher's own, temperature 0.05), so that neighbours stay neighbours.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.mini.train.data import TokenCache
from vsearch.models.mini.train.net import DEVICE, build_clip, text_state
from vsearch.models.mini.train.teacher import Teacher
from vsearch.models.mini.train.text import encode, text_parameters, warm_table


class RowAdam:
    """Adam for a big table of which a step touches few rows: only those rows and their moments are read."""

    def __init__(self, table: torch.Tensor, betas: tuple[float, float] = (0.9, 0.98)) -> None:
        self.table, self.betas = table, betas
        self.m, self.v = torch.zeros_like(table), torch.zeros_like(table)
        self.seen = torch.zeros(len(table), 1, device=table.device)

    def step(self, ids: torch.Tensor, grad: torch.Tensor, lr: float) -> None:
        """ids (U,) distinct rows, grad (U, W)"""
        b1, b2 = self.betas
        seen = self.seen[ids] + 1
        m = self.m[ids] * b1 + grad * (1 - b1)
        v = self.v[ids] * b2 + grad * grad * (1 - b2)
        self.m[ids], self.v[ids], self.seen[ids] = m, v, seen
        self.table[ids] -= lr * (m / (1 - b1**seen)) / ((v / (1 - b2**seen)).sqrt() + 1e-8)


def relation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Unit rows (B, D) each."""
    want = F.log_softmax(teacher @ teacher.T / 0.05, -1)
    have = F.log_softmax(student @ teacher.T / 0.05, -1)
    return 4 * (1 - (student * teacher).sum(-1)).mean() + F.kl_div(
        have, want, log_target=True, reduction="batchmean"
    )


def length_batches(
    lengths: np.ndarray, rows: np.ndarray, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled batches of sentences of like length: sorted within chunks of 40 batches."""
    order = rng.permutation(rows)
    batches = []
    for start in range(0, len(order), size * 40):
        chunk = order[start : start + size * 40]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def distill(work: Path, steps: int, batch: int = 512, lr: float = 2e-3) -> None:
    """Writes `text.pt`. `text.part.pt` holds the state of every hundredth step: an interrupted run goes on there, on
    the batches that it would have seen."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    kept = json.loads((work / "sentences.json").read_text())
    sentences = kept["captions"] + kept["phrases"]
    teacher = np.load(work / "teacher.npy", mmap_mode="r")
    tokens = TokenCache()
    lengths = np.array([len(tokens(s)) for s in sentences])
    clip = build_clip()
    table = clip.token_embedding.weight.data
    source = Teacher()
    table.copy_(warm_table(tokens.tokenizer, source.pieces, source.word_vectors(), table.shape[1]))
    clip.to(DEVICE)
    table = clip.token_embedding.weight.data
    parameters = text_parameters(clip)
    decay = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    rows_optimizer = RowAdam(table)
    captions = len(kept["captions"])
    check = rng.choice(captions, min(2000, captions // 10), replace=False)
    training = np.setdiff1d(np.arange(len(sentences)), check)
    begun, part = time.time(), work / "text.part.pt"
    step = _resume(part, clip, optimizer, rows_optimizer)
    log = open(work / "distill.csv", "a" if step else "w", buffering=1)  # noqa: SIM115 - open for the whole stage
    if not step:
        log.write("step,seconds,loss,cosine,nearest_right\n")
    epoch_steps = len(length_batches(lengths, training, batch, rng))
    while step < steps:
        epoch, done = divmod(step, epoch_steps)
        batches = length_batches(lengths, training, batch, np.random.default_rng([0, epoch]))
        for rows in batches[done : done + steps - step]:
            now = lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = now
            ids = torch.from_numpy(tokens.batch([sentences[i] for i in rows])).to(DEVICE)
            distinct, where = ids.unique(return_inverse=True)
            leaf = table[distinct].requires_grad_()
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                out = encode(clip, ids, leaf[where])
            student = F.normalize(out.float(), dim=-1)
            target = F.normalize(torch.from_numpy(teacher[rows]).float().to(DEVICE), dim=-1)
            loss = relation_loss(student, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rows_optimizer.step(distinct, leaf.grad, now * 0.5)
            step += 1
            if step % 100 == 0 or step == steps:
                score = _check(clip, tokens, [sentences[i] for i in check], teacher[check])
                log.write(
                    f"{step},{time.time() - begun:.0f},{loss.item():.4f},{score[0]:.4f},{score[1]:.4f}\n"
                )
                _keep(part, step, clip, optimizer, rows_optimizer)
    log.close()
    torch.save(text_state(clip), work / "text.pt")
    part.unlink()


def _keep(
    path: Path, step: int, clip: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: RowAdam
) -> None:
    state = {
        "step": step, "text": text_state(clip), "optimizer": optimizer.state_dict(),
        "rows": {"m": rows.m, "v": rows.v, "seen": rows.seen},
    }  # fmt: skip
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)  # a run killed while it writes loses nothing


def _resume(path: Path, clip: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: RowAdam) -> int:
    """The step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, map_location=DEVICE, weights_only=True)
    clip.load_state_dict(state["text"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    for own, saved in ((rows.m, "m"), (rows.v, "v"), (rows.seen, "seen")):
        own.copy_(state["rows"][saved])
    return int(state["step"])


def _check(
    clip: torch.nn.Module, tokens: TokenCache, sentences: list[str], teacher: np.ndarray
) -> tuple[float, float]:
    """(mean cosine to the teacher, share whose nearest teacher vector is their own)"""
    with torch.inference_mode(), torch.autocast(DEVICE, dtype=torch.bfloat16):
        parts = [
            encode(clip, torch.from_numpy(tokens.batch(sentences[i : i + 500])).to(DEVICE))
            for i in range(0, len(sentences), 500)
        ]
    student = F.normalize(torch.cat(parts).float().cpu(), dim=-1)
    target = F.normalize(torch.from_numpy(teacher).float(), dim=-1)
    near = (student @ target.T).argmax(1) == torch.arange(len(target))
    return (student * target).sum(-1).mean().item(), near.float().mean().item()
