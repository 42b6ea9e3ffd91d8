"""Converts decoded video frames to upright grayscale images of limited size."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

# Larger images are downscaled to this long side, to limit the cost of vision. In 4K, faces far from the camera are still
# large enough to be read.
MAX_SIDE_PX = 4096

# Pixel formats whose first plane is luma, with its bits. All others are converted to BGR by swscale.
_LUMA_BITS = (
    dict.fromkeys(("gray", "nv12", "nv21", "nv16", "nv24", "yuva420p", "yuva422p", "yuva444p"), 8)
    | dict.fromkeys((f"yuv{kind}p" for kind in (410, 411, 420, 422, 440, 444)), 8)
    | dict.fromkeys((f"yuvj{kind}p" for kind in (411, 420, 422, 440, 444)), 8)
    | dict.fromkeys(("gray10le", *(f"yuv{kind}p10le" for kind in (420, 422, 440, 444))), 10)
    | dict.fromkeys(("gray12le", *(f"yuv{kind}p12le" for kind in (420, 422, 440, 444))), 12)
)
_FULL_RANGE_FORMATS = frozenset({"gray", "gray10le", "gray12le"})
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG

_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def get_clockwise_rotation(frame: av.VideoFrame) -> int:
    """Return the clockwise rotation (0, 90, 180 or 270 degrees) that makes the frame upright."""
    return round(-frame.rotation / 90) % 4 * 90


def to_grayscale(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """Convert a frame to an upright grayscale image with square pixels, its long side at most ``MAX_SIDE_PX``.

    The luma plane is used directly, expanded to the full range 0 to 255. This costs half as much as OpenCV's conversion
    of the BGR image and differs by less than one level on average.

    Args:
        frame: as decoded.
        pixel_aspect: width of a pixel divided by its height.

    Returns:
        (H, W), a copy that does not refer to the decoder's memory.
    """
    bits = _LUMA_BITS.get(frame.format.name)
    plane = None if bits is None else _first_plane(frame, bits)
    if plane is None:
        grey = _downscale(cv2.cvtColor(frame.to_ndarray(format="bgr24"), cv2.COLOR_BGR2GRAY), pixel_aspect)
    else:
        grey = _expand_range(_downscale(plane, pixel_aspect), bits or 8, _is_full_range(frame))
    turn = _ROTATIONS.get(get_clockwise_rotation(frame))
    grey = grey if turn is None else cv2.rotate(grey, turn)
    return np.ascontiguousarray(grey, dtype=np.uint8)


def fit_to_shape(grey: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale the image to fit ``shape`` (height, width) without distortion, centred on black."""
    if grey.shape == shape:
        return grey
    scale = min(shape[0] / grey.shape[0], shape[1] / grey.shape[1])
    height, width = (
        max(1, min(full, round(side * scale))) for full, side in zip(shape, grey.shape, strict=True)
    )
    canvas = np.zeros(shape, np.uint8)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(
        grey, (width, height), interpolation=cv2.INTER_AREA
    )
    return canvas


def _first_plane(frame: av.VideoFrame, bits: int) -> NDArray[Any] | None:
    plane = frame.planes[0]
    item_bytes = 1 if bits == 8 else 2
    if plane.line_size < frame.width * item_bytes:  # negative if rows are stored bottom-up
        return None
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
        : frame.height, : frame.width * item_bytes
    ]
    samples: NDArray[Any] = rows if item_bytes == 1 else rows.view("<u2")
    return samples


def _downscale(image: NDArray[Any], pixel_aspect: float) -> NDArray[Any]:
    height, width = image.shape
    upright_width = width * pixel_aspect
    scale = min(1.0, MAX_SIDE_PX / max(height, upright_width))
    size = max(1, round(upright_width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _expand_range(luma: NDArray[Any], bits: int, is_full_range: bool) -> NDArray[Any]:
    if bits == 8:
        return luma.copy() if is_full_range else cv2.LUT(luma, _get_range_table(8, False))
    levels: NDArray[Any] = _get_range_table(bits, is_full_range)[luma & (2**bits - 1)]
    return levels


@cache
def _get_range_table(bits: int, is_full_range: bool) -> NDArray[np.uint8]:
    """Return the gray level of each luma value: in limited range black is 16 and white 235 (times 4 in 10 bits)."""
    factor = 2 ** (bits - 8)
    black, white = (0, 2**bits - 1) if is_full_range else (16 * factor, 235 * factor)
    levels: NDArray[np.float64] = (np.arange(2**bits) - black) * (255 / (white - black))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _is_full_range(frame: av.VideoFrame) -> bool:
    if frame.color_range in (_LIMITED_RANGE, _FULL_RANGE):
        return frame.color_range == _FULL_RANGE
    return frame.format.name.startswith("yuvj") or frame.format.name in _FULL_RANGE_FORMATS
