"""The vector index: generations of immutable files, exact or compressed, and the pointer to the one that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.library.index.parts import INDEX, MEND, SUFFIXES, damaged
    from vsearch.library.index.publish import current_frame_sets, index_files, live_row, up_to_date
    from vsearch.library.index.standing import HeldIndex, Standing
    from vsearch.library.index.view import IndexView, is_of, open_index, part_files

# fmt: off
__all__ = [
    "INDEX",
    "MEND",
    "SUFFIXES",
    "HeldIndex",
    "IndexView",
    "Standing",
    "current_frame_sets",
    "damaged",
    "index_files",
    "is_of",
    "live_row",
    "open_index",
    "part_files",
    "up_to_date",
]
__getattr__ = face(__name__, {
    "parts": "INDEX MEND SUFFIXES damaged",
    "publish": "current_frame_sets index_files live_row up_to_date",
    "standing": "HeldIndex Standing",
    "view": "IndexView is_of open_index part_files",
})
