"""What a decoder process says to its parent, over a pipe: a head of fixed size, then as many bytes as it names.

Heads have one size so that the parent can read one message's end and the next one's head in a single call, and a
frame's takes no parsing of text: hundreds come in a second.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

FRAME, PROGRESS, POSTER, REPORT = range(4)  # raw RGB; nothing; JPEG; JSON, an object with a `kind`
_LAYOUT = struct.Struct("=Iiq")
HEAD_BYTES = _LAYOUT.size


class Head(NamedTuple):
    """`kind`: one of the above; `length`: bytes that follow; `ms`: a frame's time, or how far decoding has come."""

    kind: int
    length: int
    ms: int


def packed(kind: int, length: int, ms: int) -> bytes:
    return _LAYOUT.pack(length, kind, ms)


def unpacked(data: bytearray) -> Head:
    length, kind, ms = _LAYOUT.unpack(data)
    return Head(kind, length, ms)
