"""Shared by tests: a small random model in a folder, and the command line run as a user runs it."""

from __future__ import annotations

import json
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
