"""The query helper, asked: a process of the same user that answers queries with everything loaded.

`ask` puts a question to it; when nobody answers, the query does the work itself, to the same answer, and `start`
leaves a helper behind for the next one (see helper_process.py). They talk over a Unix socket (0600) in a folder of the
user's own (0700); each side checks that the other is the same user. A message is a length (4 bytes, big-endian) and
that many bytes of JSON: a question (question.py), then an answer (answer.py) behind a + when its hits are noted, a -
when not, or null when the helper leaves it to the query. Without Unix sockets, or switched off, every query does the work itself.

Nothing heavy is imported here: a query that the helper answers starts without NumPy, SQL, FAISS or torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import vsearch
from vsearch.retriever.answer import Answer
from vsearch.retriever.question import Question

if TYPE_CHECKING:
    from vsearch.process import Process

SWITCH = "VSEARCH_HELPER"  # 0: never ask nor start one
IDLE_S = 600.0
PATIENCE_S = 3.0  # an answer takes milliseconds; whoever takes longer is not waited for
MOST_BYTES = 1 << 16  # of a question
MOST_ANSWER_BYTES = 1 << 26
_LONGEST_PATH = 100  # bytes; the system's limit is 104 to 108
_ROOMS = ("cli", "library", "models", "retriever")


class Asked(NamedTuple):
    """What became of a question. `answer` None: do the work yourself. `running`: whether there is a helper. `noted`:
    whether it has noted the hits for the commands that follow."""

    answer: Answer | None
    running: bool
    noted: bool = False


def enabled() -> bool:
    """Whether this system and this user want helpers."""
    return hasattr(socket, "AF_UNIX") and os.environ.get(SWITCH, "1") != "0"


def ask(question: Question, device: str = "auto") -> Asked:
    """Put a question to the helper, if there is one."""
    address = address_of(device)
    message = question.to_json().encode()
    if address is None or len(message) > MOST_BYTES:
        return Asked(None, False)
    running = False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(PATIENCE_S)
            line.connect(str(address))
            if not same_user(line):
                return Asked(None, False)
            running = True
            send(line, message)
            reply = receive(line, MOST_ANSWER_BYTES)
        if reply == b"null":
            return Asked(None, True)
        if reply[:1] not in (b"+", b"-"):
            return Asked(None, False)
        return Asked(Answer.from_json(reply[1:]), True, noted=reply[:1] == b"+")
    except TimeoutError:
        return Asked(None, running)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # nobody there, gone, or talking nonsense
        return Asked(None, False)


def start(
    library: Path, device: str = "auto", *, encoder: bool = True, idle_s: float = IDLE_S
) -> Process | None:
    """Leave a helper behind that opens this library and ends by itself after `idle_s` without a question.

    It has a session of its own, so neither Ctrl-C nor the closing of the terminal reaches it, and holds none of our
    files. When one runs already, the new one ends at once. `encoder`: whether to load the library's encoder before the
    first question, however long that takes. None when helpers are off or cannot be.
    """
    address = address_of(device)
    if address is None:
        return None
    from vsearch import process

    order = {
        "address": str(address),
        "library": os.path.abspath(library),
        "device": device,
        "encoder": encoder,
        "idle_s": idle_s,
    }
    try:
        started = process.start("vsearch.retriever.helper_process:main", stdin=True, stays=True)
        with started.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(json.dumps(order).encode())
    except OSError:  # no memory, no more processes: the next query is as slow as this one
        return None
    return started


def address_of(device: str) -> Path | None:
    """Where the helper of this version, device and Python listens; None when helpers are off or cannot be."""
    folder = _private_folder() if enabled() else None
    if folder is None:
        return None
    key = json.dumps([vsearch.__version__, _installed(), device, sys.executable, sys.getfilesystemencoding()])
    path = folder / f"{hashlib.blake2b(key.encode(), digest_size=10).hexdigest()}.sock"
    return path if len(os.fsencode(path)) <= _LONGEST_PATH else None


def same_user(line: socket.socket) -> bool:
    """Whether the other end is us. Where the system cannot tell, the folder's permissions stand for it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack(
        "3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return bool(uid == os.geteuid())


def send(line: socket.socket, message: bytes) -> None:
    line.sendall(struct.pack(">I", len(message)) + message)


def receive(line: socket.socket, most: int) -> bytes:
    """One message of at most `most` bytes. Raises OSError when it is longer, or the other end closes before its end."""
    (length,) = struct.unpack(">I", _exactly(line, 4))
    if length > most:
        raise OSError("the message is too long")
    return _exactly(line, length)


def _exactly(line: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = line.recv(min(count, 1 << 16))
        if not part:
            raise ConnectionResetError("closed in the middle of a message")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _installed() -> list[tuple[str, int, int]]:
    """Every module of what answers, with its size and the time of its writing: an upgrade must not be answered by the
    code that it replaced."""
    here = Path(__file__).resolve().parent.parent
    found = []
    for folder in (Path(vsearch.__file__).parent, *(here / room for room in _ROOMS)):
        for at, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(name for name in names if name.endswith(".py")):
                written = os.stat(os.path.join(at, name))
                found.append((name, written.st_size, written.st_mtime_ns))
    return found


def _private_folder() -> Path | None:
    """The user's own folder for sockets, made if need be; None when it is open to others."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        import platformdirs

        base = platformdirs.user_cache_dir("vsearch", appauthor=False)
    folder = Path(base) / "vsearch-helper"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return folder if own else None
