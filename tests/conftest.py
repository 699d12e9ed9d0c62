"""Shared by tests: a small random model in a folder, and the command line run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["VSEARCH_HELPER"] = (
    "0"  # no test leaves a process behind; test_helper.py switches it on for its own
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 64-pixel pictures and 32 dimensions with random weights, in open_clip's folder form.

    Its answers mean nothing, but equal pictures have equal vectors: enough to test everything around a model.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    folder = tmp_path_factory.mktemp("tiny-model")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    clip = open_clip.model.CLIP(**config)
    save_file(
        {k: v.contiguous() for k, v in clip.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


Vsearch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def vsearch(tmp_path: Path) -> Vsearch:
    """Run `vsearch …` with a library of the test's own; stdout and stderr come back as text."""

    def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "VSEARCH_LIBRARY": str(tmp_path / "library"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "vsearch", *map(os.fspath, map(str, arguments))],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env=environment,
            cwd=tmp_path,
        )

    return run
