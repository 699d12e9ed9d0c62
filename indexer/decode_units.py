"""What a packet of compressed video holds, as far as it says so at the beginning of its units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from typing_extensions import Buffer


class Units(NamedTuple):
    """`pictures_only`: nothing but pictures and what is of no consequence. `anew`: decoding can begin here, and nothing
    that comes later needs what was before. `no_reference`: no other picture is decoded from these."""

    pictures_only: bool
    anew: bool
    no_reference: bool


Reader = Callable[[memoryview], Units]

_UNKNOWN = Units(False, False, False)
_SLICES = range(1, 6)  # kinds of units of H.264 that hold parts of a picture
_IDR = 5
_HARMLESS = (6, 9, 12)  # supplemental information, delimiters, filler
_VOP, _GROUP_OF_VOPS = b"\x00\x00\x01\xb6", b"\x00\x00\x01\xb3"


def reader(codec: Any) -> Reader | None:
    """Of a codec context's packets: H.264 with length-prefixed units (avcC, ISO 14496-15, 5.3.3), VP8, VP9 and the
    Simple Profile of MPEG-4 part 2, which has no B-pictures."""
    extra = codec.extradata
    if codec.name == "h264" and extra and len(extra) >= 7 and extra[0] == 1:
        return partial(_h264, (extra[4] & 3) + 1)
    if codec.name == "mpeg4":
        return _mpeg4 if codec.profile == "Simple Profile" and not codec.has_b_frames else None
    return {"vp8": _vp8, "vp9": _vp9}.get(codec.name)


def _h264(length_bytes: int, data: memoryview) -> Units:
    """ITU-T H.264, 7.3.1 and table 7-1. Nothing after an IDR picture refers to what was before it."""
    at = 0
    slices = idr = references = 0
    while at + length_bytes < len(data):
        length = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        kind = data[at] & 31
        if kind in _SLICES:
            slices += 1
            idr += kind == _IDR
            references += data[at] >> 5 & 3 > 0
        elif kind not in _HARMLESS:
            return Units(False, idr > 0, False)
        at += length
    if not slices or at != len(data):
        return _UNKNOWN
    return Units(True, idr > 0, references == 0)


def _mpeg4(data: memoryview) -> Units:
    """ISO 14496-2, 6.2.5: vop_coding_type 0 is an intra picture."""
    head = bytes(data[:64])
    at = head.find(_VOP)
    if at < 0 or at + 4 >= len(head):
        return _UNKNOWN
    return Units(at == 0 or head.startswith(_GROUP_OF_VOPS), not head[at + 4] >> 6, False)


def _vp8(data: memoryview) -> Units:
    """RFC 6386, 9.1."""
    return Units(True, not data[0] & 1, False) if len(data) > 3 else _UNKNOWN


def _vp9(data: memoryview) -> Units:
    """VP9 bitstream specification, 6.2: marker 2, profile below 3, no repeated picture, frame type 0."""
    if not data or data[0] >> 6 != 2 or data[0] & 0x30 == 0x30:
        return _UNKNOWN
    return Units(True, not data[0] & 0x0C, False)


def is_header(codec: str, data: Buffer) -> bool:
    """Whether a packet of Ogg is a header: in mid-stream, of the next part of a chained file (Theora specification, 6.1;
    VP8 in Ogg)."""
    head = bytes(memoryview(data)[:5])
    return head == b"OVP80" if codec == "vp8" else codec == "theora" and head >= b"\x80"


def is_b_picture(codec: str, data: bytes) -> bool:
    """Whether a packet of H.264 in a byte stream (ITU-T H.264, 7.3.3 and table 7-6) or of MPEG-4 part 2 (ISO 14496-2,
    6.2.5) begins with a B-picture. False for all others."""
    if codec == "mpeg4":
        at = data.find(_VOP)
        return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == 2
    at = data.find(b"\x00\x00\x01") if codec == "h264" else -1
    while 0 <= at < len(data) - 8:
        if data[at + 3] & 31 in _SLICES:
            bits = int.from_bytes(data[at + 4 : at + 12].ljust(8, b"\x00"), "big")
            _, used = _golomb(bits, 64)
            kind, _ = _golomb(bits, 64 - used)
            return kind % 5 == 1
        at = data.find(b"\x00\x00\x01", at + 3)
    return False


def _golomb(bits: int, left: int) -> tuple[int, int]:
    """(value, bits used) of the unsigned Exp-Golomb code at the top of the lowest `left` bits (ITU-T H.264, 9.1)."""
    bits &= (1 << left) - 1
    zeros = left - bits.bit_length()
    length = 2 * zeros + 1
    return (bits >> max(0, left - length)) - 1, length
