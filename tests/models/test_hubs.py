"""The correction of hubs: what it takes off, and that it changes nothing else."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import nn

from vsearch.models import load_backbone
from vsearch.models.hubs import HubAwareHead
from vsearch.models.mini.train.hubs import add_constant, clusters

DIM = 8


def head(bank: torch.Tensor) -> HubAwareHead:
    aware = HubAwareHead(nn.Identity(), DIM, len(bank), temperature=0.05)
    aware.centroids[:] = bank
    aware.log_share.fill_(-math.log(len(bank)))
    aware.basis[:] = torch.eye(DIM)[:, 1:]
    aware.weight.fill_(2.0)
    return aware


def test_a_picture_near_all_sentences_loses_and_a_far_one_does_not() -> None:
    bank = nn.functional.normalize(torch.eye(DIM)[:4] + 0.1, dim=-1)
    hub, far = torch.zeros(DIM), torch.zeros(DIM)
    hub[:4], far[4] = 0.5, 1.0
    aware = head(bank)
    near, away = aware(torch.stack([3 * hub, far]))
    torch.testing.assert_close(torch.stack([near, away])[:, :-1], torch.stack([hub, far])[:, 1:])
    assert near[-1] < away[-1]
    # the soft maximum of equal cosines is that cosine
    torch.testing.assert_close(near[-1], -2 * (hub @ bank.T)[0])


def test_the_constant_leaves_all_other_components_alone() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(16)
    with torch.no_grad():
        norm.weight.uniform_(0.8, 1.2)
        norm.bias.normal_(std=0.1)
        clip = SimpleNamespace(ln_final=norm, text_projection=nn.Parameter(torch.randn(16, DIM)))
        basis = torch.linalg.qr(torch.randn(DIM, DIM)).Q[:, 1:]
        x = torch.randn(50, 16)
        before = norm(x) @ clip.text_projection @ basis
        add_constant(clip, basis, 3.0)  # type: ignore[arg-type]
        after = norm(x) @ clip.text_projection
    torch.testing.assert_close(after[:, :-1], before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[:, -1], torch.full((50,), 3.0))


def test_clusters_are_means_with_their_shares() -> None:
    vectors = nn.functional.normalize(
        torch.eye(4).repeat_interleave(torch.tensor([5, 10, 15, 20]), 0), dim=-1
    )
    means, share = clusters(vectors, 4)
    order = means.argmax(1).argsort()
    torch.testing.assert_close(means[order], torch.eye(4))
    torch.testing.assert_close(share[order], torch.tensor([0.1, 0.2, 0.3, 0.4]))


def test_fewer_sentences_than_clusters_are_their_own_centroids() -> None:
    few = nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    means, share = clusters(few, 5)
    assert means.shape == (5, 4)
    torch.testing.assert_close(share, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0]))
    aware = HubAwareHead(nn.Identity(), 4, 5, temperature=0.05)
    aware.centroids[:], aware.log_share[:] = means, share.log()
    alone = 0.05 * torch.logsumexp(few @ few.T / 0.05 - math.log(3), dim=-1)
    torch.testing.assert_close(aware.hubness(few), alone)


def test_every_sentence_of_mini_has_the_same_last_component() -> None:
    mini = load_backbone("mini", "cpu")
    last = mini.encode_texts(["a dog", "", "people talk in a room while rain falls on the roof, 12:30"])[
        :, -1
    ]
    assert last.min() > 1
    assert last.max() - last.min() < 0.02 * last.max()
