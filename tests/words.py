"""What a run measures of a library for the words of its answers, with made-up sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vsearch.library import Library
from vsearch.maths import normalise
from vsearch.models.neutral import neutral_scores


def give_words(library: Library, seed: int = 0) -> None:
    """Of sentences that lie anywhere; the model counts as one that knows something."""
    live = library.live_encoder()
    assert live is not None
    view = library.open_live()
    bank = normalise(np.random.default_rng(seed).normal(size=(400, view.generation.dim)))
    scores = neutral_scores(view.ids, view.vectors(), bank.astype(np.float16))
    library.keep_neutral(live, replace(scores, lean=1.0))
