"""Batches side by side on a CUDA device: while one is encoded, the next is on its way there.

Each lane encodes batches on a stream of its own, and copies from page-locked memory, which the device reads beside other
lanes' kernels. On the CPU nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError

if TYPE_CHECKING:
    import torch


LANES = 2  # a device: one batch in work, one being copied


class FrameEncoder(Protocol):
    """What a lane needs of a backbone."""

    @property
    def device(self) -> str: ...

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...


class Lane:
    """A backbone, and on a CUDA device a stream of its own. One thread at a time."""

    def __init__(self, backbone: FrameEncoder) -> None:
        self._backbone = backbone
        self._stream = own_stream(backbone.device)

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """As `Backbone.encode_frames`. Raises ModelError where the device has too little memory."""
        with (
            enough_memory(self._backbone.device, f"batches of {len(frames)} frames"),
            on_stream(self._stream),
        ):
            return self._backbone.encode_frames(frames)


def own_stream(device: str) -> torch.cuda.Stream | None:
    """A new stream that begins when what is under way on the device's usual stream is done, such as weights."""
    if not device.startswith("cuda"):
        return None
    import torch

    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def on_stream(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    if stream is None:
        return nullcontext()
    import torch

    return torch.cuda.stream(stream)


def on_device(frames: npt.NDArray[np.uint8], device: str) -> torch.Tensor:
    """The same values on `device`, in order with what the current stream does next.

    The page-locked copy may be let go of at once: torch keeps its memory until the device has read it.
    """
    import torch

    pixels = torch.from_numpy(frames)
    if not device.startswith("cuda"):
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


@contextmanager
def enough_memory(device: str, wanted: str) -> Iterator[None]:
    """Raises ModelError when `device` runs out of memory inside."""
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        if torch is None or not (
            isinstance(error, torch.cuda.OutOfMemoryError)
            or (isinstance(error, RuntimeError) and "MPS backend out of memory" in str(error))
        ):
            raise
        raise ModelError(
            f"{device} has too little free memory for {wanted}; give a smaller --batch-size, or another --device"
        ) from error


def low_precision(devices: Sequence[str], wanted: str = "bfloat16") -> torch.dtype | None:
    """What image towers compute in on all of these devices: float16 where one has no bfloat16; None on the CPU."""
    if not all(device.startswith("cuda") for device in devices):
        return None
    import torch

    recent = torch.version.hip or all(torch.cuda.get_device_capability(device)[0] >= 8 for device in devices)
    # Older ones take bfloat16 as well, and emulate it.
    return torch.bfloat16 if wanted == "bfloat16" and recent else torch.float16
