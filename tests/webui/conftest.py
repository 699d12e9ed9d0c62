"""A running page over one small library, for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.site import make_library, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def ids(folder: Path) -> dict[str, int]:
    return make_library(folder)


@pytest.fixture(scope="module")
def site(folder: Path, ids: dict[str, int]) -> Iterator[httpx.Client]:
    with running(folder / "library") as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client
