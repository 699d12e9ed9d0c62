"""vsearch: find the moment in your videos that a sentence describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsearch.client import Library

__all__ = ["Library", "__version__"]
__version__ = "0.1.0"

# The rooms (`indexer/`, `models/`, …) stand at the top of the repository. An installed wheel has them
# inside this package; in a checkout they lie beside it, so the package looks there too.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "indexer" / "__init__.py").is_file() and (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """`Library` comes at its first use: `import vsearch` alone loads nothing."""
    if name == "Library":
        from vsearch.client import Library

        return Library
    raise AttributeError(f"module 'vsearch' has no attribute {name!r}")
