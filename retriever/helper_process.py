"""The query helper itself; its order (JSON) is on standard input.

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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch.retriever.helper import MOST_ANSWER_BYTES, MOST_BYTES, receive, same_user, send
from vsearch.retriever.question import Question

if TYPE_CHECKING:
    from vsearch.retriever.librarian import Librarian

_PATIENCE_S = 2.0  # with one caller; the others wait that long at most
_BACKLOG = 8


def main() -> None:
    order = json.load(sys.stdin)
    address = Path(order["address"])
    with _sole_holder(address) as alone:
        if not alone:
            return
        from vsearch.retriever.librarian import Librarian

        librarian = Librarian(order["device"])
        if librarian.prepare(Path(order["library"]), encoder=order["encoder"]):
            with _listening(address) as door:
                _serve(door, librarian, order["idle_s"])


def _serve(door: socket.socket, librarian: Librarian, idle_s: float) -> None:
    """Answer one caller after the other until nobody has asked for `idle_s`."""
    until = time.monotonic() + idle_s
    while (left := until - time.monotonic()) > 0:
        door.settimeout(min(left, librarian.tidy()))
        try:
            line, _ = door.accept()
        except TimeoutError:
            continue
        with line:
            sound = _answer(line, librarian)
        if sound:
            librarian.load_wanted()
            until = time.monotonic() + idle_s


def _answer(line: socket.socket, librarian: Librarian) -> bool:
    """Whether it was a sound question of our own user's; anything else is hung up on."""
    line.settimeout(_PATIENCE_S)
    try:
        if not same_user(line):
            return False
        question = Question.from_json(receive(line, MOST_BYTES))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
    found, noted = librarian.answer(question, lambda: _waits(line))
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
