"""Stored frames that the catalogue lost, above all to a backup older than they: taken up again, so no video is decoded twice.

Their files say whose they are. A content that no row has is entered as a missing video; the next `vsearch index` that
sees the file knows it by its content, as it knows one that was moved.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from vsearch.errors import LibraryError
from vsearch.library.catalogue import (
    EncoderRow,
    FrameSetRow,
    GarbageRow,
    RootRow,
    VideoRow,
    add_moments,
    to_encoder,
)
from vsearch.library.checks.check import Check, Problem
from vsearch.library.frames import FRAMES
from vsearch.library.index import publish as publishing
from vsearch.records import MEDIA, MISSING, StoredFrames

_SAID = (*MEDIA, "covered_ms", "size")


def take_up(check: Check) -> list[Problem]:
    """Nothing without `repair`: until then such files are what a killed run leaves."""
    if not check.repair:
        return []
    problems = []
    for said, stored in _lost(check):
        with check.catalogue.write() as session:
            root_id = session.scalars(select(RootRow.id).order_by(RootRow.id)).first()
            same = VideoRow.fingerprint == stored.fingerprint
            known = session.scalars(select(VideoRow).where(same).order_by(VideoRow.id)).first()
            if known is None and root_id is None:
                continue
            row = FrameSetRow(file=stored.name, **{key: getattr(stored, key) for key in _OF_FRAMES})
            session.add(row)
            name = str(said.get("name", "a video"))
            if known is None:
                place = os.fsencode(f"taken up again/{stored.fingerprint}/{name}")
                session.add(
                    VideoRow(
                        root_id=root_id,
                        rel_path=place,
                        mtime_ns=0,
                        fingerprint=stored.fingerprint,
                        state=MISSING,
                        reason=said.get("partial"),
                        added_at=int(time.time()),
                        attempts=1,
                        **{key: said[key] for key in _SAID},
                    )
                )
            session.flush()
            live = publishing.live_row(session)
            encoder = None if live is None else session.get(EncoderRow, live.encoder_id)
            if (
                encoder is not None
                and encoder.backbone == stored.backbone
                and check.makers.windows is not None
            ):
                times_ms = check.store.read(stored).times_ms
                windows = check.makers.windows(
                    to_encoder(encoder, check.folder), times_ms, said["duration_ms"]
                )
                add_moments(session, encoder.id, {row.id: windows})
        check.told[stored.fingerprint] = said
        problems.append(
            Problem(
                f"The catalogue lacks the stored frames of {name!r}", "taken up again; run `vsearch index`"
            )
        )
    return problems


_OF_FRAMES = ("fingerprint", "backbone", "fps", "count", "dim", "bytes")


def _lost(check: Check) -> Iterator[tuple[dict[str, Any], StoredFrames]]:
    """Sound files that no row names and none gave up, of contents that have no frames: what they say, and what they are."""
    with check.catalogue.read() as session:
        named = set(session.scalars(select(FrameSetRow.file)))
        contents = set(session.scalars(select(FrameSetRow.fingerprint)))
        backbones = set(session.scalars(select(EncoderRow.backbone)))
        given_up = set(session.scalars(select(GarbageRow.file)))
    for name in sorted(check.store.names() - named):
        try:
            said = check.store.description(name)
            stored = StoredFrames(name, *(said[key] for key in _OF_FRAMES))
        except (LibraryError, LookupError):
            continue
        if (
            said.keys() >= set(_SAID)
            and stored.backbone in backbones
            and stored.fingerprint not in contents
            and f"{FRAMES}/{name[:2]}/{name}.npy" not in given_up
            and check.store.sound(stored)
        ):
            contents.add(stored.fingerprint)
            yield said, stored
