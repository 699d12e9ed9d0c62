"""The query helper, asked: a process of the same user that keeps a text encoder loaded between queries.

`HelpedEncoder` asks it for the vector of a sentence and does the work itself when nobody answers; `start` leaves a
helper behind for the next query (see helper_process.py). They talk over a Unix socket (0600) in a folder of the
user's own (0700); each side checks that the other is the same user. A frame is a length (4 bytes, big-endian) and
that many bytes: the question a JSON list of sentences, the answer rows and columns (4 bytes each, big-endian), then
float32 in little-endian. Without Unix sockets, or switched off, every query does the work itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import vsearch

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo
    from vsearch.models import TextEncoder

SWITCH = "VSEARCH_HELPER"  # 0: never ask nor start one
IDLE_S = 600.0
PATIENCE_S = 3.0  # a sentence takes milliseconds; whoever takes longer is not asked again
MOST_BYTES = 1 << 16  # of a question
MOST_TEXTS = 64
_LONGEST_PATH = 100  # bytes; the system's limit is 104 to 108


class HelpedEncoder:
    """The library's encoder for sentences: the helper's when one runs, else our own, loaded when first needed."""

    def __init__(self, live: EncoderInfo, device: str = "auto") -> None:
        self.identity = live.identity
        self.worked_alone = False  # a helper would have been of use
        self.live, self._device = live, device
        self._own: TextEncoder | None = None

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32 unit vectors. Raises ModelError when the encoder cannot be had."""
        found = None if self._own is not None else ask(self.live, texts, self._device)
        if found is not None:
            return found
        from vsearch.retriever.searching import text_encoder

        self.worked_alone = True
        self._own = text_encoder(self.live, self._own, self._device)
        return self._own.embed_texts(texts)


def enabled() -> bool:
    """Whether this system and this user want helpers."""
    return hasattr(socket, "AF_UNIX") and os.name == "posix" and os.environ.get(SWITCH, "1") != "0"


def ask(live: EncoderInfo, texts: Sequence[str], device: str = "auto") -> npt.NDArray[np.float32] | None:
    """(N, D) float32 unit vectors from the helper of that encoder; None when there is none, or not a sound one."""
    address = address_of(live.identity, device)
    question = json.dumps(list(texts)).encode()
    if address is None or len(question) > MOST_BYTES or len(texts) > MOST_TEXTS:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(PATIENCE_S)
            line.connect(str(address))
            if not same_user(line):
                return None
            line.sendall(struct.pack(">I", len(question)) + question)
            rows, columns = struct.unpack(">II", receive(line, 8))
            if rows != len(texts) or not 0 < columns <= 1 << 16:
                return None
            vectors = np.frombuffer(receive(line, rows * columns * 4), "<f4").astype(np.float32)
    except OSError:  # nobody there, gone, or too slow
        return None
    return vectors.reshape(rows, columns) if np.isfinite(vectors).all() else None


def start(live: EncoderInfo, device: str = "auto", idle_s: float = IDLE_S) -> subprocess.Popen[bytes] | None:
    """Leave a helper behind that loads this encoder and ends by itself after `idle_s` without a question.

    It has a session of its own, so neither Ctrl-C nor the closing of the terminal reaches it, and holds none of our
    files. When one runs already, the new one ends at once. None when helpers are off or cannot be.
    """
    address = address_of(live.identity, device)
    if address is None:
        return None
    order = {
        "address": str(address),
        "identity": live.identity,
        "spec": live.spec,
        "device": device,
        "idle_s": idle_s,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "vsearch.retriever.helper_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with process.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(json.dumps(order).encode())
    except OSError:  # no memory, no more processes: the next query is as slow as this one
        return None
    return process


def address_of(identity: str, device: str) -> Path | None:
    """Where the helper of this encoder, device and version listens; None when helpers are off or cannot be."""
    folder = _private_folder() if enabled() else None
    if folder is None:
        return None
    key = json.dumps([vsearch.__version__, identity, device, sys.executable])
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


def receive(line: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes. Raises OSError when the other end closes before."""
    parts = []
    while count:
        part = line.recv(min(count, 1 << 16))
        if not part:
            raise ConnectionResetError("closed in the middle of a message")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _private_folder() -> Path | None:
    """The user's own folder for sockets, made if need be; None when it is open to others."""
    import platformdirs

    folder = Path(
        os.environ.get("XDG_RUNTIME_DIR") or platformdirs.user_cache_dir("vsearch", appauthor=False)
    )
    folder = folder / "vsearch-helper"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return folder if own else None
