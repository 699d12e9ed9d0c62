"""Some of the kills and damages of benchmarks/faults.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.damages import damages

pytestmark = pytest.mark.slow
KINDS = [
    "frames: a bit flipped",
    "index: a file in its place",
    "catalogue: the head overwritten",
    "row: fingerprints exchanged",
    "row: names of two videos exchanged",
]


def run(*arguments: str) -> str:
    """What the harness printed; it found no fault."""
    command = [sys.executable, "-m", "benchmarks.faults", *arguments]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_damage_is_never_silent_and_is_mended() -> None:
    assert dict(damages(False)).keys() >= set(KINDS)
    assert f"damages: {len(KINDS)}: {len(KINDS)} mended" in run("--damage", "--only", "|".join(KINDS))


def test_kills_leave_a_whole_library() -> None:
    said = run("--kills", "6", "--only", "forget|verify --repair, catalogue")
    assert "with faults: 0" in said
    assert "kills: 0" not in said
