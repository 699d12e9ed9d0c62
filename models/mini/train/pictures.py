"""Stage 7: the picture head (`models/mini/head.py`) beside its trunk's classifier, the text tower as it is.

The members start apart and never see each other; each is trained with what the classifier knows added to its vector,
and without it for a part of the frames, so that it also learns what the classifier would otherwise explain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from vsearch.models.mini.head import PictureHead
from vsearch.models.mini.train.align import CONSTANT, alignment_loss, picture_head, schedule
from vsearch.models.mini.train.data import Group, TokenCache, list_pictures, split_groups
from vsearch.models.mini.train.names import DOGS, class_words
from vsearch.models.mini.train.net import CONFIG, build_clip, imagenet_weights
from vsearch.models.mini.train.text import encode

FEATURES, DIM = 1280, CONFIG["model_cfg"]["embed_dim"]
HEAD: dict[str, Any] = CONFIG["head"]


@dataclass(frozen=True)
class Choice:
    """Chosen on validation. `known`: weight of what the classifier knows; `temperature`: of its probabilities; `wider`:
    weight of a class's wider words beside its names; `left_out`: share of training frames without the classifier;
    `dogs`: what is taken off the logits of the 118 dogs, which together would outvote all else that has fur;
    `hubs`: strength of their correction, against the cosine."""

    known: float = 0.8
    temperature: float = 1.0
    wider: float = 0.5
    left_out: float = 0.3
    dogs: float = 2.0
    hubs: float = 0.75
    epochs: int = 30
    batch: int = 512


@dataclass(frozen=True)
class Pairs:
    """`features[view]` (pictures, 1280), mean and deviation of view 0; unit sentence vectors (sentences, dim - 1) and, of
    each group, its pictures' rows and its sentences' rows."""

    features: list[torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor
    sentences: torch.Tensor
    groups: list[tuple[np.ndarray, np.ndarray]]


def fit_pictures(data: Path, work: Path) -> None:
    """Reads `room.pt`, the text tower with room for the correction; writes `whole.pt`, the model's state dict."""
    clip = build_clip().eval()
    clip.load_state_dict(torch.load(work / "room.pt", weights_only=True), strict=False)
    vectors = TextVectors(clip)
    pictures = list_pictures(data)
    groups = split_groups(data, pictures)["train"]
    features = [
        torch.from_numpy(np.load(p)).float()[: len(pictures)] for p in sorted(work.glob("pooled_v*.npy"))
    ]
    pairs = pair_up(groups, features, vectors)
    clip.visual.head, log_scale = fit(pairs, vectors, Choice())
    clip.logit_scale.data.fill_(log_scale)
    torch.save(clip.state_dict(), work / "whole.pt")


class TextVectors:
    """Sentences -> (N, dim - 1) unit vectors, without the component that is the same for all."""

    def __init__(self, clip: torch.nn.Module) -> None:
        self.clip, self.tokens = clip, TokenCache()

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        order = sorted(range(len(sentences)), key=lambda i: len(self.tokens(sentences[i])))
        out = torch.zeros(len(sentences), DIM - 1)
        with torch.inference_mode():
            for start in range(0, len(order), 256):
                batch = order[start : start + 256]
                ids = torch.from_numpy(self.tokens.batch([sentences[i] for i in batch]))
                out[batch] = F.normalize(encode(self.clip, ids)[:, :-1], dim=-1)
        return out


def pair_up(groups: list[Group], features: list[torch.Tensor], vectors: TextVectors) -> Pairs:
    sentences = sorted({caption for group in groups for caption in group.captions})
    row = {sentence: i for i, sentence in enumerate(sentences)}
    indexed = [
        (np.array(g.pictures), np.array([row[c] for c in g.captions]))
        for g in groups
        if g.captions and g.pictures
    ]
    return Pairs(features, features[0].mean(0), features[0].std(0) + 1e-3, vectors(sentences), indexed)


def fit(pairs: Pairs, vectors: TextVectors, choice: Choice) -> tuple[PictureHead, float]:
    """The head, and the logarithm of the scale of its softmax."""
    head, scales = PictureHead(FEATURES, DIM, **HEAD), []
    with torch.no_grad():
        put_classifier(head, vectors, choice)
        for seed, member in enumerate(head.members):
            mlp, log_scale = fit_member(pairs, head, choice, seed)
            put_member(member, mlp, pairs)
            scales.append(log_scale)
        put_hubs(head, pairs, choice.hubs)
    return head, sum(scales) / len(scales)


def put_classifier(head: PictureHead, vectors: TextVectors, choice: Choice) -> None:
    """The trunk's own classifier, its temperature folded in, and the vectors of its classes."""
    _, whole = imagenet_weights(CONFIG["model_cfg"]["vision_cfg"]["timm_model_name"])
    classifier: Any = whole.classifier
    bias = classifier.bias.clone()
    bias[list(DOGS)] -= choice.dogs
    head.classifier.weight.copy_(classifier.weight / choice.temperature)
    head.classifier.bias.copy_(bias / choice.temperature)
    names = class_vectors(vectors, choice.wider)
    head.names.copy_(choice.known * (names - names.mean(0)))


def class_vectors(vectors: TextVectors, wider: float) -> torch.Tensor:
    """(1000, dim - 1) unit vectors: the mean of a class's names, with its wider words beside them."""
    classes = [
        (
            [names[0], f"a photo of a {names[0]}", *names[1:]],
            [f.format(w) for w in words for f in ("{}", "a photo of a {}")],
        )
        for names, words in class_words()
    ]
    texts = sorted({text for own, above in classes for text in (*own, *above)})
    of = dict(zip(texts, vectors(texts), strict=True))

    def mean(some: list[str]) -> torch.Tensor:
        return F.normalize(torch.stack([of[text] for text in some]).mean(0), dim=-1)

    both = [mean(own) + wider * mean(above) if above else mean(own) for own, above in classes]
    return F.normalize(torch.stack(both), dim=-1)


@torch.enable_grad()
def fit_member(
    pairs: Pairs, head: PictureHead, choice: Choice, seed: int
) -> tuple[torch.nn.Sequential, float]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mlp = picture_head(0.2, HEAD["hidden"], DIM - 1)
    log_scale = torch.nn.Parameter(torch.tensor(math.log(20.0)))
    optimizer = torch.optim.AdamW(
        [
            {"params": mlp.parameters(), "lr": 2e-3, "weight_decay": 0.5},
            {"params": [log_scale], "lr": 1e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    batch = min(choice.batch, len(pairs.groups))
    per_epoch = len(pairs.groups) // batch
    known = [known_of(head, features) for features in pairs.features]
    for step in range(steps := choice.epochs * per_epoch):
        if step % per_epoch == 0:
            order = rng.permutation(len(pairs.groups))
        schedule(optimizer, rates, step, steps)
        chosen = [pairs.groups[i] for i in order[step % per_epoch * batch :][:batch]]
        rows = np.array([j for own, _ in chosen for j in rng.choice(own, 2, replace=len(own) < 2)])
        views = rng.integers(len(pairs.features), size=len(rows))
        x = torch.stack([pairs.features[v][i] for v, i in zip(views, rows, strict=True)])
        beside = torch.stack([known[v][i] for v, i in zip(views, rows, strict=True)])
        beside = beside * torch.from_numpy(rng.random(len(rows)) >= choice.left_out)[:, None]
        learned = F.normalize(mlp((x - pairs.mean) / pairs.std), dim=-1)
        frames = F.normalize(learned + beside, dim=-1).view(batch, 2, -1)
        sentences = pairs.sentences[[own[rng.integers(len(own))] for _, own in chosen]]
        loss = alignment_loss(frames, sentences, sentences, log_scale.exp().clamp(max=100))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mlp, log_scale.item()


def known_of(head: PictureHead, features: torch.Tensor) -> torch.Tensor:
    """(N, 1280) -> (N, dim - 1): what the classifier adds."""
    with torch.inference_mode():
        parts = [head.classifier(x).softmax(-1) @ head.names for x in features.split(4096)]
    return torch.cat(parts)


def put_member(member: torch.nn.Module, mlp: torch.nn.Sequential, pairs: Pairs) -> None:
    """What was trained on standardised features, for features as they are: W (x - mean) / std + b."""
    parts: Any = member
    first: Any = mlp[1]
    weight = first.weight / pairs.std
    parts[0].weight.copy_(weight)
    parts[0].bias.copy_(first.bias - weight @ pairs.mean)
    parts[2].load_state_dict(mlp[4].state_dict())


def put_hubs(head: PictureHead, pairs: Pairs, strength: float) -> None:
    """The bank: one caption of each group, in clusters."""
    rng = np.random.default_rng(0)
    bank = pairs.sentences[[own[rng.integers(len(own))] for _, own in pairs.groups]]
    centroids, share = clusters(bank, len(head.centroids))
    head.centroids.copy_(centroids)
    head.log_share.copy_(share.log())
    rows = np.concatenate([own for own, _ in pairs.groups])
    head.level.fill_(head.hubness(head.uncorrected(pairs.features[0][rows])).mean())
    head.weight.fill_(strength / CONSTANT)


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
