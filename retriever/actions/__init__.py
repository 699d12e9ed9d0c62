"""Action names against videos: names, proposals, localization, classification, and learning from examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.retriever.actions.classify import check_name, load, save
    from vsearch.retriever.actions.learn import annotated_frames, learn_prompts
    from vsearch.retriever.actions.localize import Detection, Limits
    from vsearch.retriever.actions.proposals import generated_by
    from vsearch.retriever.actions.videos import (
        Learned,
        Maker,
        dense_timeline_of,
        localize_videos,
        named_actions,
        search_in,
    )

# fmt: off
__all__ = [
    "Detection", "Learned", "Limits", "Maker", "annotated_frames", "check_name", "dense_timeline_of",
    "generated_by", "learn_prompts", "load", "localize_videos", "named_actions", "save", "search_in",
]
__getattr__ = face(__name__, {
    "classify": "check_name load save",
    "learn": "annotated_frames learn_prompts",
    "localize": "Detection Limits",
    "proposals": "generated_by",
    "videos": "Learned Maker dense_timeline_of localize_videos named_actions search_in",
})
