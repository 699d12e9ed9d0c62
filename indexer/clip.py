"""Cut a moment out of a video as an H.264/AAC file that plays in every browser and player.

Pictures, their times, orientation and shape are those that indexing sees: both read the same source. The cut is exact
to the picture, so pictures are encoded anew: in 8 bits, with square pixels, tagged with the colours that the file has.
High dynamic range is not tone mapped. Decoding happens in a child process, as everywhere: a damaged or hostile file
can end that process, not this one.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vsearch import process
from vsearch.errors import MediaError, VsearchError
from vsearch.indexer.still import REASON_GIVEN

if TYPE_CHECKING:
    from vsearch.indexer.decode import JoinedSource, PyavSource, Shown, StoredPicture

# Encoding 4K can run well under real time on one core. A file that cannot be sought in is read from its beginning.
BASE_S, PER_SECOND_S, BYTES_PER_SECOND = 120.0, 20.0, 1_000_000
STALL_S = 120  # without a picture
MEMORY_BYTES = 6 << 30
TICKS = 90_000
THREADS = 2
MOST_PIXELS, LONGEST_SIDE = 139_264 * 256, 16_384  # H.264 level 6.2 (table A-1); x264


def export_clip(
    source: Path,
    target: Path,
    start_ms: int,
    end_ms: int,
    *,
    overwrite: bool = False,
    held: Iterable[Path] = (),
) -> str | None:
    """Write [start_ms, end_ms) of `source` to `target` (.mp4), in one piece or not at all. Returns a sentence when the
    sound could not be had.

    `held`: files that are never overwritten, by whatever name; `source` is one. Raises VsearchError when the target
    is one of them, exists or cannot be written, MediaError when the source cannot be read.
    """
    with _sentences(target):
        if target.is_dir():
            raise VsearchError(f"{target} is a folder; give the name of a file, such as clip.mp4")
        if target.suffix.lower() != ".mp4":
            raise VsearchError(f"clips are written as .mp4; give a name such as {target.stem}.mp4")
        if os.path.lexists(target):
            _refuse_held(target, [source, *held])
            if not overwrite:
                raise VsearchError(f"{target} is there already; choose another name or add --force")
            if target.exists() and not target.is_file():
                raise VsearchError(f"{target} is no ordinary file; choose another name")
        if not target.parent.is_dir():
            raise VsearchError(f"there is no folder {target.parent} to write the clip into")
    if not source.is_file():
        raise MediaError(f"{source} is no longer there; run `vsearch index` so that the library knows")
    part = target.absolute().with_name(f".{secrets.token_hex(8)}.part.mp4")
    try:
        with _sentences(target):
            part.touch(exist_ok=False)
        word = _cut_in_child(source, part, start_ms, end_ms)
        with _sentences(target):
            if not overwrite and os.path.lexists(target):
                raise VsearchError(f"{target} has come to be meanwhile; choose another name or add --force")
            os.replace(part, target)
        return word
    finally:
        part.unlink(missing_ok=True)


def _refuse_held(target: Path, held: Iterable[Path]) -> None:
    """By what the file system says is the same file: a link, another spelling, another case are no way around."""
    place = os.path.realpath(target)
    try:
        found = os.stat(target)
    except OSError:  # a link to nothing
        found = None
    for path in held:
        same = os.fspath(path) in (place, os.path.abspath(target))
        if not same and found is not None:
            try:
                same = os.path.samestat(found, os.stat(path))
            except OSError:
                continue
        if same:
            raise VsearchError(
                f"{target} is a video of the library ({path}), which a clip never replaces; choose another name"
            )


@contextmanager
def _sentences(target: Path) -> Iterator[None]:
    """What the file system says of the target, for the person."""
    try:
        yield
    except OSError as error:
        raise VsearchError(
            f"cannot write {target}: {_WRITING.get(error.errno or 0, os.strerror(error.errno or errno.EIO).lower())}"
        ) from error


_WRITING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EFBIG: "the file grows larger than is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you may not write into this folder",
    errno.EPERM: "you may not write into this folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def _cut_in_child(source: Path, part: Path, start_ms: int, end_ms: int) -> str | None:
    order = [os.fspath(source.resolve()), os.fspath(part), start_ms, end_ms]
    deadline = BASE_S + PER_SECOND_S * (end_ms - start_ms) / 1000 + source.stat().st_size / BYTES_PER_SECOND
    overdue = "gave up: reading it takes too long"
    try:
        done = process.run("vsearch.indexer.clip:main", order, deadline_s=deadline, memory_bytes=MEMORY_BYTES)
    except process.Overdue:
        raise MediaError(f"cannot cut {source}: {overdue}") from None
    if done.returncode == -signal.SIGALRM:
        raise MediaError(f"cannot cut {source}: {overdue}")
    if done.returncode == REASON_GIVEN:
        raise MediaError(f"cannot cut {source}: {done.last_line}")
    if done.returncode != 0:
        raise MediaError(f"cannot cut {source}: decoding or encoding it failed")
    word: str | None = json.loads(done.stdout)
    return word


def main() -> None:
    """Of the child."""
    source, target, start_ms, end_ms = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        done = cut(Path(source), target, start_ms, end_ms, _rearm)
    except VsearchError as error:
        print(error, file=sys.stderr)
        sys.exit(REASON_GIVEN)
    except MemoryError:
        print("it needs more memory than a decoder is allowed", file=sys.stderr)
        sys.exit(REASON_GIVEN)
    print(json.dumps(done.word))


def _rearm() -> None:
    """The kernel ends this process when no picture comes for too long, also inside a decoder."""
    signal.alarm(STALL_S)


class Cut(NamedTuple):
    """What was made. `word`: why there is no sound; `read`: pictures that the source gave for it."""

    pictures: int
    read: int
    word: str | None


def cut(
    source: Path, target: str, start_ms: int, end_ms: int, alive: Callable[[], None] = lambda: None
) -> Cut:
    """`export_clip`, in this process and into an existing file. `alive` is called at every picture."""

    from vsearch.indexer.clip_sound import Sound
    from vsearch.indexer.decode import DecodeOptions, open_pyav

    options = DecodeOptions(fps=float("inf"), threads=THREADS, memory_limit_bytes=MEMORY_BYTES)
    alive()
    video = open_pyav(source, options)
    with closing(video):
        pictures = _Pictures(video, start_ms, end_ms, alive)
        shown = iter(pictures)
        first = next(shown, None)
        if first is None:
            raise MediaError("no picture could be decoded there")
        sound = Sound(source, pictures.part, pictures.shifts_s, start_ms / 1000, end_ms / 1000)
        with closing(sound), _writing(), _new_file(target) as out:
            stored = _stored(first[1])
            film = _Film(out, video, stored)
            voice = sound.open(out)  # both streams are set up before anything is written
            ticks, count = 0, 1
            for start_s, picture in shown:
                sound.write(voice, start_s)
                until = max(ticks + 1, round(start_s * TICKS))
                film.add(stored, ticks, until)
                ticks, stored, count = until, _stored(picture), count + 1
            film.add(stored, ticks, max(ticks + 1, round((end_ms - start_ms) * TICKS / 1000)))
            sound.write(voice, None)
            film.end()
            if voice is not None and video.part != pictures.part:
                sound.word = "part of its sound is left out: the file goes on with another recording"
    return Cut(count, pictures.read, sound.word)


def _new_file(target: str) -> Any:
    import av

    return av.open(target, "w", format="mp4", options={"movflags": "+faststart"})


def _stored(shown: Shown) -> StoredPicture:
    assert shown.stored is not None
    return shown.stored()


class _Pictures:
    """(seconds from the beginning, picture) of what is on screen in [start_ms, end_ms): the first is the one that is
    shown when it begins, and `part` is where in the file it lies. `shifts_s`: from time stamps to times, as the source
    went through them since."""

    def __init__(
        self, video: PyavSource | JoinedSource, start_ms: int, end_ms: int, alive: Callable[[], None]
    ) -> None:
        self._video, self._start_ms, self._end_ms, self._alive = video, start_ms, end_ms, alive
        self.shifts_s = [-video.zero_s]
        self.part = video.part
        self.read = 0

    def __iter__(self) -> Iterator[tuple[float, Shown]]:
        start_s = self._start_ms / 1000
        latest: Shown | None = None  # before anything is given out
        for shown in self._video.frames(lambda: start_s):
            self._alive()
            self.read += 1
            if self._video.shift_s != self.shifts_s[-1]:
                self.shifts_s.append(self._video.shift_s)
            at_ms = round(shown.start_s * 1000)  # as the index has it
            if at_ms >= self._end_ms:
                latest = latest or (shown if self.read == 1 else None)
                break
            if at_ms <= self._start_ms or self.read == 1:  # sound alone came before: the first stands for it
                latest = shown
                if self._video.part != self.part:
                    self.part, self.shifts_s[:] = self._video.part, [self._video.shift_s]
                continue
            if latest is not None:
                yield 0.0, latest
                latest = None
            yield shown.start_s - start_s, shown
        if latest is not None:
            yield 0.0, latest


class _Film:
    """The stream of pictures in the file to write."""

    def __init__(self, out: Any, video: PyavSource | JoinedSource, first: StoredPicture) -> None:
        rate = Fraction(video.info.avg_fps or 25).limit_denominator(1001)
        stream = out.add_stream(
            "libx264",
            rate=min(max(rate, Fraction(1)), Fraction(120)),
            # Without B-pictures, times are what they are in every player: no edit list shifts them.
            options={"crf": "20", "preset": "veryfast", "bf": "0"},
        )
        self._out, self._stream = out, stream
        self.width, self.height = fitting(*first.shown_size)
        self._full_range = first.full_range
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = Fraction(1, TICKS)
        codec.colorspace = first.matrix
        codec.color_range = 2 if first.full_range else 1
        codec.color_primaries, codec.color_trc = video.colours
        self._lengths: deque[int] = deque()  # of what the encoder has not given back, in ticks

    def add(self, picture: StoredPicture, start: int, end: int) -> None:
        """A picture shown in [start, end) ticks."""
        frame = picture.upright(self.width, self.height)
        frame.pts, frame.time_base = start, Fraction(1, TICKS)
        frame.pict_type = 0  # that of the source would be the encoder's order
        self._lengths.append(end - start)
        self._write(self._stream.encode(frame))

    def end(self) -> None:
        self._write(self._stream.encode(None))

    def _write(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.duration = self._lengths.popleft()
            self._out.mux(packet)


def fitting(width: int, height: int) -> tuple[int, int]:
    """The size of a clip of pictures shown as width x height: even, and within what H.264 has."""
    scale = min(1.0, LONGEST_SIDE / max(width, height), (MOST_PIXELS / (width * height)) ** 0.5)
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


@contextmanager
def _writing() -> Iterator[None]:
    """Faults of the file to write, as sentences."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if error.errno in _WRITING:
            raise VsearchError(f"the clip cannot be written: {_WRITING[error.errno]}") from error
        raise VsearchError("its pictures could not be encoded") from error
