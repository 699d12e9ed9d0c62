"""Batches side by side on a CUDA device: while one is encoded, the next is on its way there.

Threads that encode batches each work on a stream of their own, and copy from page-locked memory, which the device reads
beside other threads' kernels. On the CPU nothing is done.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

LANES = 2  # threads a device: one batch in work, one being copied


class Streams:
    """A stream of `device` for each thread: `with streams.own(): ...`."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._threads = threading.local()

    def own(self) -> AbstractContextManager[Any]:
        import torch

        if not self._device.startswith("cuda"):
            return nullcontext()
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._threads.stream)


def on_device(frames: npt.NDArray[np.uint8], device: str) -> torch.Tensor:
    """The same values on `device`, in order with what the current stream does next.

    The page-locked copy may be let go of at once: torch keeps its memory until the device has read it.
    """
    import torch

    pixels = torch.from_numpy(frames)
    if not device.startswith("cuda"):
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)
