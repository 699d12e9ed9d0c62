"""Action names against videos: names, proposals, localization, classification, and learning from examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.retriever.actions.classify import Guess, check_name, load, save
    from vsearch.retriever.actions.generated import annotated_frames, generated_by
    from vsearch.retriever.actions.learn import learn_prompts
    from vsearch.retriever.actions.localize import DEFAULT_LIMITS, Detection, Limits
    from vsearch.retriever.actions.proposals import Floats, Ints, Timeline, propose
    from vsearch.retriever.actions.videos import (
        Learned,
        Maker,
        dense_timeline_of,
        localize_videos,
        named_actions,
        search_in,
        timeline_of,
    )

# fmt: off
__all__ = [
    "DEFAULT_LIMITS", "Detection", "Floats", "Guess", "Ints", "Learned", "Limits", "Maker", "Timeline",
    "annotated_frames", "check_name", "dense_timeline_of", "generated_by", "learn_prompts", "load",
    "localize_videos", "named_actions", "propose", "save", "search_in", "timeline_of",
]
__getattr__ = face(__name__, {
    "classify": "Guess check_name load save",
    "generated": "annotated_frames generated_by",
    "learn": "learn_prompts",
    "localize": "DEFAULT_LIMITS Detection Limits",
    "proposals": "Floats Ints Timeline propose",
    "videos": "Learned Maker dense_timeline_of localize_videos named_actions search_in timeline_of",
})
