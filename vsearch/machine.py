"""What this machine grants: processor cores, and memory that the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """At least one: the machine's, fewer where an affinity or a container's limit says so."""
    cores = os.cpu_count() or 2
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min(cores, _cgroup_limit())))


def _cgroup_limit() -> float:
    """Cores that this process's control groups grant; infinity where they say nothing."""
    limit = math.inf
    for folder in _cgroup_folders():
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (folder / "cpu.max").exists():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota != "max" and float(quota) > 0:
                limit = min(limit, float(quota) / float(period))
    return limit


def _cgroup_folders() -> list[Path]:
    """Those that may hold a limit on processor time: its own, and all above."""
    folders = [_CGROUPS, _CGROUPS / "cpu"]  # what a container sees
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUP.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = _CGROUPS / "cpu" if controllers else _CGROUPS
            own = top / name.strip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def give_back_memory() -> None:
    """Return what the C library keeps of freed memory to the system (glibc). For now and then.

    Large arrays are asked for with an alignment. glibc before 2.38 does not fit such a request into a hole that an equal
    one has left, so the heap of a long run fills with holes that nothing uses.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
