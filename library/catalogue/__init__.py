"""The catalogue: its schema, its migrations, what is read from it and written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.library.catalogue.connection import Ask
    from vsearch.library.catalogue.migrations import latest_schema
    from vsearch.library.catalogue.queries import rate_to_note
    from vsearch.library.catalogue.reader import open_reader, open_reading
    from vsearch.library.catalogue.reading import Reading
    from vsearch.library.catalogue.recording import add_moments, chunks, discard, drop_frame_sets
    from vsearch.library.catalogue.rows import Roots, to_encoder, to_frames, to_generation, whole_number
    from vsearch.library.catalogue.schema import (
        Base,
        Catalogue,
        EncoderRow,
        FrameSetRow,
        GarbageRow,
        GenerationRow,
        MetaRow,
        MomentRow,
        RootRow,
        TextVectorRow,
        VideoRow,
        asking,
        connect_sqlite,
        database_errors,
        integrity_problems,
    )
    from vsearch.library.catalogue.statements import LIVE, no_encoder, pick

# fmt: off
__all__ = [
    "LIVE",
    "Ask",
    "Base",
    "Catalogue",
    "EncoderRow",
    "FrameSetRow",
    "GarbageRow",
    "GenerationRow",
    "MetaRow",
    "MomentRow",
    "Reading",
    "RootRow",
    "Roots",
    "TextVectorRow",
    "VideoRow",
    "add_moments",
    "asking",
    "chunks",
    "connect_sqlite",
    "database_errors",
    "discard",
    "drop_frame_sets",
    "integrity_problems",
    "latest_schema",
    "no_encoder",
    "open_reader",
    "open_reading",
    "pick",
    "rate_to_note",
    "to_encoder",
    "to_frames",
    "to_generation",
    "whole_number",
]
__getattr__ = face(__name__, {
    "connection": "Ask",
    "migrations": "latest_schema",
    "queries": "rate_to_note",
    "reader": "open_reader open_reading",
    "reading": "Reading",
    "recording": "add_moments chunks discard drop_frame_sets",
    "rows": "Roots to_encoder to_frames to_generation whole_number",
    "schema": "Base Catalogue EncoderRow FrameSetRow GarbageRow GenerationRow MetaRow MomentRow "
        "RootRow TextVectorRow VideoRow asking connect_sqlite database_errors "
        "integrity_problems",
    "statements": "LIVE no_encoder pick",
})
