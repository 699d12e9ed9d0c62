"""vsearch: find the moment in your videos that a sentence describes."""

# Nothing but `os`, which Python has loaded by now: with `python -m vsearch` the search path still begins with the
# working directory when this file runs.
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vsearch.client import Library

__all__ = ["Library", "__version__"]
__version__ = "0.1.0"

# The rooms (`indexer/`, `models/`, …) stand at the top of the repository. An installed wheel has them
# inside this package; in a checkout they lie beside it, so the package looks there too.
_checkout = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if all(
    os.path.isfile(os.path.join(_checkout, *name))
    for name in (("indexer", "__init__.py"), ("pyproject.toml",))
):
    __path__.append(_checkout)


def __getattr__(name: str) -> object:
    """`Library` comes at its first use: `import vsearch` alone loads nothing."""
    if name == "Library":
        from vsearch.client import Library

        return Library
    raise AttributeError(f"module 'vsearch' has no attribute {name!r}")
