"""Appearance of a drawn speaker: face shape, colours, and the skin texture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_training.mouth_geometry import Mouth

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]

# Landmarks that align mouth crops: base of the nose and corners of the eyes.
ALIGNMENT_LANDMARKS = (33, 36, 39, 42, 45)


@cache
def mean_face() -> Float32Array:
    """Return the 68 points of the mean face on its 256 × 256 canvas: [68, 2]."""
    text = resources.files("gorggle_server").joinpath("assets/mean_face.json").read_text()
    return np.asarray(json.loads(text)["points"], np.float32)


@dataclass(frozen=True)
class FaceShape:
    """Proportions of a face, most of them relative to the mean face."""

    width: float = 1.0
    jaw_width: float = 1.0
    chin: float = 1.0
    eye_spacing: float = 1.0
    eye_height: float = 1.0
    eye_size: float = 1.0
    brow_lift: float = 0.0
    brow_weight: float = 1.0
    nose_width: float = 1.0
    nose_depth: float = 1.0
    cheeks: float = 0.5
    folds: float = 0.4
    beard: float = 0.0
    freckles: float = 0.3
    hair_length: float = 0.3
    hairline: float = 0.0


@dataclass(frozen=True)
class Palette:
    """Colours, BGR, 0–255."""

    skin: Colour
    upper_lip: Colour
    lower_lip: Colour
    lip_highlight: Colour
    seam: Colour
    cavity: Colour
    tongue: Colour
    tongue_tip: Colour
    lower_teeth: Colour
    upper_teeth: Colour
    upper_teeth_side: Colour
    moustache: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    backdrop: Colour


def random_face_shape(rng: np.random.Generator) -> FaceShape:
    """Return random proportions; one in four has a beard."""
    bearded = rng.random() < 0.25
    return FaceShape(
        width=float(rng.uniform(0.93, 1.1)),
        jaw_width=float(rng.uniform(0.88, 1.1)),
        chin=float(rng.uniform(0.9, 1.12)),
        eye_spacing=float(rng.uniform(0.94, 1.06)),
        eye_height=float(rng.uniform(0.93, 1.08)),
        eye_size=float(rng.uniform(0.85, 1.15)),
        brow_lift=float(rng.uniform(-2, 2)),
        brow_weight=float(rng.uniform(0.6, 1.5)),
        nose_width=float(rng.uniform(0.8, 1.3)),
        nose_depth=float(rng.uniform(0.6, 1.4)),
        cheeks=float(rng.uniform(0.0, 1.0)),
        folds=float(rng.uniform(0.0, 1.0)),
        beard=float(rng.uniform(0.15, 0.8)) if bearded else 0.0,
        freckles=float(rng.uniform(0.0, 1.0)),
        hair_length=float(rng.uniform(0.0, 1.0)),
        hairline=float(rng.uniform(-4, 6)),
    )


def random_mouth(rng: np.random.Generator, beard: float) -> Mouth:
    """Return a random mouth; most full beards come with a moustache."""
    moustached = (beard > 0.3 and rng.random() < 0.7) or rng.random() < 0.06
    return Mouth(
        y=float(rng.uniform(15.5, 20.5)),
        half_width=float(rng.uniform(19.0, 25.0)),
        upper_lip=float(rng.uniform(3.0, 7.5)),
        lower_lip=float(rng.uniform(4.5, 10.0)),
        bow=float(rng.uniform(0.0, 0.28)),
        corner_drop=float(rng.uniform(-1.5, 2.0)),
        slant=float(rng.normal(0, 0.5)),
        asymmetry=float(rng.normal(0, 0.1)),
        opening=float(rng.uniform(16.0, 24.0)),
        teeth_y=float(rng.uniform(0.3, 3.0)),
        teeth_width=float(rng.uniform(0.7, 0.9)),
        tongue_rise=float(rng.uniform(0.0, 0.3)),
        moustache=float(rng.uniform(4.0, 9.0)) if moustached else 0.0,
    )


_SKIN_TONES = np.array(
    [(205, 218, 243), (170, 196, 232), (140, 172, 216), (105, 140, 190), (70, 100, 150), (42, 62, 100)]
)
_HAIR_COLOURS = np.array(
    [(25, 28, 32), (35, 50, 75), (60, 90, 130), (40, 60, 130), (110, 160, 200), (150, 150, 155)]
)


def random_palette(rng: np.random.Generator) -> Palette:
    """Return random colours; lips and hair depend on the skin."""
    tone = rng.uniform(0, len(_SKIN_TONES) - 1.001)
    low = int(tone)
    skin = _SKIN_TONES[low] + (tone - low) * (_SKIN_TONES[low + 1] - _SKIN_TONES[low]) + rng.normal(0, 5, 3)
    # Lips: the skin with less blue and green; with lipstick further away from it.
    redness = rng.uniform(0.25, 0.75)
    lip = skin * (1 - redness * np.array([0.42, 0.48, 0.12])) * rng.uniform(0.85, 1.02)
    teeth = np.array([205, 225, 235]) * rng.uniform(0.75, 1.04)
    tongue = np.array([95, 95, 185]) * rng.uniform(0.65, 1.15)
    # Darker skin excludes the fair hair colours; grey, the last, is always possible.
    fair = max(2, round(len(_HAIR_COLOURS) - 1 - tone))
    hair = _HAIR_COLOURS[-1 if rng.random() < 0.15 else int(rng.integers(fair))] * rng.uniform(0.7, 1.2)
    cavity = rng.uniform(8, 40)

    def colour(values: NDArray[np.floating]) -> Colour:
        b, g, r = np.clip(values, 0, 255)
        return float(b), float(g), float(r)

    return Palette(
        skin=colour(skin),
        upper_lip=colour(lip * rng.uniform(0.78, 0.95)),
        lower_lip=colour(lip),
        lip_highlight=colour(lip + (255 - lip) * rng.uniform(0.02, 0.3)),
        seam=colour(lip * rng.uniform(0.4, 0.62)),
        cavity=colour(np.array([0.9, 0.9, 1.5]) * cavity),
        tongue=colour(tongue * 0.8),
        tongue_tip=colour(tongue * 1.08),
        lower_teeth=colour(teeth * rng.uniform(0.68, 0.85)),
        upper_teeth=colour(teeth),
        upper_teeth_side=colour(teeth * rng.uniform(0.62, 0.85)),
        moustache=colour(0.55 * hair + 0.45 * skin),
        hair=colour(hair),
        iris=colour(rng.uniform(25, 140, 3)),
        clothes=colour(0.5 * rng.uniform(20, 220, 3) + 0.5 * rng.uniform(30, 190)),
        backdrop=colour(np.full(3, rng.uniform(30, 235)) + rng.normal(0, 25, 3)),
    )


def head_landmarks(face_shape: FaceShape) -> Float32Array:
    """Return the 68 landmarks at rest, without the mouth, in head coordinates: [68, 2]."""
    points = mean_face() - mean_face()[33]
    points[17:27, 1] -= face_shape.brow_lift
    points[17:27] *= (face_shape.eye_spacing, face_shape.eye_height)
    points[36:48] *= (face_shape.eye_spacing, face_shape.eye_height)
    points[31:36, 0] *= face_shape.nose_width
    below = np.clip(points[:17, 1] / 63.0, 0, 1)
    points[:17, 0] *= face_shape.width + (face_shape.jaw_width - 1.0) * below
    points[:17, 1] *= 1.0 + (face_shape.chin - 1.0) * below
    return np.asarray(points, np.float32)


def face_depth(face_shape: FaceShape, x: NDArray[np.floating], y: NDArray[np.floating]) -> Float32Array:
    """Return the depth of the face's surface, in head units, at head coordinates of any shape."""
    bowl = 9.0 - 45.0 * (x / 60.0) ** 2 - 8.0 * ((y - 5.0) / 60.0) ** 2
    nose = 17.0 * face_shape.nose_depth * np.exp(-((x / 8.0) ** 2) - ((y + 9.0) / 9.0) ** 2)
    ridge = 9.0 * face_shape.nose_depth * np.exp(-((x / 6.0) ** 2) - ((y + 25.0) / 14.0) ** 2)
    return np.asarray(bowl + nose + ridge, np.float32)


def jaw_weight(
    face_shape: FaceShape, mouth: Mouth, x: NDArray[np.floating], y: NDArray[np.floating]
) -> Float32Array:
    """Return the share of the jaw's movement that the skin follows at a position, 0–1."""
    chin_y = 63.0 * face_shape.chin
    down = np.clip((y - mouth.y - 1.0) / (0.75 * (chin_y - mouth.y)), 0, 1)
    past = np.clip((y - chin_y - 2.0) / 22.0, 0, 1)
    aside = np.clip(1.0 - (np.abs(x) / 62.0) ** 3, 0, 1)
    return np.asarray(down**2 * (3 - 2 * down) * (1 - past) * aside, np.float32)


def pixel_grid(box: Box, scale: float) -> tuple[Float32Array, Float32Array]:
    """Return head coordinates of the texture's pixels over `box` (x0, y0, x1, y1): a row of x, a column of y."""
    x0, y0, x1, y1 = box
    x = np.arange(round((x1 - x0) * scale), dtype=np.float32) / np.float32(scale) + np.float32(x0)
    y = np.arange(round((y1 - y0) * scale), dtype=np.float32) / np.float32(scale) + np.float32(y0)
    return x[None, :], y[:, None]


def paint_skin(
    face_shape: FaceShape, mouth: Mouth, palette: Palette, seed: int, box: Box, scale: float
) -> UInt8Array:
    """Paint the face without eyes, brows and mouth, on neck and backdrop: BGR over `box`."""
    x, y = pixel_grid(box, scale)
    image = np.empty((y.shape[0], x.shape[1], 3), np.float32)
    image[:] = palette.backdrop
    neck = rasterize(_neck_outline(face_shape), box, scale, image.shape, 1.5)
    face = rasterize(face_outline(face_shape), box, scale, image.shape, 1.2)
    skin = np.asarray(palette.skin, np.float32)
    image += neck[..., None] * (skin * 0.62 - image)
    lit = skin * skin_shading(face_shape, mouth, x, y)[..., None]
    lit += _beard_and_freckles(face_shape, mouth, palette, seed, x, y, lit)
    image += face[..., None] * (lit - image)
    return np.clip(image, 0, 255).astype(np.uint8)


def face_outline(face_shape: FaceShape) -> Float32Array:
    """Return the closed outline of the face, jaw and forehead: [N, 2]."""
    jaw = head_landmarks(face_shape)[:17]
    angles = np.linspace(0, np.pi, 15)[1:-1]
    half = (jaw[16, 0] - jaw[0, 0]) / 2
    middle = (jaw[16, 0] + jaw[0, 0]) / 2
    forehead = np.stack([middle + half * np.cos(angles), jaw[0, 1] - 62.0 * np.sin(angles)], axis=1)
    return np.concatenate([jaw, forehead]).astype(np.float32)


def _neck_outline(face_shape: FaceShape) -> Float32Array:
    half = 36.0 * face_shape.jaw_width
    return np.array([(-half, 20), (half, 20), (half * 1.05, 160), (-half * 1.05, 160)], np.float32)


def rasterize(
    outline: Float32Array, box: Box, scale: float, shape: tuple[int, ...], edge_width: float
) -> Float32Array:
    """Rasterize an outline: coverage 0–1 with a soft edge of `edge_width` head units."""
    mask = np.zeros(shape[:2], np.uint8)
    points = np.round((outline - np.array(box[:2], np.float32)) * scale * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), edge_width * scale), np.float32) / 255.0


def skin_shading(face_shape: FaceShape, mouth: Mouth, x: Float32Array, y: Float32Array) -> Float32Array:
    """Return the light on the skin, about 1: a sum of Gaussian blobs."""
    chin_y = 63.0 * face_shape.chin
    nose_w = face_shape.nose_width
    shade = 1.04 - 0.30 * np.abs(x / 66.0) ** 3 - 0.10 * np.clip((y - 30) / 60.0, 0, 1) ** 2 + 0.0 * y

    def blob(at_x: float, at_y: float, size_x: float, size_y: float, amount: float) -> None:
        nonlocal shade
        across = np.exp(-(((x - at_x) / size_x) ** 2))
        shade = shade + amount * np.exp(-(((y - at_y) / size_y) ** 2)) * across

    for side in (-1.0, 1.0):
        blob(side * 31, -2, 13, 11, 0.07 * face_shape.cheeks)
        blob(side * 7.5 * nose_w, -14, 3.5, 16, -0.16)
        blob(side * 10 * nose_w, -4, 2.2, 4, -0.14)
        blob(side * 4.6 * nose_w, -1.6, 2.5, 1.3, -0.55)
        blob(side * 33, -42, 13, 7, -0.14)
        blob(side * (mouth.half_width + 5), mouth.y, 3.5, 7, -0.07 - 0.1 * face_shape.folds)
        for step in range(6):
            blob(side * (13 * nose_w + 2.4 * step), -1 + 3.4 * step, 2.4, 3.2, -0.08 * face_shape.folds)
        blob(side * 3.2, mouth.y - mouth.upper_lip - 5, 1.6, 4.5, 0.05)
    blob(0, -22, 3.2, 20, 0.12)
    blob(0, -8.5, 4.5 * nose_w, 4, 0.14)
    blob(0, 2.0, 9 * nose_w, 2.2, -0.20)
    blob(0, mouth.y - mouth.upper_lip - 5, 1.8, 4.5, -0.07)
    blob(0, mouth.y + mouth.lower_lip + 4.0, 12, 3.0, -0.17)
    blob(0, chin_y - 13, 11, 7, 0.09)
    blob(0, chin_y + 1, 30, 5, -0.16)
    return np.asarray(np.clip(shade, 0.12, 1.4), np.float32)


def _beard_and_freckles(
    face_shape: FaceShape,
    mouth: Mouth,
    palette: Palette,
    seed: int,
    x: Float32Array,
    y: Float32Array,
    lit: Float32Array,
) -> Float32Array:
    """Return what beard and freckles add to the lit skin."""
    rng = np.random.default_rng(seed)
    grain = rng.standard_normal((y.shape[0], x.shape[1]), dtype=np.float32)
    coarse = np.asarray(cv2.GaussianBlur(grain, (0, 0), 1.6), np.float32)
    added = (3.0 * face_shape.freckles * coarse)[..., None] + np.zeros(3, np.float32)
    if face_shape.beard > 0:
        # From the sideburns to the corners of the mouth, and below the lower lip.
        reach = (0.0, 0.5 * mouth.half_width, mouth.half_width + 4.0, 48.0, 60.0)
        lip_y = mouth.y + mouth.lower_lip
        edge = np.interp(np.abs(x), reach, (lip_y + 3.5, lip_y + 5.0, mouth.y - 4.0, mouth.y - 16.0, -22.0))
        cover = np.clip((y - edge + 3.0) / 7.0, 0, 1) * face_shape.beard * (0.85 + 0.18 * grain)
        added = added + np.clip(cover, 0, 1)[..., None] * (
            0.7 * np.asarray(palette.hair, np.float32) - 0.7 * lit
        )
    return np.asarray(added, np.float32)
