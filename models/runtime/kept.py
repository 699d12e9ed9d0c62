"""Towers exported before, kept in the user's cache by the identity of their backbone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from vsearch.errors import ModelError
from vsearch.models.runtime.exported import Towers

_SOURCES = "sources.json"  # the files on this machine that the weights came from, as they were then


def kept_towers(identity: str) -> Towers | None:
    """Those of this identity; None where there are none, or where the files that they were made from have changed."""
    folder = _folder(identity)
    try:
        sources = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
        if any(_stamp(Path(path)) != stamp for path, stamp in sources.items()):
            return None
        towers = Towers(folder)
    except (OSError, ValueError, AttributeError, ModelError):
        return None
    return towers if towers.identity == identity else None


def keep_towers(identity: str, sources: Sequence[Path], write: Callable[[Path], None]) -> Towers | None:
    """`write` puts towers into the folder that it is given. Those that were kept; None where that cannot be: no room,
    no folder to write to, or a model that cannot be exported."""
    folder = _folder(identity)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    except OSError:
        return None
    try:
        stamps = {str(path): _stamp(path) for path in sources}
        write(new)
        (new / _SOURCES).write_text(json.dumps(stamps), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was first
            os.replace(new, folder)
        return kept_towers(identity)
    except (OSError, ModelError):
        return None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _folder(identity: str) -> Path:
    from platformdirs import user_cache_path

    return (
        user_cache_path("vsearch", appauthor=False)
        / "towers"
        / hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()
    )


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
