"""Conversion of decoded frames to greyscale."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from skimage import data

from gorggle_server.media.video_conversion import (
    MAX_SIDE_PX,
    fit_to_shape,
    get_clockwise_rotation,
    to_grayscale,
)

FULL_RANGE = 2

# Maximum mean error of formats with few bits, and of those that swscale converts from YUV to BGR with rounding.
MAX_MEAN_ERROR = {"rgb565le": 3.0, "p010le": 2.0, "yuyv422": 2.0}


def photograph(size: tuple[int, int] = (320, 240)) -> np.ndarray:
    return cv2.resize(data.astronaut(), size, interpolation=cv2.INTER_AREA)


def opencv_grey(photograph: np.ndarray) -> np.ndarray:
    """Return the reference, from the original image because swscale's conversion from YUV to BGR rounds."""
    return cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize(
    "pixel_format",
    [
        *("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuva420p", "nv12", "gray"),
        *("yuv420p10le", "yuv422p10le", "yuv444p12le", "p010le", "gray10le"),
        *("rgb24", "bgr24", "gbrp", "rgba", "yuyv422", "rgb565le", "gbrp10le"),
    ],
)
@pytest.mark.parametrize("width", [320, 322])
def test_greyscale_matches_opencv_within_rounding(pixel_format: str, width: int) -> None:
    image = photograph((width, 240))
    grey = to_grayscale(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixel_format))
    assert grey.shape == (240, width)
    assert grey.dtype == np.uint8
    assert np.abs(grey.astype(int) - opencv_grey(image)).mean() < MAX_MEAN_ERROR.get(pixel_format, 1.0)


def test_full_range_frames_are_not_rescaled() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (240, 1))
    limited = av.VideoFrame.from_ndarray(np.vstack([ramp, np.full((120, 256), 128, np.uint8)]), "yuv420p")
    full = av.VideoFrame.from_ndarray(np.vstack([ramp, np.full((120, 256), 128, np.uint8)]), "yuv420p")
    full.color_range = FULL_RANGE
    np.testing.assert_array_equal(to_grayscale(full), ramp)
    grey = to_grayscale(limited)[0]
    assert (grey[16], grey[235], grey[0], grey[255]) == (0, 255, 0, 255)


def test_large_frames_are_downscaled() -> None:
    image = photograph((2 * MAX_SIDE_PX, 720))
    grey = to_grayscale(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p"))
    assert grey.shape == (360, MAX_SIDE_PX)
    expected = cv2.resize(opencv_grey(image), (MAX_SIDE_PX, 360), interpolation=cv2.INTER_AREA)
    assert np.abs(grey.astype(int) - expected).mean() < 1.0


def test_non_square_pixels_are_resampled_to_square() -> None:
    frame = av.VideoFrame.from_ndarray(photograph((360, 288)), "rgb24").reformat(format="yuv420p")
    assert to_grayscale(frame, 16 / 15).shape == (288, 384)


def test_greyscale_output_is_a_copy_of_the_decoder_buffer() -> None:
    for pixel_format in ("gray", "yuvj420p", "yuv420p"):
        frame = av.VideoFrame.from_ndarray(photograph(), "rgb24").reformat(format=pixel_format)
        grey = to_grayscale(frame)
        before = grey.copy()
        np.frombuffer(memoryview(frame.planes[0]), np.uint8)[:] = 0
        np.testing.assert_array_equal(grey, before)
        assert grey.flags.c_contiguous


def test_a_frame_without_a_display_matrix_is_not_rotated() -> None:
    assert get_clockwise_rotation(av.VideoFrame(16, 16, "gray")) == 0


def test_an_image_of_another_shape_is_fitted_without_distortion() -> None:
    wide = np.full((100, 200), 200, np.uint8)
    canvas = fit_to_shape(wide, (240, 320))
    assert canvas.shape == (240, 320)
    rows = np.flatnonzero(canvas.mean(axis=1) > 100)
    assert (rows[0], rows[-1]) == (40, 199)
    assert fit_to_shape(canvas, (240, 320)) is canvas
    assert fit_to_shape(np.zeros((1, 5000), np.uint8), (10, 10)).shape == (10, 10)
