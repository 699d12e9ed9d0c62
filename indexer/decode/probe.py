"""What a file is, told from its first bytes, and opening it so that FFmpeg follows nothing else.

A file's name decides nothing. Its first bytes must show one of the containers below, and FFmpeg is then told
to use exactly that demuxer and no protocol but `file`. Playlists and concat lists, which make FFmpeg (and
decord, which takes no options) read other files or the network (CVE-2016-1897, CVE-2017-9993), are therefore
refused before any decoder sees them.
"""

from __future__ import annotations

import os
import stat
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import MediaError
from vsearch.indexer.decode.structure import Part, atoms, gif_is_whole, is_unbroken, segment_end
from vsearch.indexer.sniff import (
    ASF,
    ASF_PROPERTIES,
    AVI,
    FLV,
    GIF,
    HEAD_BYTES,
    MATROSKA,
    MP4,
    MPEGTS,
    container_of,
    read_head,
    why_not_video,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

FORMAT_WHITELIST = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,gif,ogg"

ENCRYPTED = "encrypted: its pictures cannot be read without their key"
_ENCRYPTION_TYPE, _ENCRYPTION = (
    b"\x50\x33\x81\x01",
    b"\x50\x35",
)  # elements of matroska (RFC 9559, 5.1.4.1.31)
_ASF_PROTECTED = (  # content encryption objects (ASF specification, 3.14 and 3.15)
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)


def open_video(
    path: Path, max_pixels: int, part: Part | None = None
) -> tuple[InputContainer, VideoStream, str]:
    """Open a file with PyAV, or a part of it: (container, the video stream to decode, container name).

    Raises MediaError with the reason when it is not a video, refused, damaged beyond opening or too large.
    """
    import av

    lenient: dict[str, Any] = {}
    if int(av.__version__.partition(".")[0]) < 19:  # which always is
        lenient["metadata_errors"] = "replace"
    name = checked_container(path)
    whole = part or Part(0, os.stat(path).st_size)
    try:
        if _is_encrypted(path, name, whole):
            raise MediaError(ENCRYPTED)
        container = av.open(
            _url(path, name, part),
            mode="r",
            format=name,
            options={"protocol_whitelist": "file,subfile", "format_whitelist": FORMAT_WHITELIST},
            **lenient,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_why_not_opened(path, name, whole, error)) from error
    try:
        if any("enc_key_id" in stream.metadata for stream in container.streams.video):  # matroska, further on
            raise MediaError(ENCRYPTED)
        return container, _choose_stream(container, max_pixels), name
    except BaseException:
        container.close()
        raise


def _url(path: Path, name: str, part: Part | None) -> str:
    """For FFmpeg. With a protocol, so that ':' and '%' in a name are neither one nor a pattern; without the zeros that
    may follow a matroska file, of which FFmpeg tries every byte."""
    whole = f"file:{path}"
    size = os.stat(path).st_size
    if part and part != (0, size):
        return f"subfile,,start,{part.start},end,{part.end},,:{whole}"
    end = segment_end(read_head(path)) if name == MATROSKA else None
    if end is None or size <= end:
        return whole
    with open(path, "rb") as file:
        file.seek(max(end, size - HEAD_BYTES))
        zeros = not file.read(HEAD_BYTES).strip(b"\0")
    return f"subfile,,start,0,end,{end},,:{whole}" if zeros else whole


def stream_duration_s(stream: VideoStream, container: str) -> float | None:
    """How long the video stream itself says it is, from its first picture on; None where it does not say."""
    if container in (ASF, FLV):  # what FFmpeg gives is the whole file's
        return None
    if container != MATROSKA and stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")  # matroska: 00:00:05.005000000, where it ends
    if len(parts) != 3:
        return None
    try:
        end_s = int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2])
    except ValueError:
        return None
    return max(0.0, end_s - float((stream.start_time or 0) * (stream.time_base or 0))) or None


def codec_name(stream: VideoStream) -> str:
    """The codec's own name ('av1'), whatever the decoder is called ('libdav1d')."""
    return stream.codec_context.codec.canonical_name


def cut_short(path: Path, container: str, part: Part) -> bool:
    """Whether an mp4, matroska, avi, asf, flv or gif file is shorter than it says itself. Raises OSError."""
    size = part.size
    head = read_head(path, part.start)
    if container == MP4:
        return any(end > part.end or not kind.strip(b" ").isalnum() for kind, _, end in atoms(path, part))
    if container == AVI:
        declared = int.from_bytes(head[4:8], "little") + 8
        return 8 < declared < 1 << 31 and size < declared
    if container == ASF:
        at = head.find(ASF_PROPERTIES)
        return at > 0 and size < int.from_bytes(head[at + 40 : at + 48], "little")
    if container == FLV:
        at = head.find(b"filesize\x00")  # in onMetaData: the name, a type byte, a big-endian double
        return 0 < at < len(head) - 17 and size < struct.unpack_from(">d", head, at + 9)[0]
    if container == MATROSKA:
        end = segment_end(head)
        return end is not None and size < end
    return container == GIF and not gif_is_whole(path, part)


def is_tail_lost(path: Path, container: str, part: Part, since: int) -> bool:
    """Whether bytes of which nothing can be made follow the packet at `since`; zeros are room that a recorder took."""
    if since < 0 or is_unbroken(path, part, container, since, part.size):
        return False
    return bool(read_head(path, max(0, part.end - HEAD_BYTES)).strip(b"\0"))


def is_fragmented(path: Path, part: Part) -> bool:
    """Whether an mp4 file says what it holds piece by piece, so that nothing tells what lies behind a damaged one."""
    return any(kind == b"moof" for kind, _, _ in atoms(path, part))


def is_one_segment(path: Path, part: Part) -> bool:
    """Whether a matroska file ends where its first segment says that it ends. Raises OSError."""
    return segment_end(read_head(path, part.start)) == part.size


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel over its height; 1 where it is not given or absurd."""
    ratio = Fraction(stream.sample_aspect_ratio or 1)
    return ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)


def checked_container(path: Path) -> str:
    """The container that a file is. Raises MediaError with the reason when it is none of ours or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MediaError("not a regular file")
        head = read_head(path)
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}") from error
    name = container_of(head)
    if name is None:
        raise MediaError(why_not_video(head))
    return name


def _choose_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    """The default video stream, else the one with most pixels; cover pictures do not count."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & covers]
    if not videos:
        kinds = {s.type for s in container.streams}
        if "video" in kinds:
            raise MediaError("no video stream (sound with a cover picture only)")
        raise MediaError("no video stream (audio only)" if "audio" in kinds else "no video stream")
    usable = [s for s in videos if s.codec_context is not None]
    if not usable:
        raise MediaError("the codec of its video stream is not known to this decoder")
    # max() keeps the first of equals, so the choice is stable.
    best = max(usable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height))
    if best.width * best.height > max_pixels:
        limit = f"{max_pixels / 1e6:.0f} megapixels"
        raise MediaError(f"picture of {best.width}x{best.height} pixels exceeds the limit of {limit}")
    return best


def _why_not_opened(path: Path, container: str, part: Part, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than a decoder is allowed to open it"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    if container == MP4:
        kinds = {kind for kind, _, _ in atoms(path, part)}
        if b"moov" not in kinds:
            if b"moof" in kinds:
                return "damaged: a stream without its beginning (moov atom missing); nothing could be decoded"
            return "damaged: no index (moov atom missing); nothing could be decoded"
    return f"damaged: the {container} container cannot be opened"


def _is_encrypted(path: Path, container: str, part: Part) -> bool:
    """Whether a file says that its pictures are encrypted. Asked before FFmpeg, which takes some for damaged."""
    if container == MP4:
        return _has_encrypted_entry(path, part)
    head = read_head(path, part.start)
    if container == ASF:
        return any(guid in head for guid in _ASF_PROTECTED)
    if container == MATROSKA:
        return _ENCRYPTION_TYPE in head and _ENCRYPTION in head
    return container == MPEGTS and _is_scrambled(path)


def _has_encrypted_entry(path: Path, part: Part) -> bool:
    """Whether the description of a track in an mp4 file names an encrypted kind of pictures (ISO 14496-12, 8.12)."""
    moov = next(((start, end) for kind, start, end in atoms(path, part) if kind == b"moov"), None)
    if moov is None:
        return False
    with open(path, "rb") as file:
        file.seek(moov[0])
        data = file.read(min(moov[1] - moov[0], 1 << 20))  # descriptions come before the tables of samples
    at = data.find(b"encv")
    return at > 0 and data.find(b"sinf", at, at + 4096) > 0


def _is_scrambled(path: Path) -> bool:
    """Whether most packets of a transport stream are marked as scrambled (ISO 13818-1, 2.4.3.3)."""
    with open(path, "rb") as file:
        data = file.read(1 << 20)
    for size in (188, 192):
        first = data.find(b"\x47", 0, size)
        if first >= 0 and not data[first : first + 5 * size : size].strip(b"\x47"):
            flags = [byte >> 6 for byte in data[first + 3 :: size]]
            return 2 * sum(flag > 1 for flag in flags) > len(flags)
    return False
