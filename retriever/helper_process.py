"""The query helper itself: `python -m vsearch.retriever.helper_process`, its order (JSON) on standard input.

Only the holder of the lock beside the socket may take the address, so of two that start at once one ends, and a
socket that a killed helper left is replaced. It listens when the encoder is loaded and found to be the right one:
until then, and whenever anything is wrong, queries do their own work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.errors import VsearchError
from vsearch.retriever.helper import MOST_BYTES, MOST_TEXTS, receive, same_user

if TYPE_CHECKING:
    from vsearch.models import TextEncoder

_PATIENCE_S = 2.0  # with one caller; the others wait that long at most
_BACKLOG = 8


def main() -> None:
    order = json.load(sys.stdin)
    address = Path(order["address"])
    with _sole_holder(address) as alone:
        encoder = _load(order) if alone else None
        if encoder is not None:
            os.chdir("/")  # keep no folder of the user's busy
            with _listening(address) as door:
                _serve(door, encoder, order["idle_s"])


def _load(order: dict[str, Any]) -> TextEncoder | None:
    from vsearch.models import load_encoder
    from vsearch.models.quick_text import load_quick_encoder

    found: TextEncoder | None = None
    try:
        if order["device"] in ("auto", "cpu"):
            found = load_quick_encoder(order["spec"])
        if found is None or found.identity != order["identity"]:
            found = load_encoder(order["spec"], order["device"])
    except VsearchError:
        return None  # the query that works alone says what is wrong
    return found if found.identity == order["identity"] else None


def _serve(door: socket.socket, encoder: TextEncoder, idle_s: float) -> None:
    """Answer one caller after the other until nobody has asked for `idle_s`."""
    until = time.monotonic() + idle_s
    while (left := until - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            line, _ = door.accept()
        except TimeoutError:
            return
        with line:
            if _answer(line, encoder):
                until = time.monotonic() + idle_s


def _answer(line: socket.socket, encoder: TextEncoder) -> bool:
    """Whether it was a sound question of our own user's; anything else is hung up on."""
    line.settimeout(_PATIENCE_S)
    try:
        if not same_user(line):
            return False
        (length,) = struct.unpack(">I", receive(line, 4))
        if length > MOST_BYTES:
            return False
        texts = json.loads(receive(line, length))
        if (
            not isinstance(texts, list)
            or not 0 < len(texts) <= MOST_TEXTS
            or not all(isinstance(t, str) for t in texts)
        ):
            return False
        vectors = encoder.embed_texts(texts)
        line.sendall(struct.pack(">II", *vectors.shape) + vectors.astype("<f4").tobytes())
    except (OSError, ValueError, RecursionError):
        return False
    return True


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


if __name__ == "__main__":
    main()
