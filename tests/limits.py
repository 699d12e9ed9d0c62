"""Of a child of test_process.py: its limit of memory, printed."""

from __future__ import annotations

import resource


def show() -> None:
    print(resource.getrlimit(resource.RLIMIT_AS)[0])
