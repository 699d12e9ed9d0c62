"""Batches side by side on a CUDA device: while one is encoded, the next is on its way there.

Each lane encodes batches on a stream of its own, and copies from page-locked memory, which the device reads beside other
lanes' kernels. On the CPU nothing is done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError

if TYPE_CHECKING:
    import torch

    from vsearch.models.backbone import Backbone

LANES = 2  # a device: one batch in work, one being copied
_WARM_UPS = (
    3  # libraries choose kernels and take their work space in the first runs, which a graph must not see
)
_CAPTURING = threading.Lock()  # one at a time in a process: entering a capture waits for the whole device


class Lane:
    """A backbone, and on a CUDA device a stream of its own. One thread at a time.

    `graphs`: capture what a batch launches as a CUDA graph at the first batch, and replay it for those of the same size.
    """

    def __init__(self, backbone: Backbone, graphs: bool = False) -> None:
        self._backbone = backbone
        self._graphs = graphs
        self._captured: _Captured | None = None
        self._stream = own_stream(backbone.device)

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """As `Backbone.encode_frames`. Raises ModelError where the device has too little memory."""
        with (
            enough_memory(self._backbone.device, f"batches of {len(frames)} frames"),
            on_stream(self._stream),
        ):
            if self._graphs:
                self._capture(frames)
            if self._captured and self._captured.shape == frames.shape:
                return self._captured.encode(frames)
            return self._backbone.encode_frames(frames)

    @property
    def captured(self) -> bool:
        return self._captured is not None

    def _capture(self, frames: npt.NDArray[np.uint8]) -> None:
        """Tried once. What cannot be captured goes on as it is, on a stream that has seen no failed capture."""
        self._graphs = False
        try:
            with _CAPTURING:
                self._captured = _Captured(self._backbone, frames.shape, self._stream)
        except RuntimeError:
            self._stream = own_stream(self._backbone.device)


class _Captured:
    """A batch from uint8 frames to vectors as one launch. Frames and vectors keep their places on the device."""

    def __init__(self, backbone: Backbone, shape: tuple[int, ...], stream: torch.cuda.Stream | None) -> None:
        import torch

        self.shape = shape
        with torch.inference_mode():
            self._pixels = torch.zeros(shape, dtype=torch.uint8, device=backbone.device)
            for _ in range(_WARM_UPS):
                backbone.encode_pixels(self._pixels)
            self._graph = torch.cuda.CUDAGraph()
            # Other lanes may allocate meanwhile; only what this thread does can spoil the capture.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._vectors = backbone.encode_pixels(self._pixels)

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            self._pixels.copy_(torch.from_numpy(frames).pin_memory(), non_blocking=True)
            self._graph.replay()
            return self._vectors.to(
                "cpu", copy=True
            ).numpy()  # waits, so both places are free for the next batch


def own_stream(device: str) -> torch.cuda.Stream | None:
    """A new stream that begins when what is under way on the device's usual stream is done, such as weights."""
    import torch

    if not device.startswith("cuda"):
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def on_stream(stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
    import torch

    return torch.cuda.stream(stream) if stream else nullcontext()


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
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"{device} has too little free memory for {wanted}; give a smaller --batch-size, or another --device"
        ) from error


def low_precision(devices: Sequence[str], wanted: str = "bfloat16") -> torch.dtype | None:
    """What image towers compute in on all of these devices: float16 where one has no bfloat16; None on the CPU."""
    import torch

    if not all(device.startswith("cuda") for device in devices):
        return None
    recent = torch.version.hip or all(torch.cuda.get_device_capability(device)[0] >= 8 for device in devices)
    # Older ones take bfloat16 as well, and emulate it.
    return torch.bfloat16 if wanted == "bfloat16" and recent else torch.float16
