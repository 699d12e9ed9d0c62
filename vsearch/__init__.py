"""vsearch: find the moment in your videos that a sentence describes."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

# The rooms (`indexer/`, `models/`, …) stand at the top of the repository. An installed wheel has them
# inside this package; in a checkout they lie beside it, so the package looks there too.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "indexer" / "__init__.py").is_file() and (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))
