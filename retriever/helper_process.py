"""The query helper itself: a socket over a few sessions; its order (JSON) is on standard input.

Only the holder of the lock beside the socket may take the address, so of two that start at once one ends, and a
socket that a killed helper left is replaced. It listens when the library asked last is open; until then, and whenever
anything is wrong, queries do their own work and say what it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.retriever.helper import MOST_ANSWER_BYTES, MOST_BYTES, receive, same_user, send
from vsearch.retriever.question import Question

if TYPE_CHECKING:
    from vsearch.library.index import HeldIndex
    from vsearch.retriever.answer import Answer
    from vsearch.retriever.session import NewSentence

_PATIENCE_S = 2.0  # with one caller; the others wait that long at most
_BACKLOG = 8
_INDEXES, _ENCODERS = 3, 2  # kept open
_LET_GO_S = 120.0  # an index not asked for so long is closed: it may keep a disk busy, and memory
_NOTE_PATIENCE_MS = 20  # while another process writes: the answer must not wait, and the caller notes it then


def main() -> None:
    order = json.load(sys.stdin)
    address = Path(order["address"])
    with _sole_holder(address) as alone:
        if not alone:
            return
        desk = Desk(order["device"])
        if desk.prepare(Path(order["library"]), encoder=order["encoder"]):
            with _listening(address) as door:
                _serve(door, desk, order["idle_s"])


class Desk:
    """Answers for any library of the user's.

    A catalogue is opened for each question and read anew, and an index is used again only while its generation answers
    and its files are untouched, so an indexing run, another head, or another library in the same place shows at once.
    Whatever is wrong or would take long is left to the query: then it answers, or complains, as it does without us.
    """

    def __init__(self, device: str) -> None:
        from vsearch.retriever.encoders import Encoders

        self._unkept: tuple[Path, NewSentence] | None = None
        self._encoders = Encoders(device, patient=False, most=_ENCODERS)
        self._indexes: dict[
            Path, tuple[HeldIndex, float]
        ] = {}  # and when it was asked for (time.monotonic())

    def prepare(self, path: Path, *, encoder: bool) -> bool:
        """Open a library before the first question; with its encoder, however long that takes to load, or else if that
        is quick. False when it cannot be used."""
        from vsearch.library.catalogue import open_reader
        from vsearch.retriever.searching import live_encoder

        try:
            library = open_reader(path)
            if library is None:
                return False
            with library:
                live = live_encoder(library)
                self._index(path).view(library)
            _ = self._encoders.load(live) if encoder else self._encoders.at_hand(live)
        except Exception:  # the query that works alone says what is wrong
            return False
        return True

    def answer(self, question: Question, waits: Callable[[], bool]) -> tuple[Answer | None, bool]:
        """The answer, and whether it is noted. None: the query is to do the work itself. Nothing is noted for a caller
        who no longer `waits`."""
        from vsearch.library.catalogue import open_reader
        from vsearch.retriever.session import Session

        path = Path(question.library)
        try:
            library = open_reader(path)
            if library is None:
                return None, False
            with library:
                session = Session(lambda: library, index=self._index(path), encoders=self._encoders)
                found = session.answer(question)
                if library.damaged:
                    return None, False  # the query says what, to whom it may concern
                if not waits():
                    return found, False
                noted = session.remember(found, _NOTE_PATIENCE_MS)
                self._unkept = (path, session.unkept) if session.unkept else None
        except Exception:  # a fault of ours, too: the query's own way reports it
            return None, False
        return found, noted

    def keep_unkept(self) -> None:
        """Have the library remember the sentence that it could not at once, because another process wrote."""
        from vsearch.library.catalogue import open_reader

        unkept, self._unkept = self._unkept, None
        if unkept is not None:
            with contextlib.suppress(Exception):  # it will be embedded again
                if library := open_reader(unkept[0]):
                    with library:
                        unkept[1].keep(library)

    def load_wanted(self) -> None:
        """Load the encoder that a question lacked; meanwhile queries do their own work."""
        live, self._encoders.wanted = self._encoders.wanted, None
        if live is not None:
            with contextlib.suppress(Exception):  # the query that works alone says what is wrong
                self._encoders.load(live)

    def tidy(self) -> float:
        """Close what nobody asks for; gives the seconds until there may be more to close."""
        now = time.monotonic()
        self._indexes = {path: held for path, held in self._indexes.items() if now - held[1] < _LET_GO_S}
        return min((asked + _LET_GO_S - now for _, asked in self._indexes.values()), default=_LET_GO_S)

    def _index(self, path: Path) -> HeldIndex:
        from vsearch.library.index import HeldIndex

        index, _ = self._indexes.pop(path, (None, 0.0))
        self._indexes[path] = index or HeldIndex(), time.monotonic()
        for other in list(self._indexes)[:-_INDEXES]:
            del self._indexes[other]
        return self._indexes[path][0]


def _serve(door: socket.socket, desk: Desk, idle_s: float) -> None:
    """Answer one caller after the other until nobody has asked for `idle_s`."""
    until = time.monotonic() + idle_s
    while (left := until - time.monotonic()) > 0:
        door.settimeout(min(left, desk.tidy()))
        try:
            line, _ = door.accept()
        except TimeoutError:
            continue
        with line:
            sound = _answer(line, desk)
        if sound:
            desk.keep_unkept()
            desk.load_wanted()
            until = time.monotonic() + idle_s


def _answer(line: socket.socket, desk: Desk) -> bool:
    """Whether it was a sound question of our own user's; anything else is hung up on."""
    line.settimeout(_PATIENCE_S)
    try:
        if not same_user(line):
            return False
        question = Question.from_json(receive(line, MOST_BYTES))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
    found, noted = desk.answer(question, lambda: _waits(line))
    reply = b"null" if found is None else (b"+" if noted else b"-") + found.to_json().encode()
    with contextlib.suppress(OSError):  # gone
        send(line, reply if len(reply) <= MOST_ANSWER_BYTES else b"null")
    return True


def _waits(line: socket.socket) -> bool:
    """Whether the caller is still there."""
    line.settimeout(0)
    try:
        return line.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        line.settimeout(_PATIENCE_S)


@contextlib.contextmanager
def _sole_holder(address: Path) -> Iterator[bool]:
    """Whether nobody else serves this address; the system lets go of the lock however we end."""
    handle = os.open(address.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(handle)


@contextlib.contextmanager
def _listening(address: Path) -> Iterator[socket.socket]:
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        mask = os.umask(0o177)  # the socket is 0600 from its first moment
        try:
            door.bind(str(address))
        finally:
            os.umask(mask)
        door.listen(_BACKLOG)
        try:
            yield door
        finally:
            address.unlink(missing_ok=True)
