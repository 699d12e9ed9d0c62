"""Telling from a file's first bytes what it is. Reads nothing else and imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

HEAD_BYTES = 4096

# The containers that are read, each by the name of its FFmpeg demuxer; spelled here alone.
MP4, MATROSKA, AVI, FLV, MPEG, MPEGTS, ASF, GIF, OGG = (
    "mp4", "matroska", "avi", "flv", "mpeg", "mpegts", "asf", "gif", "ogg",
)  # fmt: skip

ASF_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"  # begins the object
_MOV_ATOMS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"uuid"}
_PICTURE_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"crx "}
_AUDIO_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_KNOWN_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG picture"), (b"\x89PNG", "a PNG picture"),
    (b"PK\x03\x04", "a zip archive"),
    (b"%PDF", "a PDF document"), (b"ID3", "an MP3 sound file"), (b"fLaC", "a FLAC sound file"),
    (b"\x06\x0e\x2b\x34", "an MXF file, a container that is not supported"), (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"), (b"\x7fELF", "a program"), (b"\x1f\x8b", "a gzip archive"),
    (b".RMF", "a RealMedia file, a container that is not supported"),
    (b"nut/multimedia", "a NUT file, a container that is not supported"),
    (b"\x1f\x07\x00", "raw DV video, which is not supported"),
    (b"\x00\x00\x01\xb3", "raw MPEG video without a container, which is not supported"),
    (b"\x00\x00\x00\x01", "raw H.264 or HEVC video without a container, which is not supported"),
    (b"\x00\x00\x01", "raw video without a container, which is not supported"),
    (b"\x12\x00\x0a", "raw AV1 video without a container, which is not supported"),
    (b"\xb7\xd8\x00\x20", "a WTV recording, a container that is not supported"),
    (b"YUV4MPEG2", "raw video (y4m), which is not supported"), (b"DKIF", "an IVF file, not supported"),
)  # fmt: skip


def read_head(path: str | Path, start: int = 0) -> bytes:
    """The first bytes of a file, or those from `start` on. Raises OSError."""
    # A name can be swapped for a pipe between listing and opening; without O_NONBLOCK that would hang.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, HEAD_BYTES, start) if start else os.read(descriptor, HEAD_BYTES)
    finally:
        os.close(descriptor)


def container_of(head: bytes) -> str | None:
    """The container that the first bytes show, as the name of an FFmpeg demuxer; None: none of ours."""
    if head[4:8] in _MOV_ATOMS:
        return None if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS else MP4
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return MATROSKA
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return AVI
    if head.startswith(b"FLV\x01"):
        return FLV
    if head.startswith(b"\x00\x00\x01\xba"):
        return MPEG
    if head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return ASF
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"OggS"):
        return OGG
    # A text of many G would pass for one.
    return MPEGTS if _is_transport_stream(head) and not is_text(head) else None


def is_audio_only(head: bytes) -> bool:
    """Whether the first bytes say that a file of one of our containers holds sound alone."""
    if head[4:8] == b"ftyp":
        return head[8:12] in _AUDIO_BRANDS
    return head.startswith(b"OggS") and not any(
        tag in head for tag in (b"theora", b"OVP80", b"fishead", b"BBCD")
    )


def is_animated_webp(head: bytes) -> bool:
    """By the flag in the extended header (RFC 9649, 2.7)."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21] > b"" and head[20] & 2)


def why_not_video(head: bytes) -> str:
    """A sentence on why a file without a known container is no video; `head` holds its first bytes."""
    if not head:
        return "empty file (0 bytes)"
    if not head.strip(b"\x00"):
        return "not a video: the file begins with nothing but zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"#EXTM3U"):
        return "is a playlist (HLS), not a video; refused"
    if text.startswith(b"ffconcat"):
        return "is a playlist (ffconcat), not a video; refused"
    if text.startswith(b"v=0") and b"m=" in text:
        return "is a session description (SDP), not a video; refused"
    if b"<MPD" in head:
        return "is a playlist (DASH), not a video; refused"
    if text.lower().startswith((b"<!doctype html", b"<html")):
        return "not a video: a web page"
    for magic, name in _KNOWN_OTHERS:
        if head.startswith(magic):
            return f"not a video: {name}"
    if head[4:8] == b"ftyp":
        return "not a video: a HEIF or AVIF picture"
    if is_animated_webp(head):
        return "not a video: an animated WebP picture, which is not supported"
    if head.startswith(b"RIFF"):
        return (
            "not a video: a WAVE sound file"
            if head[8:12] == b"WAVE"
            else "not a video: a RIFF file without video"
        )
    return "not a video: a text file" if is_text(head) else "not a video: no known container"


def is_text(head: bytes) -> bool:
    """Whether the first bytes are UTF-8 text."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut off at the end of what was read is no sign against text.
        return len(head) == HEAD_BYTES and error.start > HEAD_BYTES - 4
    return b"\x00" not in head


def _is_transport_stream(head: bytes) -> bool:
    """Sync byte 0x47 in at least five consecutive packets of 188 bytes, or 192 (Blu-ray, camcorders)."""
    for size in (188, 192):
        first = head.find(b"\x47", 0, size)
        while first >= 0:
            syncs = head[first::size]
            if len(syncs) >= 5 and not syncs.strip(b"\x47"):
                return True
            first = head.find(b"\x47", first + 1, size)
    return False
