"""A query as a record, so that whoever answers it, the command itself or the helper, answers the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.retriever.answer import Answer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vsearch.library import EncoderInfo, Reading
    from vsearch.library.index.view import IndexView
    from vsearch.models import TextEncoder

LAST_HITS = "last_hits"  # noted in the library, so that `vsearch clip 1` knows what 1 was


@dataclass(frozen=True)
class Question:
    """`library`: its folder, absolute. `within`: a video as the user named it, and `within_path` what that is as a
    path where he did; None: all videos."""

    library: str
    text: str
    number: int
    threshold: float | None = None
    within: str | None = None
    within_path: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Question:
        """Raises ValueError or TypeError for anything but the JSON of a question."""
        found = cls(**json.loads(text))
        texts = (found.library, found.text, found.within or "", found.within_path or "")
        sound = all(isinstance(each, str) for each in texts) and type(found.number) is int
        if not sound or not isinstance(found.threshold, float | int | None) or found.number < 1:
            raise ValueError("not a question")
        return found


class OwnEncoder:
    """The library's encoder for sentences, loaded when first needed."""

    def __init__(self, live: EncoderInfo, device: str) -> None:
        self.identity = live.identity
        self.loaded: TextEncoder | None = None
        self.made: dict[str, npt.NDArray[np.float32]] = {}  # sentences and their vectors (D,)
        self._live, self._device = live, device

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors. Raises ModelError when the encoder cannot be had."""
        from vsearch.retriever.searching import text_encoder

        self.loaded = text_encoder(self._live, self.loaded, self._device)
        vectors = self.loaded.embed_texts(texts)
        self.made.update(zip(texts, vectors, strict=True))
        return vectors


def answer(
    library: Reading,
    question: Question,
    *,
    encoder: TextEncoder | None = None,
    device: str = "auto",
    view: Callable[[Reading], IndexView] | None = None,
    cache: bool = True,
) -> Answer:
    """Raises VsearchError. `encoder`: a loaded one; `view`: gives the live index where it is open already; `cache`:
    keep the vector of a new sentence now (else `remember` does, when the answer is out)."""
    if question.within is None:
        from vsearch.retriever.searching import search

        return search(
            library,
            question.text,
            number=question.number,
            threshold=question.threshold,
            encoder=encoder,
            device=device,
            view=view,
            cache=cache,
        )
    from vsearch.retriever.actions.videos import search_in

    path = Path(question.within_path) if question.within_path else None
    return search_in(
        library,
        library.find_video(question.within, path),
        question.text,
        number=question.number,
        threshold=question.threshold,
        encoder=encoder,
        device=device,
        cache=cache,
    )


def remember(
    library: Reading, given: Answer, encoder: OwnEncoder | None = None, patience_ms: int | None = None
) -> bool:
    """Note the hits for the commands that follow, and the sentence if `encoder` encoded it. Waits 200 ms (or
    `patience_ms`) at most for another process that writes, and never fails. Whether the hits are noted."""
    value = json.dumps([[hit.path, hit.start_ms, hit.end_ms] for hit in given.hits])
    noted = library.remember(LAST_HITS, value, *([] if patience_ms is None else [patience_ms]))
    if noted and not given.cut and encoder is not None and given.query in encoder.made:
        live = library.live_encoder()
        if live is not None and live.identity == encoder.identity:
            library.cache_text(live.id, given.query, encoder.made[given.query])
    return noted
