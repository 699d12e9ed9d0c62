"""From a decoded picture to the square RGB array that an image encoder takes, in one swscale step.

Orientation comes from the display matrix, the shape of pixels from the sample aspect ratio, the colour matrix
and range from the stream's tags. High dynamic range is shown without tone mapping.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vsearch.errors import MediaError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB

# libswscale/swscale.h: filters, and flags for rounding and chroma that cost little at these sizes
_FILTERS = {"bilinear": 0x2, "bicubic": 0x4}
_EXACT = 0x2000 | 0x40000  # SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # AVColorRange
# AVColorSpace of a frame -> SWS_CS_* that PyAV takes
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709 = 1
_NO_MATRIX = {0, 2, 3}  # AVColorSpace: RGB, unknown, reserved


@dataclass(frozen=True)
class FrameShape:
    """Frames of size x size pixels: 'shortest' side fits and the centre is cut out, 'squash' distorts,
    'longest' side fits and the rest is black. Interpolation 'bicubic' or 'bilinear', antialiased."""

    size: int
    mode: Literal["shortest", "squash", "longest"] | str = "shortest"
    interpolation: Literal["bicubic", "bilinear"] | str = "bicubic"

    def __post_init__(self) -> None:
        if (
            self.size < 1
            or self.mode not in ("shortest", "squash", "longest")
            or self.interpolation not in _FILTERS
        ):
            raise ValueError(f"no such frame shape: {self}")

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) before cutting or padding, for a picture shown as width x height."""
        if self.mode == "squash":
            return self.size, self.size
        side = min(width, height) if self.mode == "shortest" else max(width, height)
        return max(1, round(width * self.size / side)), max(1, round(height * self.size / side))

    def fit(self, image: Image) -> Image:
        """Cut out the centre or pad an already scaled image (H, W, C) to (size, size, C)."""
        height, width = image.shape[:2]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        if self.mode == "longest" and (top, left) != (0, 0):
            square = np.zeros((self.size, self.size, image.shape[2]), np.uint8)
            square[-top : height - top, -left : width - left] = image
            return square
        return np.ascontiguousarray(image[top : top + self.size, left : left + self.size])


@dataclass(frozen=True)
class Orientation:
    """How the stored picture is turned to be shown: first transposed, then mirrored."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise (of a mirrored picture: of its unmirrored part)."""
        if self.transpose:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    def apply(self, image: Image) -> Image:
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.flip_x:
            image = image[:, ::-1]
        return image[::-1] if self.flip_y else image


def orientation_of(frame: VideoFrame) -> Orientation:
    """From the frame's display matrix (ISO 14496-12, 8.3.2): x' = a x + c y, y' = b x + d y."""
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return Orientation(False, bool(a < 0), bool(d < 0))
    return Orientation(True, bool(c < 0), bool(b < 0))


def shown_size(width: int, height: int, pixel_aspect: Fraction, orientation: Orientation) -> tuple[int, int]:
    """(width, height) of the picture as shown, with square pixels."""
    wide = max(1, round(width * pixel_aspect))
    return (height, wide) if orientation.transpose else (wide, height)


class Kept:
    """What successive frames of a video share: the scaler, whose filter tables take longer to make than to use, and
    the orientation. Asking a frame for its side data ties it to itself, and memory would wait for the collector."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self.scaler = VideoReformatter()
        self._known: tuple[int, Orientation] | None = None

    def orientation(self, frame: VideoFrame) -> Orientation:
        if self._known is None or self._known[0] != frame.rotation:
            self._known = frame.rotation, orientation_of(frame)
        return self._known[1]


@dataclass(frozen=True)
class StoredPicture:
    """A decoded picture as the file has it, and what it takes to show it."""

    frame: VideoFrame
    pixel_aspect: Fraction
    kept: Kept

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height), upright and with square pixels."""
        return shown_size(
            self.frame.width, self.frame.height, self.pixel_aspect, self.kept.orientation(self.frame)
        )

    @property
    def full_range(self) -> bool:
        name = self.frame.format.name
        return name.startswith("yuvj") or (self.frame.color_range == _FULL_RANGE and not _is_rgb(name))

    @property
    def matrix(self) -> int:
        """AVColorSpace of `upright` pictures: the file's own, where it says."""
        matrix = int(self.frame.colorspace)
        if _is_rgb(self.frame.format.name) or matrix in _NO_MATRIX:
            return _guessed_matrix(self.frame)
        return matrix

    def upright(self, width: int, height: int) -> VideoFrame:
        """As shown, of even `width` and `height`, in 4:2:0 of 8 bits; colour matrix and range as they are."""
        from av import VideoFrame

        orientation = self.kept.orientation(self.frame)
        size = (height, width) if orientation.transpose else (width, height)
        colour = _MATRICES.get(self.matrix, _BT709)  # the same on both sides: no other is made of it
        levels = _FULL_RANGE if self.full_range else _LIMITED_RANGE
        source = _FULL_RANGE if _is_rgb(self.frame.format.name) else levels
        planar = self.kept.scaler.reformat(
            self.frame, width=size[0], height=size[1], format="yuv420p", src_colorspace=colour, dst_colorspace=colour,
            src_color_range=source, dst_color_range=levels, interpolation=_FILTERS["bicubic"] | _EXACT, **_one_thread(),
        )  # fmt: skip
        if orientation == Orientation():
            return planar
        planes = [orientation.apply(_plane(planar, index)).ravel() for index in range(3)]
        return VideoFrame.from_ndarray(np.concatenate(planes).reshape(height * 3 // 2, width), "yuv420p")


def render(frame: VideoFrame, shape: FrameShape, pixel_aspect: Fraction, kept: Kept | None = None) -> Image:
    """(size, size, 3) uint8 RGB of a decoded frame. `kept`: one for all frames of a video."""
    kept = kept or Kept()
    orientation = kept.orientation(frame)
    size = shape.scaled(*shown_size(frame.width, frame.height, pixel_aspect, orientation))
    planes = _scale(frame, size, orientation, shape.interpolation, kept.scaler)
    return np.concatenate([shape.fit(plane) for plane in planes], axis=2)


def render_poster(frame: VideoFrame, height: int, pixel_aspect: Fraction) -> bytes:
    """JPEG of the whole picture, `height` pixels high and at most four times as wide."""
    orientation = orientation_of(frame)
    shown = shown_size(frame.width, frame.height, pixel_aspect, orientation)
    planes = _scale(frame, poster_size(*shown, height), orientation, "bicubic", Kept().scaler)
    return encode_jpeg(np.concatenate(planes, axis=2))


def poster_size(width: int, height: int, poster_height: int) -> tuple[int, int]:
    return min(4 * poster_height, max(1, round(width * poster_height / height))), poster_height


def encode_jpeg(image: Image) -> bytes:
    from PIL import Image as Pillow

    out = io.BytesIO()
    Pillow.fromarray(image).save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def _scale(
    frame: VideoFrame,
    size: tuple[int, int],
    orientation: Orientation,
    interpolation: str,
    scaler: VideoReformatter,
) -> list[Image]:
    """Scaled, turned to `size` = (width, height), converted: red, green and blue, each (height, width, 1)."""
    width, height = reversed(size) if orientation.transpose else size
    matrix = _MATRICES.get(int(frame.colorspace)) or _MATRICES[_guessed_matrix(frame)]
    # Planar output has vector code in swscale where packed RGB has none: the same values in a third of the time.
    try:
        planar = scaler.reformat(
            frame, width=width, height=height, format="gbrp", src_colorspace=matrix, dst_color_range=_FULL_RANGE,
            interpolation=_FILTERS[interpolation] | _EXACT, **_one_thread(),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise MediaError(f"pictures of {frame.width}x{frame.height} pixels cannot be scaled") from error
    return [orientation.apply(_plane(planar, index)) for index in (2, 0, 1)]


def _guessed_matrix(frame: VideoFrame) -> int:
    """AVColorSpace of an untagged picture: players take BT.709 for high definition, BT.601 below."""
    return 1 if min(frame.width, frame.height) > 576 else 6


def _is_rgb(pixels: str) -> bool:
    return pixels.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2", "mono"))


@functools.cache
def _one_thread() -> dict[str, Any]:
    """PyAV that can give swscale several threads does so unasked, one for each core: more work in all, and on cores
    that encode. Older PyAV has one and no such argument."""
    from av.video.reformatter import VideoReformatter

    return {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}


def _plane(planar: VideoFrame, index: int) -> Image:
    """(H, W, 1) view of one plane; rows in it may be padded."""
    plane: Any = planar.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width, None]
