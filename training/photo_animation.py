"""Animates photographs: the lips are warped to the motion, and the inside of the mouth is painted.

Both photographs are in the public domain (NASA; the United States Navy) and are part of scikit-image and matplotlib.
They have the skin texture that drawn faces lack, for tests of face detection and crops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import skimage.data
from numpy.typing import NDArray

from gorggle_training import face_appearance
from gorggle_training.camera_simulation import (
    Float32Array,
    UInt8Array,
    fit_similarities,
    rotation_transforms,
    slow_noise,
)
from gorggle_training.face_appearance import ALIGNMENT_LANDMARKS
from gorggle_training.face_rendering import draw_layers, to_subpixels
from gorggle_training.mouth_geometry import KNOTS, Mouth, MouthShape, mouth_layers, mouth_shape
from gorggle_training.visemes import JAW

# The region that moves with the mouth, in head coordinates: from below the nose to the throat.
_MOUTH_BOX = (-62.0, 2.0, 62.0, 92.0)


class Photograph(StrEnum):
    """Photographs that can be animated."""

    ASTRONAUT = "astronaut"
    GRACE_HOPPER = "grace_hopper"


@dataclass(frozen=True)
class _PhotoLandmarks:
    """Landmarks in the photograph's pixels: for alignment, and of the lips; the latter corrected by hand.

    Each edge of the lips runs from left to right, corners included.
    """

    alignment_landmarks: tuple[tuple[int, int], ...]
    upper_outer: tuple[tuple[int, int], ...]
    upper_inner: tuple[tuple[int, int], ...]
    lower_inner: tuple[tuple[int, int], ...]
    lower_outer: tuple[tuple[int, int], ...]
    chin_y: int


_PHOTO_LANDMARKS = {
    Photograph.ASTRONAUT: _PhotoLandmarks(
        alignment_landmarks=((224, 134), (195, 101), (212, 104), (238, 105), (255, 104)),
        upper_outer=((202, 140), (209, 139), (218, 139), (224, 141), (230, 140), (237, 140), (246, 141)),
        upper_inner=((202, 140), (210, 143), (218, 144), (224, 145), (230, 144), (238, 143), (246, 141)),
        lower_inner=((202, 140), (210, 146), (217, 149), (223, 150), (229, 149), (238, 146), (246, 141)),
        lower_outer=((202, 140), (208, 149), (216, 154), (223, 156), (230, 154), (238, 149), (246, 141)),
        chin_y=179,
    ),
    Photograph.GRACE_HOPPER: _PhotoLandmarks(
        alignment_landmarks=((267, 253), (205, 198), (238, 200), (294, 196), (327, 189)),
        upper_outer=((230, 280), (244, 274), (258, 272), (268, 274), (278, 272), (293, 273), (309, 274)),
        upper_inner=((230, 280), (244, 279), (258, 279), (268, 280), (278, 279), (293, 278), (309, 274)),
        lower_inner=((230, 280), (244, 280), (258, 280), (268, 281), (278, 280), (293, 279), (309, 274)),
        lower_outer=((230, 280), (244, 287), (258, 290), (268, 291), (278, 290), (293, 286), (309, 274)),
        chin_y=330,
    ),
}
# Pixels per head unit in a frame of 480 lines: a face of about 200 pixels.
_FACE_SCALE = 1.6
_MOUTH_COLOURS: dict[str, face_appearance.Colour] = {
    "seam": (48.0, 46.0, 78.0),
    "cavity": (22.0, 20.0, 34.0),
    "tongue": (76.0, 74.0, 138.0),
    "tongue_tip": (98.0, 96.0, 172.0),
    "lower_teeth": (150.0, 164.0, 172.0),
    "upper_teeth": (200.0, 212.0, 218.0),
    "upper_teeth_side": (150.0, 160.0, 168.0),
}


@dataclass(frozen=True)
class _Lips:
    """The lips at rest in head coordinates: x of their middle, half width, and edges at the knots, each [17]."""

    middle_x: float
    half_width: float
    upper_outer: Float32Array
    upper_inner: Float32Array
    lower_inner: Float32Array
    lower_outer: Float32Array
    chin_y: float

    @property
    def mouth(self) -> Mouth:
        """Return these lips as a `Mouth`, for their motion."""
        corner, lip = float(self.upper_inner[0] + self.upper_inner[-1]) / 2, len(KNOTS) // 2
        return Mouth(
            y=float(self.upper_inner[lip]) + 0.4,
            half_width=min(self.half_width, 25.0),
            upper_lip=float(self.upper_inner[lip] - self.upper_outer[lip]),
            lower_lip=float(self.lower_outer[lip] - self.lower_inner[lip]),
            corner_drop=0.4 * (corner - float(self.upper_inner[lip])),
            slant=float(self.upper_inner[-1] - self.upper_inner[0]) / 2,
            opening=20.0,
        )


def render_photo_frames(
    photo: Photograph,
    motion: Float32Array,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[UInt8Array]:
    """Render the photograph as a video with the motion [T, K]: BGR [H, W, 3] per frame."""
    width, height = size
    scale = _FACE_SCALE * height / 480
    rest = np.array([width / 2, 0.56 * height], np.float32)
    moved = slow_noise(rng, len(motion), 3, 30.0)
    # From the canvas at rest to the frame: the head rotates around the base of the nose, and drifts.
    transforms = rotation_transforms(np.radians(1.2) * moved[:, 0], np.ones(len(motion), np.float32), rest)
    transforms[:, :, 2] += 0.9 * scale * moved[:, 1:]
    canvases = _render_canvases(photo, motion, scale, rest, size)
    for canvas, transform in zip(canvases, transforms, strict=True):
        frame = cv2.warpAffine(canvas, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        yield np.asarray(frame, np.uint8)


@lru_cache(maxsize=len(Photograph))
def _load_photo(photo: Photograph) -> UInt8Array:
    """Load the photograph, BGR."""
    if photo is Photograph.ASTRONAUT:
        astronaut = np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
        return np.asarray(cv2.cvtColor(astronaut, cv2.COLOR_RGB2BGR), np.uint8)
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(
            f"matplotlib's sample photograph is not at {path}: install matplotlib as a wheel"
        )
    return np.asarray(image, np.uint8)


def _head_transform(photo: Photograph) -> Float32Array:
    """Return the transform from the photograph's pixels to head coordinates: [2, 3]."""
    mean_face = face_appearance.mean_face()
    seen = np.asarray(_PHOTO_LANDMARKS[photo].alignment_landmarks, np.float32)[None]
    transforms = fit_similarities(seen, np.asarray(mean_face - mean_face[33])[list(ALIGNMENT_LANDMARKS)])
    return np.asarray(transforms[0], np.float32)


@lru_cache(maxsize=len(Photograph))
def _locate_lips(photo: Photograph) -> _Lips:
    points, transform = _PHOTO_LANDMARKS[photo], _head_transform(photo)

    def in_head(pixels: tuple[tuple[int, int], ...]) -> Float32Array:
        return np.asarray(np.asarray(pixels, np.float32) @ transform[:, :2].T + transform[:, 2], np.float32)

    corners = in_head(points.upper_outer)[[0, -1], 0]
    middle_x, half_width = float(corners.mean()), float(corners[1] - corners[0]) / 2

    def edge(pixels: tuple[tuple[int, int], ...]) -> Float32Array:
        at = in_head(pixels)
        return np.asarray(np.interp(middle_x + half_width * KNOTS, at[:, 0], at[:, 1]), np.float32)

    return _Lips(
        middle_x, half_width,
        edge(points.upper_outer), edge(points.upper_inner), edge(points.lower_inner), edge(points.lower_outer),
        chin_y=float(in_head(((points.alignment_landmarks[0][0], points.chin_y),))[0, 1]),
    )  # fmt: skip


def _render_canvases(
    photo: Photograph, motion: Float32Array, scale: float, rest: Float32Array, size: tuple[int, int]
) -> Iterator[UInt8Array]:
    """Yield the photograph upright, base of the nose at `rest`, `scale` pixels per head unit, mouth in motion."""
    to_canvas = scale * _head_transform(photo)
    to_canvas[:, 2] += rest
    still = np.asarray(
        cv2.warpAffine(
            _load_photo(photo), to_canvas, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        ),
        np.uint8,
    )
    lips = _locate_lips(photo)
    bend = _LipWarp(lips, scale, rest, size)
    shape = mouth_shape(lips.mouth, motion)
    layers = [layer for layer in mouth_layers(lips.mouth, shape) if layer.colour in _MOUTH_COLOURS]
    offset = np.array([lips.middle_x, 0.0], np.float32)
    drawn = [
        to_subpixels((layer.points[..., :2] + offset) * scale + (rest - bend.corner)) for layer in layers
    ]
    jaw = lips.mouth.opening * motion[:, JAW] * 0.8
    for index in range(len(motion)):
        canvas = still.copy()
        patch = bend.warp(still, shape, index, float(jaw[index]))
        draw_layers(patch, layers, drawn, _MOUTH_COLOURS, index)
        canvas[bend.rows, bend.columns] = patch
        # The painted part is too sharp for a photograph; the skin around it keeps its texture.
        painted = canvas[bend.lip_rows, bend.lip_columns]
        canvas[bend.lip_rows, bend.lip_columns] = cv2.GaussianBlur(painted, (0, 0), 0.3 * scale)
        yield canvas


class _LipWarp:
    """Warps the lips and the skin between nose and throat, column by column.

    Along a column the edges of the lips move with the motion, and the span between two edges is scaled linearly; nose and
    throat are fixed.
    """

    def __init__(self, lips: _Lips, scale: float, rest: Float32Array, size: tuple[int, int]) -> None:
        self._lips = lips
        left, top, right, bottom = (round(edge * scale) for edge in _MOUTH_BOX)
        nose_x, nose_y = round(float(rest[0])), round(float(rest[1]))
        self.columns = slice(max(0, nose_x + left), min(size[0], nose_x + right))
        self.rows = slice(max(0, nose_y + top), min(size[1], nose_y + bottom))
        self.corner = np.array([self.columns.start, self.rows.start], np.float32)
        middle = nose_x + round(lips.middle_x * scale)
        self.lip_columns = slice(middle - round(24 * scale), middle + round(24 * scale))
        lip_y = nose_y + round(float(lips.upper_inner[8]) * scale)
        self.lip_rows = slice(lip_y - round(4 * scale), lip_y + round(24 * scale))
        self._scale, self._rest = scale, rest
        self._x = (np.arange(self.columns.start, self.columns.stop, dtype=np.float32) - rest[0]) / scale
        self._y = (np.arange(self.rows.start, self.rows.stop, dtype=np.float32) - rest[1])[:, None] / scale

    def warp(self, still: UInt8Array, shape: MouthShape, index: int, jaw: float) -> UInt8Array:
        """Return the region around the mouth at one frame."""
        lips = self._lips
        half_width = float(shape.x[index, -1])
        from_middle = self._x - lips.middle_x
        u = from_middle / half_width
        beyond = np.maximum(np.abs(from_middle) - half_width, 0.0)
        fading = np.clip(1.0 - beyond / 22.0, 0, 1) ** 2
        # Width changes affect the lips only: the chin does not narrow when they round.
        near_lips = np.exp(-(((self._y - lips.upper_inner[8] - 3.0) / 13.0) ** 2))
        shift_x = np.where(
            beyond > 0, np.sign(from_middle) * (lips.half_width - half_width) * fading,
            from_middle * (lips.half_width / half_width - 1.0),
        )  # fmt: skip
        rest_edges = [lips.upper_outer, lips.upper_inner, lips.lower_inner, lips.lower_outer]
        new_edges = [shape.upper_outer, shape.upper_inner, shape.lower_inner, shape.lower_outer]
        sources = [np.interp(u, KNOTS, edge) for edge in rest_edges]
        targets = [np.interp(u, KNOTS, edge[index]) for edge in new_edges]
        targets = [
            source + fading * (target - source) for source, target in zip(sources, targets, strict=True)
        ]
        give = np.clip(1.0 - (np.abs(from_middle) / 62.0) ** 2, 0, 1)
        still_at = np.full_like(self._x, _MOUTH_BOX[1]), np.full_like(self._x, _MOUTH_BOX[3])
        chin = np.full_like(self._x, lips.chin_y)
        source_y = self._source_rows(
            [still_at[0], *targets, chin + jaw * give, still_at[1]],
            [still_at[0], *sources, chin, still_at[1]],
        )
        map_x = ((self._x + shift_x * near_lips) * self._scale + self._rest[0]).astype(np.float32)
        map_y = (source_y * self._scale + self._rest[1]).astype(np.float32)
        return np.asarray(cv2.remap(still, map_x, map_y, cv2.INTER_LINEAR), np.uint8)

    def _source_rows(
        self, targets: list[NDArray[np.floating]], sources: list[NDArray[np.floating]]
    ) -> Float32Array:
        """Return the source row of every pixel: spans between `targets` map linearly to spans between `sources`."""
        height = np.broadcast_to(sources[0], (len(self._y), len(self._x))).astype(np.float32)
        for t0, t1, s0, s1 in zip(targets, targets[1:], sources, sources[1:], strict=False):
            length = np.maximum(t1 - t0, 1e-3)
            height += np.clip(self._y - t0, 0.0, length) * ((s1 - s0) / length)
        return height
