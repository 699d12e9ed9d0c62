"""How many processor cores this process may use."""

from __future__ import annotations

import contextlib
import math
import os
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
