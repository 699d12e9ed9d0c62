"""Moments as the catalogue has them."""

from __future__ import annotations

import contextlib
import sqlite3

from vsearch.library import Library
from vsearch.records import Moment, Video


def moments_of(library: Library, video: Video, encoder_id: int) -> list[Moment]:
    """A video's moments for an encoder, in time order."""
    with contextlib.closing(sqlite3.connect(library.path / "catalogue.sqlite")) as catalogue:
        rows = catalogue.execute(
            "SELECT m.id FROM moments m JOIN frame_sets f ON f.id = m.frame_set_id WHERE m.encoder_id = ? AND "
            "f.fingerprint = ? AND f.id IN (SELECT max(id) FROM frame_sets GROUP BY fingerprint, backbone) "
            "ORDER BY m.start_ms, m.id",
            (encoder_id, video.fingerprint),
        ).fetchall()
    return library.moments([id for (id,) in rows])
