"""Writes what docs/ says of the code itself: `python docs/build.py` (make docs). tests/test_docs.py compares.

docs/cli.md comes from the commands' own help; the tree in docs/architecture.md from the first sentence of each file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("vsearch", "indexer", "library", "retriever", "models", "cli", "webui")
_LEFT_OUT = {"mini/train"}  # trains the built-in model; stays in the checkout
_BEGIN, _END = "<!-- the tree: make docs -->", "<!-- end of the tree -->"


def cli_page() -> str:
    """docs/cli.md"""
    import typer.main
    from typer.cli import get_docs_for_click

    from vsearch.cli import VERBS, command_line

    command = typer.main.get_command(command_line(*VERBS))
    with command.make_context("vsearch", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="vsearch")
    return (
        "<!-- from the commands' own help: make docs -->\n"
        + re.sub(r"[ \t]+$", "", text, flags=re.M).strip()
        + "\n"
    )


def architecture_page() -> str:
    """docs/architecture.md with the tree as it is."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    tree = "\n".join(line for room in ROOMS for line in _lines(ROOT / room, 0))
    return f"{before}{_BEGIN}\n```\n{tree}\n```\n{_END}{rest.split(_END)[1]}"


def _lines(folder: Path, depth: int) -> Iterator[str]:
    """One line a file, the folder's own first; files before folders."""
    yield _line(folder.name + "/", folder / "__init__.py", depth)
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield _line(file.name, file, depth + 1)
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        if not any(inner.as_posix().endswith(each) for each in _LEFT_OUT):
            yield from _lines(inner, depth + 1)


def _line(name: str, file: Path, depth: int) -> str:
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first = re.split(r"(?<=\.)\s", " ".join(said.split("\n\n")[0].split()))[0].rstrip(".:;")
    return f"{'  ' * depth + name:<28}{first}".rstrip()


def main() -> None:
    (ROOT / "docs/cli.md").write_text(cli_page(), encoding="utf-8")
    (ROOT / "docs/architecture.md").write_text(architecture_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
