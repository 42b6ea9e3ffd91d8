"""Whole heads for full frames: hair, blinking eyes, brows, shoulders, background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_training import face_appearance
from gorggle_training.face_appearance import Box, Colour, FaceShape, Palette
from gorggle_training.mouth_geometry import Layer, Mouth

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

_MIN_LONG_HAIR = 0.55
HEAD_BOX: Box = (-98.0, -132.0, 98.0, 96.0)
_KNOTS = np.sin(np.pi / 2 * np.linspace(-1.0, 1.0, 13)).astype(np.float32)


def paint_head(
    face_shape: FaceShape, mouth: Mouth, palette: Palette, seed: int, scale: float
) -> tuple[UInt8Array, UInt8Array]:
    """Paint face and hair over `HEAD_BOX` without eyes, brows and mouth: BGR [H, W, 3] and alpha [H, W]."""
    b, g, r = palette.skin
    # Skin up to the edge, so that the backdrop does not show when the head moves.
    edgeless = replace(palette, backdrop=(0.62 * b, 0.62 * g, 0.62 * r))
    skin = face_appearance.paint_skin(face_shape, mouth, edgeless, seed, HEAD_BOX, scale).astype(np.float32)
    shape = skin.shape
    face = face_appearance.rasterize(face_appearance.face_outline(face_shape), HEAD_BOX, scale, shape, 0.6)
    left, right = (
        face_appearance.rasterize(_ear_outline(face_shape, side), HEAD_BOX, scale, shape, 0.6)
        for side in (-1.0, 1.0)
    )
    hair = face_appearance.rasterize(_hair_outline(face_shape), HEAD_BOX, scale, shape, 0.8)
    front = face_appearance.rasterize(_hairline_outline(face_shape), HEAD_BOX, scale, shape, 1.5)
    ear_colour = np.asarray(palette.skin, np.float32) * 0.82
    image = np.empty_like(skin)
    image[:] = _paint_hair(palette, seed, HEAD_BOX, scale)
    # Long hair covers the ears.
    ears = np.maximum(left, right)
    if face_shape.hair_length > _MIN_LONG_HAIR:
        ears = ears * (1.0 - hair)
    image += ears[..., None] * (ear_colour - image)
    inside = face * (1.0 - front)
    image += inside[..., None] * (skin - image)
    cover = np.maximum.reduce([face, ears, hair])
    return np.clip(image, 0, 255).astype(np.uint8), np.round(255 * cover).astype(np.uint8)


def _paint_hair(palette: Palette, seed: int, box: Box, scale: float) -> Float32Array:
    """Paint the hair: its colour with fine strands and a soft shine, [H, W, 3]."""
    x, y = face_appearance.pixel_grid(box, scale)
    rng = np.random.default_rng(seed + 1)
    noise = rng.standard_normal((y.shape[0], x.shape[1]), dtype=np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.7 * scale, sigmaY=7.0 * scale)
    strands = np.asarray(strands, np.float32) / (float(np.std(strands)) + 1e-6)
    shine = np.exp(-(((y + 88.0 + 0.004 * x**2) / 14.0) ** 2)) * np.exp(-((x / 60.0) ** 2))
    light = 1.0 + 0.1 * strands + 0.35 * shine - 0.25 * np.clip((y + 40) / 100.0, 0, 1)
    hair = np.asarray(palette.hair, np.float32)
    return np.asarray(hair * light[..., None] + 18.0 * shine[..., None], np.float32)


def _ear_outline(face_shape: FaceShape, side: float) -> Float32Array:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    edge = abs(float(face_appearance.head_landmarks(face_shape)[16, 0]))
    return np.stack([side * (edge + 2.0) + 5.5 * np.cos(angles), -24.0 + 13.5 * np.sin(angles)], 1).astype(
        np.float32
    )


def _half_width(face_shape: FaceShape) -> float:
    jaw = face_appearance.head_landmarks(face_shape)[:17]
    return float(jaw[16, 0] - jaw[0, 0]) / 2


def _hair_outline(face_shape: FaceShape) -> Float32Array:
    """Return the outline of the hair from the front; long hair covers the sides of the cheeks."""
    half = _half_width(face_shape) + 7.0
    reach = -30.0 + 105.0 * max(0.0, face_shape.hair_length - 0.3)
    swing = 0.07 * max(0.0, reach + 30.0)
    angles = np.linspace(0, np.pi, 31)
    crown = np.stack([half * np.cos(angles), -42.0 - 84.0 * np.sin(angles)], axis=1)
    lock = np.array([
        (half + swing, 0.5 * (reach - 42.0)), (half + swing, reach - 6.0),
        (half - 3.0 + 0.5 * swing, reach + 6.0), (half - 15.0, reach + 4.0), (half - 24.0, reach - 12.0),
        (half - 20.0, 0.5 * (reach - 30.0)),
    ])  # fmt: skip
    mirrored = lock * (-1.0, 1.0)
    return smooth_outline(np.concatenate([crown, mirrored, lock[::-1]]))


def smooth_outline(outline: NDArray[np.floating], iterations: int = 2) -> Float32Array:
    """Smooth a closed outline by repeatedly cutting its corners (Chaikin's algorithm)."""
    for _ in range(iterations):
        following = np.roll(outline, -1, axis=0)
        cut = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], axis=1)
        outline = cut.reshape(-1, 2)
    return outline.astype(np.float32)


def _hairline_outline(face_shape: FaceShape) -> Float32Array:
    """Return the hair in front of the forehead and temples, as a region to remove from the face."""
    half = _half_width(face_shape)
    x = np.linspace(-1, 1, 21)
    parting = 0.8 * np.sin(9.0 * face_shape.hair_length)
    low = -94.0 - face_shape.hairline + 46.0 * np.abs(x) ** 4 + 13.0 * np.abs(x - parting) ** 1.5
    line = np.stack([half * 1.1 * x, low], axis=1)
    top = np.array([(half * 1.3, -140.0), (-half * 1.3, -140.0)])
    return np.concatenate([line, top]).astype(np.float32)


def eye_layers(face_shape: FaceShape, closed: Float32Array, gaze: Float32Array) -> list[Layer]:
    """Return both eyes and brows: `closed` [T] is 1 when shut, `gaze` [T, 2] in head units."""
    points = face_appearance.head_landmarks(face_shape)
    layers: list[Layer] = []
    for first, brow in ((36, slice(17, 22)), (42, slice(22, 27))):
        layers += _single_eye_layers(face_shape, points[first : first + 6], closed, gaze)
        layers.append(_brow_layer(face_shape, points[brow], len(closed)))
    return layers


def _single_eye_layers(
    face_shape: FaceShape, points: Float32Array, closed: Float32Array, gaze: Float32Array
) -> list[Layer]:
    left, right = points[0], points[3]
    middle, half = (left + right) / 2, float(right[0] - left[0]) / 2
    height = 5.2 * face_shape.eye_size
    open_ = (1.0 - closed)[:, None]
    base = middle[1] + (right[1] - left[1]) / 2 * _KNOTS
    arch = (1.0 - np.abs(_KNOTS) ** 2.3).astype(np.float32)
    upper = base - height * 0.9 * arch * open_ + 1.0 * arch * (1 - open_)
    lower = base + height * 0.5 * arch * np.maximum(open_, 0.5)
    x = np.broadcast_to(middle[0] + half * _KNOTS, upper.shape)

    def between(top: NDArray[np.floating], bottom: NDArray[np.floating], colour: str) -> Layer:
        return _strip_layer(face_shape, x, top, bottom, colour)

    def disc(radius: float, colour: str, dx: float = 0.0, dy: float = 0.0) -> Layer:
        centre_x = middle[0] + gaze[:, :1] + dx
        centre_y = middle[1] - 0.12 * height + gaze[:, 1:] + dy
        at_x = centre_x + radius * _KNOTS
        bow = radius * np.sqrt(1.0 - np.minimum(_KNOTS**2, 1.0))
        top_lid = np.stack([np.interp(at_x[t], x[t], upper[t]) for t in range(len(at_x))])
        low_lid = np.stack([np.interp(at_x[t], x[t], lower[t]) for t in range(len(at_x))])
        top = np.clip(centre_y - bow, top_lid, low_lid)
        return _strip_layer(face_shape, at_x, top, np.clip(centre_y + bow, top_lid, low_lid), colour)

    return [
        between(upper - 3.2 * arch, lower + 1.6 * arch, "eyelid"),
        between(upper, lower, "eye_white"),
        disc(4.7 * face_shape.eye_size, "iris"),
        disc(2.2 * face_shape.eye_size, "pupil"),
        disc(0.9 * face_shape.eye_size, "glint", 1.4, -1.5),
        between(upper - 1.3 * np.sqrt(arch) - 0.2, upper + 0.5 * arch + 0.2, "lashes"),
        between(upper - 4.6 * arch - 0.4, upper - 3.8 * arch - 0.1, "eyelid_crease"),
    ]


def _brow_layer(face_shape: FaceShape, points: Float32Array, frames: int) -> Layer:
    x = np.linspace(points[0, 0], points[-1, 0], len(_KNOTS))
    y = np.interp(x, points[:, 0], points[:, 1])
    thick = 2.2 * face_shape.brow_weight * (1.0 - 0.6 * _KNOTS**4)
    shape = (frames, len(_KNOTS))
    return _strip_layer(
        face_shape, np.broadcast_to(x, shape), np.broadcast_to(y - thick, shape),
        np.broadcast_to(y + 0.8 * thick, shape), "brow",
    )  # fmt: skip


def _strip_layer(
    face_shape: FaceShape,
    x: NDArray[np.floating],
    top: NDArray[np.floating],
    bottom: NDArray[np.floating],
    colour: str,
) -> Layer:
    over = np.stack([x, top, face_appearance.face_depth(face_shape, x, top)], axis=-1)
    under = np.stack([x, bottom, face_appearance.face_depth(face_shape, x, bottom)], axis=-1)[:, ::-1]
    points = np.concatenate([over, under], axis=1).astype(np.float32)
    return Layer(points, colour, np.max(bottom - top, axis=1) > 0.2)


def derive_head_colours(palette: Palette) -> dict[str, Colour]:
    """Return the colours of the layers that are derived from skin and hair."""
    b, g, r = palette.skin
    hb, hg, hr = palette.hair
    return {
        "eyelid": (b * 0.86, g * 0.85, r * 0.88),
        "eyelid_crease": (b * 0.62, g * 0.62, r * 0.68),
        "eye_white": (228.0, 232.0, 236.0),
        "pupil": (14.0, 12.0, 12.0),
        "glint": (250.0, 250.0, 250.0),
        "lashes": (min(hb, 40.0), min(hg, 38.0), min(hr, 42.0)),
        "brow": (0.75 * hb + 0.15 * b, 0.75 * hg + 0.15 * g, 0.75 * hr + 0.15 * r),
    }


def random_blinks(frames: int, rng: np.random.Generator) -> Float32Array:
    """Return how far the eyes are closed, [T]: a blink every few seconds."""
    closed = np.zeros(frames + 8, np.float32)
    frame = int(rng.integers(15, 60))
    while frame < frames:
        closed[frame : frame + 5] = np.maximum(closed[frame : frame + 5], (0.5, 1.0, 0.9, 0.5, 0.2))
        frame += int(rng.integers(50, 130))
    return closed[:frames]


def paint_background(
    face_shape: FaceShape,
    palette: Palette,
    seed: int,
    size: tuple[int, int],
    neck: tuple[float, float],
    scale: float,
) -> UInt8Array:
    """Paint backdrop, shoulders and neck: BGR [H, W, 3]; `neck` is the base of the nose at rest."""
    width, height = size
    rng = np.random.default_rng(seed + 2)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1.06 - 0.18 * (x + rng.uniform(-0.5, 0.5)) ** 2 - 0.14 * (y + 0.3) ** 2
    image = np.asarray(palette.backdrop, np.float32) * light[..., None]
    skin, clothes = np.asarray(palette.skin, np.float32), np.asarray(palette.clothes, np.float32)
    box = (-neck[0] / scale, -neck[1] / scale, (width - neck[0]) / scale, (height - neck[1]) / scale)
    shape = image.shape
    hair = np.asarray(palette.hair, np.float32)
    for outline, colour, edge_width in (
        (_back_hair_outline(face_shape), hair * 0.6, 2.0),
        (_shoulders_outline(face_shape), clothes * 0.95, 0.8),
        (_throat_outline(face_shape), skin * 0.8, 1.0),
        (_collar_outline(face_shape), clothes * 0.8, 0.7),
    ):
        cover = face_appearance.rasterize(outline, box, scale, shape, edge_width)
        image += cover[..., None] * (colour - image)
    _, rows = face_appearance.pixel_grid(box, scale)
    under_chin = 0.34 * np.exp(-(((rows[:height] - 60.0 * face_shape.chin) / 24.0) ** 2))
    throat = face_appearance.rasterize(_throat_outline(face_shape), box, scale, shape, 2.0)
    image *= 1.0 - (throat * under_chin)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _back_hair_outline(face_shape: FaceShape) -> Float32Array:
    """Return the outline of long hair behind the neck; it is hidden if the hair is short."""
    half = _half_width(face_shape) - 10.0
    low = 66.0 * face_shape.hair_length if face_shape.hair_length > _MIN_LONG_HAIR else -64.0
    return smooth_outline(np.array([(-half, -65), (half, -65), (half, low), (-half, low)], np.float32))


def _shoulders_outline(face_shape: FaceShape) -> Float32Array:
    x = np.linspace(-1, 1, 41)
    top = 84.0 + 46.0 * np.abs(x) ** 1.8 + 120.0 * np.clip(np.abs(x) - 0.82, 0, 1) ** 1.5
    return np.concatenate(
        [np.stack([185.0 * face_shape.width * x, top], 1), [(190.0, 400.0), (-190.0, 400.0)]]
    ).astype(np.float32)


def _throat_outline(face_shape: FaceShape) -> Float32Array:
    half = 35.0 * face_shape.jaw_width
    return np.concatenate([[(-half, 20.0), (half, 20.0)], _neck_curve(half * 1.1, 88.0, 24.0)]).astype(
        np.float32
    )


def _collar_outline(face_shape: FaceShape) -> Float32Array:
    half = 35.0 * face_shape.jaw_width
    inner, outer = _neck_curve(half * 1.12, 88.0, 24.0), _neck_curve(half * 1.24, 85.0, 32.0)
    return np.concatenate([inner, outer[::-1]]).astype(np.float32)


def _neck_curve(half_width: float, y: float, drop: float) -> NDArray[np.floating]:
    curve = np.linspace(0, np.pi, 15)
    return np.stack([half_width * np.cos(curve), y + drop * np.sin(curve)], axis=1)
