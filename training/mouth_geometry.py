"""The mouth as layers of polygons, for crops and whole faces.

Head coordinates: the units of the mean face on its 256 × 256 canvas, origin at the base of the nose (landmark 33), x to
the right of the image, y down, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gorggle_training import visemes

Float32Array = NDArray[np.float32]

# Sample positions of the curves, denser towards the corners.
KNOTS = np.sin(np.pi / 2 * np.linspace(-1.0, 1.0, 17)).astype(np.float32)


@dataclass(frozen=True)
class Mouth:
    """The shape of a mouth; lengths in head units (a face is about 120 wide)."""

    y: float = 17.5
    half_width: float = 22.0
    upper_lip: float = 5.5
    lower_lip: float = 7.5
    bow: float = 0.16
    # Corners below the middle (positive) or above it, and the slant from left to right.
    corner_drop: float = 0.5
    slant: float = 0.0
    # One side opens more than the other, −0.3 … 0.3.
    asymmetry: float = 0.0
    opening: float = 20.0
    # Lower edge of the upper teeth below the line where the lips meet.
    teeth_y: float = 1.5
    teeth_width: float = 0.8
    tongue_rise: float = 0.0
    moustache: float = 0.0


@dataclass(frozen=True)
class Layer:
    """A polygon over time: points [T, N, 3], name of its colour, and whether it is visible [T]."""

    points: Float32Array
    colour: str
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class MouthShape:
    """Edges of the lips over time, each [T, 17] (y for the common x), and teeth and tongue."""

    x: Float32Array
    z: Float32Array
    upper_outer: Float32Array
    upper_inner: Float32Array
    lower_inner: Float32Array
    lower_outer: Float32Array
    upper_teeth: Float32Array
    lower_teeth: Float32Array
    tongue: Float32Array
    tongue_out: Float32Array
    press: Float32Array


def mouth_shape(mouth: Mouth, motion: Float32Array) -> MouthShape:
    """Compute the position of lips, teeth and tongue for a motion [T, K]."""
    column = {name: motion[:, index : index + 1] for index, name in enumerate(visemes.PARAMETERS)}
    jaw, width, rounding = column["jaw"], column["width"], column["round"]
    press, tuck = np.clip(column["press"], 0, 1), np.clip(column["tuck"], 0, 1)
    free = (1.0 - press) * (1.0 - tuck)
    jaw_drop = mouth.opening * jaw
    opening = free * (
        mouth.opening * np.maximum(jaw - 0.05, 0.0) * (1.0 - 0.3 * rounding)
        + 1.2 * column["upper_raise"] + 2.4 * column["lower_drop"] + 2.6 * rounding
    ) + 3.2 * tuck * (1.0 - press)  # fmt: skip
    opening = np.maximum(opening, 5.0 * column["tongue_out"] * (1.0 - press))
    half_width = mouth.half_width * (1.0 + 0.2 * width - 0.3 * rounding - 0.07 * jaw)
    # Extent of the opening towards the corners, and its squareness there.
    reach = 0.9 - 0.12 * rounding
    profile = np.maximum(1.0 - np.abs(KNOTS / reach) ** (2.4 + 0.8 * np.maximum(width, 0.0)), 0.0)
    profile = profile * (1.0 + mouth.asymmetry * KNOTS)
    lift = (2.4 * column["upper_raise"] + 1.4 * tuck) * (1.0 - press)
    corners = mouth.corner_drop - 1.2 * width + 0.3 * opening
    upper_inner = mouth.y + corners * KNOTS**2 + mouth.slant * KNOTS - lift * profile
    lower_inner = upper_inner + opening * profile
    lip_scale = 1.0 - 0.12 * np.maximum(width, 0.0) + 0.18 * rounding - 0.08 * jaw
    upper_lip = mouth.upper_lip * lip_scale * (1.0 - 0.6 * press) * (1.0 - 0.2 * column["upper_raise"])
    lower_lip = mouth.lower_lip * lip_scale * (1.0 - 0.55 * press) * (1.0 - 0.55 * tuck)
    upper_profile = (1.0 - np.abs(KNOTS) ** 2.2) ** 0.8 * (1.0 - mouth.bow * np.exp(-((KNOTS / 0.17) ** 2)))
    lower_profile = (1.0 - KNOTS**2) ** 0.75
    # Rounded lips protrude and shade the teeth.
    hidden = 3.5 * rounding * (1.0 - 0.8 * np.clip(column["clench"], 0, 1))
    upper_teeth = mouth.y + mouth.teeth_y + 1.5 * KNOTS**2 - hidden
    bite = (1.0 - np.clip(column["clench"], 0, 1)) * 0.75 * jaw_drop
    lower_teeth = upper_teeth + 0.5 + bite + hidden
    rest = lower_teeth + 0.8 - (0.25 + mouth.tongue_rise) * bite + 2.0 * rounding
    tip = np.clip(1.2 * column["tongue_tip"], 0, 1) * np.maximum(1.0 - (KNOTS / 0.62) ** 2, 0.0) ** 0.7
    return MouthShape(
        x=_f32(half_width * KNOTS),
        z=_f32((10.0 + 5.0 * rounding) * (1.0 - KNOTS**2) - 2.0),
        upper_outer=_f32(upper_inner - upper_lip * upper_profile),
        upper_inner=_f32(upper_inner),
        lower_inner=_f32(lower_inner),
        lower_outer=_f32(lower_inner + lower_lip * lower_profile),
        upper_teeth=_f32(upper_teeth),
        lower_teeth=_f32(lower_teeth),
        tongue=_f32(rest + (upper_teeth + 0.8 - rest) * tip),
        tongue_out=_f32(np.clip(column["tongue_out"], 0, 1)),
        press=_f32(press),
    )


def _f32(values: NDArray[np.floating]) -> Float32Array:
    return values.astype(np.float32)


def mouth_layers(mouth: Mouth, shape: MouthShape) -> list[Layer]:
    """Return the layers of the mouth, from back to front."""
    upper, lower = shape.upper_inner, shape.lower_inner
    whole = slice(None)
    teeth = np.abs(KNOTS) <= mouth.teeth_width
    middle = np.abs(KNOTS) <= 0.6
    thickness = shape.lower_outer - lower
    seam = 0.35 + 0.25 * shape.press
    layers = [
        _layer_between(shape, shape.upper_outer, shape.lower_outer, whole, "upper_lip"),
        _layer_between(shape, lower, shape.lower_outer, whole, "lower_lip"),
        _layer_between(shape, lower + 0.3 * thickness, lower + 0.62 * thickness, middle, "lip_highlight"),
        _layer_between(shape, upper - seam, lower + seam, whole, "seam"),
        _layer_between(shape, upper, lower, whole, "cavity"),
        _layer_between(shape, np.clip(shape.tongue, upper, lower), lower, np.abs(KNOTS) <= 0.75, "tongue"),
        _layer_between(shape, np.clip(shape.lower_teeth, upper, lower), lower, teeth, "lower_teeth"),
        _layer_between(shape, upper, np.clip(shape.upper_teeth, upper, lower), teeth, "upper_teeth_side"),
        _layer_between(shape, upper, np.clip(shape.upper_teeth, upper, lower), middle, "upper_teeth"),
    ]
    if np.any(shape.tongue_out > 0.3):
        tip = np.clip(lower - shape.tongue_out * (lower - shape.upper_teeth), upper, lower)
        between = _layer_between(
            shape, tip, lower + 0.8 * shape.tongue_out, np.abs(KNOTS) <= 0.5, "tongue_tip"
        )
        layers.append(replace(between, visible=between.visible & (shape.tongue_out[:, 0] > 0.3)))
    if mouth.moustache > 0:
        top = _f32(shape.upper_outer - mouth.moustache * (1.0 - 0.35 * np.abs(KNOTS)))
        layers.insert(0, _layer_between(shape, top, shape.upper_outer + 1.2, whole, "moustache"))
    return layers


def _layer_between(
    shape: MouthShape, top: Float32Array, bottom: Float32Array, part: slice | NDArray[np.bool_], colour: str
) -> Layer:
    """Return the region between two curves over a part of the mouth's width."""
    x, z = shape.x[:, part], shape.z[:, part]
    over = np.stack([x, top[:, part], z], axis=-1)
    under = np.stack([x, bottom[:, part], z], axis=-1)[:, ::-1]
    visible = np.max(bottom[:, part] - top[:, part], axis=1) > 0.25
    return Layer(np.concatenate([over, under], axis=1).astype(np.float32), colour, visible)


def mouth_landmarks(shape: MouthShape) -> Float32Array:
    """Return landmarks 48–67 of the 68-point convention: [T, 20, 3]."""
    right = (16, 12, 9, 8, 7, 4, 0)
    rows = [(shape.upper_outer, index) for index in reversed(right)]
    rows += [(shape.lower_outer, index) for index in right[1:-1]]
    rows += [(shape.upper_inner, index) for index in (1, 6, 8, 10, 15)]
    rows += [(shape.lower_inner, index) for index in (10, 8, 6)]
    points = [np.stack([shape.x[:, i], y[:, i], shape.z[:, i]], axis=-1) for y, i in rows]
    return np.stack(points, axis=1)
