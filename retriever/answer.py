"""What a query gives: plain records that cost nothing to import, and their JSON between the helper and its callers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Scored:
    """A moment of a video with its similarity to the query (cosine, -1..1)."""

    video_id: int
    start_ms: int
    end_ms: int
    score: float


@dataclass(frozen=True)
class Hit:
    """A video's best moment. `score` is a cosine; `more` are its other moments, `also_at` copies of the file. `strength`:
    a word, and `probability`, 0..1, that it shows what was asked; None where nothing is known to judge by.

    `coarse`: found by keyframes alone, as the video has not been indexed at full rate yet. `gone`: no file of it is
    there now.
    """

    rank: int
    path: str
    video_id: int
    start_ms: int
    end_ms: int
    score: float
    strength: str | None
    probability: float | None
    more: tuple[Scored, ...]
    also_at: tuple[str, ...]
    coarse: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Answer:
    """Hits best first. `confident` is False when none of them is likely.

    `cut`: the end of the sentence lies behind what the model reads, and was not looked for. `language`: what the
    sentence is written in, where the model does not read that.
    """

    query: str
    model: str
    confident: bool
    hits: tuple[Hit, ...]
    cut: bool = False
    language: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Answer:
        """Raises ValueError, KeyError or TypeError for anything but the JSON of an answer."""
        value = json.loads(text)
        hits = []
        for hit in value.pop("hits"):
            more = tuple(Scored(**each) for each in hit.pop("more"))
            hits.append(Hit(**hit | {"more": more, "also_at": tuple(hit["also_at"])}))
        return cls(**value, hits=tuple(hits))


def is_confident(hits: Sequence[Hit]) -> bool:
    """Whether one of them is likely, or nothing is known to judge by."""
    return any(hit.strength in (None, "strong", "likely") for hit in hits)
