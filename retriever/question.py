"""A query as a record, so that whoever answers it, the command itself or the helper, answers the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Question:
    """`library`: its folder, absolute. `within`: a video as the user named it, and `within_path` what that is as a
    path where he did; None: all videos. `least`: a word that every hit must have, or a better one."""

    library: str
    text: str
    number: int
    threshold: float | None = None
    within: str | None = None
    within_path: str | None = None
    least: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Question:
        """Raises ValueError or TypeError for anything but the JSON of a question."""
        found = cls(**json.loads(text))
        texts = (found.library, found.text, found.within or "", found.within_path or "", found.least or "")
        sound = all(isinstance(each, str) for each in texts) and type(found.number) is int
        if not sound or not isinstance(found.threshold, float | int | None) or found.number < 1:
            raise ValueError("not a question")
        return found
