"""What the documents say of the code is what the code says: `make docs` writes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_their_help(build: ModuleType) -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == build.cli_page()


def test_the_tree_is_the_tree(build: ModuleType) -> None:
    assert (DOCS / "architecture.md").read_text(encoding="utf-8") == build.architecture_page()
