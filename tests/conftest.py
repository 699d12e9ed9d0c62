"""Shared by tests: a small random model in a folder, and the command line run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# No test leaves a process behind; test_helper.py switches it on for its own.
os.environ["VSEARCH_HELPER"] = "0"
# Threads that wait for each other by spinning do not go well beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="vs-")  # exported towers of test models are not the user's
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: its answers mean nothing, but equal pictures have equal vectors: enough to test everything around
    a model."""
    from tests.towers import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny-model"))


Vsearch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def vsearch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vsearch:
    """`vsearch …` in this process, with a library of the test's own; stdout and stderr come back as text.

    What a process of its own is asked for: tests/cli/test_output.py and tests/cli/test_hostile_folder.py start every verb."""
    from tests.verbs import run_here

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.setenv("VSEARCH_LIBRARY", str(tmp_path / "library"))
            patch.chdir(tmp_path)
            ran = run_here([os.fspath(str(each)) for each in arguments])
        return subprocess.CompletedProcess(arguments, ran.code, ran.out, ran.err)

    return run
