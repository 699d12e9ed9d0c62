"""Where the library lies, and what kind of disk that is."""

from __future__ import annotations

import os
import re
from pathlib import Path

ENVIRONMENT = "VSEARCH_LIBRARY"
FOLDER = ".vsearch"
CATALOGUE = "catalogue.sqlite"

# SQLite's WAL needs shared memory between all its readers, which these cannot give (sqlite.org/wal.html).
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.sshfs", "fuse.glusterfs", "fuse.juicefs",
    "fuse.rclone", "fuse.s3fs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
    "virtiofs",
}  # fmt: skip


def find_library(option: Path | None = None) -> Path:
    """The library to use, whether it exists or not.

    In this order: the option, `VSEARCH_LIBRARY`, a `.vsearch` folder here or in a folder above (as git finds
    a repository), else the user's data folder.
    """
    if option is not None:
        return option.expanduser().resolve()
    if named := os.environ.get(ENVIRONMENT):
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return (folder / FOLDER).resolve()
    import platformdirs

    return Path(platformdirs.user_data_dir("vsearch", appauthor=False)) / "library"


def absolute(text: str) -> Path:
    """What a path given by a person means here."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def network_filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind of network file system under `path` ("nfs4"), or None on a local disk or where unknown."""
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:  # not Linux
        return None
    real = os.fsencode(path.resolve())
    best, kind = b"", ""
    for line in lines:
        fields = line.split(b" ")
        if len(fields) < 3:
            continue
        point = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), fields[1])
        inside = real == point or real.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):  # the later of two equal mounts hides the earlier
            best, kind = point, os.fsdecode(fields[2])
    return kind if kind in _NETWORK else None
