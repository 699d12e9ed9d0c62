"""A sentence longer than a model reads: its end counts for nothing, and that is said, whatever the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.retriever.test_search import DIM, add_video
from vsearch.library import Library
from vsearch.models import Encoder, ZeroShotHead, load_backbone, load_quick_encoder
from vsearch.retriever import Session, live_encoder
from vsearch.retriever.actions import search_in
from vsearch.retriever.encoders import Encoders
from vsearch.retriever.searching import search, sentence_vector

WORDS = [
    "a",
    "dog",
    "runs",
    "on",
    "green",
    "grass",
    "beside",
    "the",
    "water",
    "while",
    "one",
    "child",
    "throws",
    "a",
    "ball",
    "to",
    "it",
    "again",
]


class Reader:
    """Reads the first words of a sentence, and nothing of the rest."""

    identity = "enc"

    def __init__(self, words: int) -> None:
        self.words = words

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        read = ["".join(text.split()[: self.words]) for text in texts]
        vectors = np.stack([np.random.default_rng(list(each.encode())).normal(size=DIM) for each in read])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def library(tmp_path: Path):
    with Library.open(tmp_path / "library", create=True) as opened:
        add_video(opened, tmp_path / "one.mp4", [0] * 20)
        yield opened


@pytest.mark.parametrize(
    ("read", "cut"), [(10, True), (len(WORDS) - 1, True), (len(WORDS), False), (99, False)]
)
def test_any_model_that_leaves_the_end_out_is_told(library: Library, read: int, cut: bool) -> None:
    text, reader = " ".join(WORDS), Reader(read)
    video = library.find_video("one.mp4")
    for _ in range(2):  # also when it is asked again
        assert search(library, text, encoder=reader).cut is cut
        assert search_in(library, video, text, encoder=reader).cut is cut


def test_a_sentence_is_remembered_only_whole(library: Library) -> None:
    live, text = live_encoder(library), " ".join(WORDS)
    for read, known in ((10, False), (99, True)):
        encoders = Encoders()
        encoders.load = encoders.at_hand = lambda _, read=read: Reader(read)  # type: ignore[method-assign]
        session = Session(lambda: library, encoders=encoders)
        assert session.remember(session.search(text, keep=False))
        assert (library.cached_text(live.id, text) is not None) is known
        assert library.cached_text(live.id, text[:-1]) is None


@pytest.mark.parametrize("length", [74, 75, 76, 200])
def test_real_text_towers_with_and_without_torch(library: Library, tiny_model: Path, length: int) -> None:
    whole = load_backbone(str(tiny_model), "cpu")
    whole.arrange()
    spec = Encoder(whole, ZeroShotHead()).spec()
    quick = load_quick_encoder(spec)
    assert quick is not None
    live = live_encoder(library)
    text = " ".join(["dog"] * length)  # a token each; two of the 77 are the start and the end
    for encoder in (quick, Encoder(whole, ZeroShotHead())):
        named = replace(live, identity=encoder.identity)
        found = sentence_vector(library, named, text, encoder, cache=False)
        assert found.cut is (length > 75)
