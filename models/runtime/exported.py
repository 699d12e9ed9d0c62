"""A backbone's towers on the CPU without torch: ONNX graphs run by ONNX Runtime.

A folder of towers holds `towers.json`, a graph for each side, and their weights as safetensors. Graphs carry no
weights: those are handed to the runtime by their names in the model's state dict, so the same file can serve torch,
and a backbone's identity is of its weights, however they are run.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.machine import available_cores
from vsearch.models.preprocess import preprocess_of
from vsearch.models.runtime.bpe import Tokenizer
from vsearch.models.runtime.compact import load_compact_arrays
from vsearch.models.runtime.hub_tokenizer import HubTokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CARD = "towers.json"
MODULE = "clip."  # how the names of a state dict begin in the graphs
MOST_LANES = 4  # batches in work at once; more would only hold more of them in memory

Array = npt.NDArray[np.float32]


def lanes() -> int:
    """How many batches are best in work at once on this machine, each on its share of the cores."""
    return min(MOST_LANES, available_cores())


class Towers:
    """Both towers in a folder, each opened when first needed. Threads may call at once."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError for a folder without towers, or with those of another version."""
        self.folder = folder
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            self.identity: str = card["identity"]
            self.dim: int = card["dim"]
            self.preprocess = preprocess_of(card["preprocess"])
            self._sides: dict[str, dict[str, Any]] = card["sides"]
            self._digests: dict[str, str] = card["sha256"]
            self.reads_texts = "text" in self._sides
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise ModelError(f"cannot read the towers in {folder}; {_MEND}") from fault
        self._sessions: dict[str, InferenceSession] = {}
        self._opening = threading.Lock()
        self._tokenizer: Tokenizer | HubTokenizer | None = None

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> Array:
        """(N, S, S, 3) uint8 RGB, of the preprocessing's size -> (N, D) float32, not normalised."""
        vectors: Array = self._session("image").run(None, {"pixels": frames})[0]
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """N sentences -> (N, D) float32, not normalised. Sentences over the context length are cut."""
        session = self._session("text")
        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer(self._sides["text"])
        vectors: Array = session.run(None, {"tokens": self._tokenizer.rows(texts)})[0]
        return vectors

    def _read_tokenizer(self, side: dict[str, Any]) -> Tokenizer | HubTokenizer:
        if "tokenizer" not in side:
            return Tokenizer(side["context_length"])
        content = self._checked(side["tokenizer"]).decode("utf-8")
        return HubTokenizer(content, side["cleaning"], side["blanked"])

    def _session(self, side: str) -> InferenceSession:
        with self._opening:
            if side not in self._sessions:
                self._sessions[side] = self._open(self._sides[side])
            return self._sessions[side]

    def _open(self, side: dict[str, Any]) -> InferenceSession:
        from onnxruntime import InferenceSession, OrtValue, SessionOptions

        options = SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = max(1, available_cores() // lanes())
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders need the cores
        graph, names = self._checked(side["graph"]), side["names"]
        self._checked(side["weights"])
        weights = load_compact_arrays(self.folder / side["weights"], names)
        try:
            values = [OrtValue.ortvalue_from_numpy(np.asarray(weights[name], order="C")) for name in names]
            options.add_external_initializers([MODULE + name for name in names], values)
            return InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # the runtime has no common type for its own
            raise ModelError(f"the towers in {self.folder} do not fit their weights; {_MEND}") from fault

    def _checked(self, name: str) -> bytes:
        """A file of the folder. Raises ModelError when it is not what was written."""
        try:
            content = (self.folder / name).read_bytes()
        except OSError as fault:
            raise ModelError(f"cannot read {self.folder / name} ({fault.strerror}); {_MEND}") from fault
        if hashlib.sha256(content).hexdigest() != self._digests.get(name):
            raise ModelError(f"{self.folder / name} is damaged; {_MEND}")
        return content


_MEND = "remove that folder, or install vsearch again where it is the built-in model's"
