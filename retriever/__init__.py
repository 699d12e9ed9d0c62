"""Query time: a sentence in, moments out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.retriever.answer import Answer, Hit
    from vsearch.retriever.formats import FORMATS, render, to_activitynet
    from vsearch.retriever.helper import Asked, ask, start
    from vsearch.retriever.question import Question
    from vsearch.retriever.searching import live_encoder, look_of
    from vsearch.retriever.session import Session

# fmt: off
__all__ = [
    "FORMATS",
    "Answer",
    "Asked",
    "Hit",
    "Question",
    "Session",
    "ask",
    "live_encoder",
    "look_of",
    "render",
    "start",
    "to_activitynet",
]
__getattr__ = face(__name__, {
    "answer": "Answer Hit",
    "formats": "FORMATS render to_activitynet",
    "helper": "Asked ask start",
    "question": "Question",
    "searching": "live_encoder look_of",
    "session": "Session",
})
