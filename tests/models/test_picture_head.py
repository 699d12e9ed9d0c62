"""The built-in model's picture head: what captions taught, what the classifier knows, and fewer hubs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import nn

from vsearch.models import load_backbone
from vsearch.models.mini.head import PictureHead
from vsearch.models.mini.train.align import add_constant
from vsearch.models.mini.train.names import DOGS, class_words
from vsearch.models.mini.train.pictures import clusters

FEATURES, DIM = 6, 8


def small_head(bank: torch.Tensor) -> PictureHead:
    torch.manual_seed(0)
    head = PictureHead(
        FEATURES, DIM, members=2, hidden=5, classes=3, centroids=len(bank), temperature=0.05
    ).requires_grad_(False)
    head.centroids[:] = bank
    head.log_share.fill_(-math.log(len(bank)))
    head.weight.fill_(2.0)
    return head


def test_what_the_classifier_is_sure_of_joins_by_its_name() -> None:
    head = small_head(torch.eye(DIM - 1))
    pictures = torch.randn(4, FEATURES)
    learned = torch.stack([nn.functional.normalize(m(pictures), dim=-1) for m in head.members]).mean(0)
    torch.testing.assert_close(head.uncorrected(pictures), nn.functional.normalize(learned, dim=-1))
    head.names[1, 4] = 50.0
    head.classifier.bias[:] = torch.tensor([0.0, 100.0, 0.0])  # sure
    assert (head.uncorrected(pictures)[:, 4] > 0.99).all()
    head.classifier.bias[:] = torch.tensor([0.0, -100.0, 0.0])
    torch.testing.assert_close(head.uncorrected(pictures), nn.functional.normalize(learned, dim=-1))


def test_a_picture_near_all_sentences_loses_and_a_far_one_does_not() -> None:
    bank = nn.functional.normalize(torch.eye(DIM - 1)[:4] + 0.1, dim=-1)
    head = small_head(bank)
    hub, far = torch.zeros(DIM - 1), torch.zeros(DIM - 1)
    hub[:4], far[5] = 0.5, 1.0
    vectors = iter([hub, far])
    head.uncorrected = lambda features: next(vectors)[None]  # type: ignore[method-assign]
    near, away = head(torch.zeros(1, FEATURES))[0], head(torch.zeros(1, FEATURES))[0]
    torch.testing.assert_close(near[:-1], hub)
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


def test_classes_have_names_and_wider_words() -> None:
    words = class_words()
    assert len(words) == 1000
    assert all("dog" in words[i][1] for i in DOGS)
    assert words[889] == (["violin", "fiddle"], ["musical instrument"])
    assert words[949][1] == ["fruit", "food"]


def test_every_sentence_of_mini_has_the_same_last_component() -> None:
    mini = load_backbone("mini", "cpu")
    last = mini.encode_texts(["a dog", "", "people talk in a room while rain falls on the roof, 12:30"])[
        :, -1
    ]
    assert last.min() > 1
    assert last.max() - last.min() < 0.02 * last.max()
