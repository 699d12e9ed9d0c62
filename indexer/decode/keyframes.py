"""A first look at a video: its keyframes alone, at most one in a while. They need no other picture to be decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


def keyframes(
    packets: Iterable[Packet[Any]],
    stream: VideoStream,
    every_s: float,
    zero_s: float,
    seek: Callable[[int], None] | None,
) -> Iterator[tuple[VideoFrame, float]]:
    """(picture, seconds from `zero_s`) of the first keyframe after every `every_s` seconds, the one at 0 not among
    them. What cannot be decoded is left out.

    `seek`: reach each by the container's index, without reading what lies between; `packets` then go on at or before
    the time stamp asked for.
    """
    last_s = 0.0
    while True:
        target_s = last_s + every_s
        if seek:
            seek(int((target_s + zero_s) / stream.time_base))  # type: ignore[operator]
        reading = iter(packets)
        packet = next(reading, None)
        if packet is not None and seek and _time_s(packet, zero_s, target_s) < last_s:
            seek = None  # the index is of no use: read on from here
        packet = _next_keyframe(chain([packet] if packet else [], reading), target_s, zero_s, last_s)
        if packet is None:
            return
        time_s = _time_s(packet, zero_s, last_s)
        frame = _decoded(stream, packet)
        last_s = time_s
        if frame is not None:
            yield frame, time_s


def _next_keyframe(
    packets: Iterator[Packet[Any]], target_s: float, zero_s: float, last_s: float
) -> Packet[Any] | None:
    for packet in packets:
        if packet.is_keyframe and packet.size and _time_s(packet, zero_s, last_s) >= target_s:
            return packet
    return None


def _time_s(packet: Packet[Any], zero_s: float, unknown_s: float) -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or not packet.time_base:
        return unknown_s
    return float(stamp * packet.time_base) - zero_s


def _decoded(stream: VideoStream, packet: Packet[Any]) -> VideoFrame | None:
    """One picture by itself: the decoder forgets what was before, and need not wait for what comes."""
    import av

    codec = stream.codec_context
    codec.flush_buffers()
    try:
        frames = [*codec.decode(packet), *codec.decode(None)]
    except (av.FFmpegError, EOFError):
        return None
    return frames[0] if frames else None
