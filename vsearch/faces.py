"""A package's face: the few names that other rooms may use, each loaded from its module at its first use.

Lazy, because a query must not wait for what only indexing needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def face(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `package`, from the names that it offers: by module, with spaces between."""
    place_of = {name: module for module, names in places.items() for name in names.split()}

    def offered(name: str) -> Any:
        if name not in place_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{place_of[name]}"), name)

    return offered
