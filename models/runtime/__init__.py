"""How towers run: exported once and run by ONNX Runtime on the CPU, torch on GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.models.runtime.compact import load_compact
    from vsearch.models.runtime.export import write_towers
    from vsearch.models.runtime.exported import Towers, lanes
    from vsearch.models.runtime.gpu import LANES, Lane, enough_memory, low_precision, on_device
    from vsearch.models.runtime.gpu_tower import for_gpu
    from vsearch.models.runtime.kept import keep_towers, kept_towers

# fmt: off
__all__ = [
    "LANES", "Lane", "Towers", "enough_memory", "for_gpu", "keep_towers", "kept_towers", "lanes",
    "load_compact", "low_precision", "on_device", "write_towers",
]
__getattr__ = face(__name__, {
    "compact": "load_compact",
    "export": "write_towers",
    "exported": "Towers lanes",
    "gpu": "LANES Lane enough_memory low_precision on_device",
    "gpu_tower": "for_gpu",
    "kept": "keep_towers kept_towers",
})
