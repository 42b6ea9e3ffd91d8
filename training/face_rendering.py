"""Renders drawn speakers: mouth crops for training, and whole faces for videos, from the same drawing.

Crops have the geometry of the server's crops: the head is rotated and projected, a similarity transform maps base of
nose and eye corners (mean of 12 frames) to the mean face, and 96 × 96 pixels around the mouth are kept. Bias and jitter
of the landmark detector, measured on whole frames, are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import MOUTH_CROP_SIZE_PX
from gorggle_training import face_appearance, head_rendering
from gorggle_training.camera_simulation import (
    CameraEffects,
    Pose,
    apply_transforms,
    fit_similarities,
    rotation_transforms,
    slow_noise,
)
from gorggle_training.face_appearance import ALIGNMENT_LANDMARKS, Box, FaceShape, Palette
from gorggle_training.mouth_geometry import Layer, Mouth, mouth_landmarks, mouth_layers, mouth_shape
from gorggle_training.visemes import JAW, ArticulationStyle

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

# Frames over which the server averages landmarks before alignment.
_ALIGNMENT_WINDOW_FRAMES = 12
# Effect of dlib's landmarks on crops of whole drawn frames, mean over 24 speakers: shift of the mouth to the right and
# down, and scale.
LANDMARK_BIAS_PX = (0.2, -0.5)
LANDMARK_SCALE = 1.001
_CROP_BOX: Box = (-78.0, -66.0, 78.0, 104.0)
_CROP_TEXTURE_SCALE = 1.0
SUBPIXEL_BITS = 4  # fractional bits of polygon coordinates


@dataclass(frozen=True)
class Speaker:
    """The properties of a person that are constant across clips."""

    seed: int
    face_shape: FaceShape
    mouth: Mouth
    palette: Palette
    style: ArticulationStyle

    @classmethod
    def random(cls, rng: np.random.Generator) -> Speaker:
        """Return a speaker with independent random shape, mouth, colours and articulation."""
        seed = int(rng.integers(2**31))
        face_shape = face_appearance.random_face_shape(rng)
        return cls(
            seed=seed,
            face_shape=face_shape,
            mouth=face_appearance.random_mouth(rng, face_shape.beard),
            palette=face_appearance.random_palette(rng),
            style=ArticulationStyle.random(rng),
        )

    @classmethod
    def from_seed(cls, seed: int) -> Speaker:
        """Return the speaker of a seed, always the same. Seeds from 1,000,000 are reserved for tests."""
        return replace(cls.random(np.random.default_rng(seed)), seed=seed)


def render_crops(speaker: Speaker, motion: Float32Array, rng: np.random.Generator) -> UInt8Array:
    """Render mouth crops as the server would cut them from a video of this speaker.

    Args:
        speaker: speaker to render.
        motion: [T, K] from `visemes.mouth_motion`.
        rng: random pose, light, focus, noise and landmark errors.

    Returns:
        [T, 96, 96], grey.
    """
    capture = CameraEffects.random(rng)
    transforms, pose = _crop_transforms(speaker, motion, rng)
    crops = _draw_crops(speaker, motion, pose, transforms)
    return capture.apply(crops, rng)


def _crop_transforms(
    speaker: Speaker, motion: Float32Array, rng: np.random.Generator
) -> tuple[Float32Array, Pose]:
    """Return transforms from the projected head to crop pixels, [T, 2, 3], and the pose."""
    frames = len(motion)
    pose = Pose.random(frames, rng)
    fixed = face_appearance.head_landmarks(speaker.face_shape)[list(ALIGNMENT_LANDMARKS)]
    seen = pose.project(_add_depth(speaker.face_shape, fixed))
    transforms = fit_similarities(
        _average_ahead(seen), face_appearance.mean_face()[list(ALIGNMENT_LANDMARKS)]
    )
    lips = mouth_landmarks(mouth_shape(speaker.mouth, motion))
    centres = apply_transforms(transforms, pose.project(lips)).mean(axis=1)
    transforms[:, :, 2] += MOUTH_CROP_SIZE_PX / 2 - centres
    return add_landmark_errors(transforms, rng), pose


def _add_depth(face_shape: FaceShape, points: Float32Array) -> Float32Array:
    """Add the face's depth to points [N, 2]: [N, 3]."""
    return np.concatenate(
        [points, face_appearance.face_depth(face_shape, points[:, :1], points[:, 1:])], axis=1
    )


def _average_ahead(points: Float32Array) -> Float32Array:
    """Average each frame's points with the 11 following frames; the last frames reuse the last mean."""
    frames = len(points)
    window = min(_ALIGNMENT_WINDOW_FRAMES, frames)
    sums = np.cumsum(np.concatenate([np.zeros_like(points[:1]), points]), axis=0)
    means = (sums[window:] - sums[:-window]) / window
    return np.asarray(means[np.minimum(np.arange(frames), len(means) - 1)], np.float32)


def add_landmark_errors(transforms: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Add the landmark detector's errors: slowly changing shift, rotation and scale."""
    frames = len(transforms)
    scale = LANDMARK_SCALE + 0.03 * rng.normal() + 0.008 * slow_noise(rng, frames, 1, 12.0)[:, 0]
    angle = np.radians(1.2 * rng.normal() + 0.5 * slow_noise(rng, frames, 1, 12.0)[:, 0])
    held = np.asarray(LANDMARK_BIAS_PX) + rng.normal(0, 1.0, 2)
    tremble = 0.45 * rng.standard_normal((frames, 2)) + 0.4 * slow_noise(rng, frames, 2, 12.0)
    shift = held + tremble
    errors = rotation_transforms(angle, scale, np.full(2, MOUTH_CROP_SIZE_PX / 2, np.float32))
    moved = errors[:, :, :2] @ transforms
    moved[:, :, 2] += errors[:, :, 2] + shift
    return np.asarray(moved, np.float32)


def _draw_crops(speaker: Speaker, motion: Float32Array, pose: Pose, transforms: Float32Array) -> UInt8Array:
    skin = _Skin(speaker, _crop_texture(speaker), _CROP_BOX, _CROP_TEXTURE_SCALE)
    layers = mouth_layers(speaker.mouth, mouth_shape(speaker.mouth, motion))
    outlines = _project_layers(layers, pose, transforms)
    colours = {layer.colour: _luma(getattr(speaker.palette, layer.colour)) for layer in layers}
    crops = np.empty((len(motion), MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX), np.uint8)
    jaw = speaker.mouth.opening * motion[:, JAW] * 0.8
    for index in range(len(motion)):
        crops[index] = skin.render(
            pose.rows[index], float(jaw[index]), transforms[index], (MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)
        )
        draw_layers(crops[index], layers, outlines, colours, index)
    return crops


def draw_layers(
    image: UInt8Array,
    layers: Sequence[Layer],
    outlines: Sequence[NDArray[np.int32]],
    colours: Mapping[str, float | face_appearance.Colour],
    index: int,
) -> None:
    """Draw the visible layers of one frame; outlines are from `to_subpixels`."""
    for layer, points in zip(layers, outlines, strict=True):
        if layer.visible[index]:
            cv2.fillPoly(image, [points[index]], colours[layer.colour], cv2.LINE_AA, SUBPIXEL_BITS)


def to_subpixels(points: Float32Array) -> NDArray[np.int32]:
    """Round points in pixels to sixteenths of a pixel."""
    return np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32, order="C")


def _project_layers(layers: Sequence[Layer], pose: Pose, transforms: Float32Array) -> list[NDArray[np.int32]]:
    """Return the outline of every layer: [T, N, 2]."""
    return [to_subpixels(apply_transforms(transforms, pose.project(layer.points))) for layer in layers]


def _luma(colour: face_appearance.Colour) -> float:
    b, g, r = colour
    return 0.114 * b + 0.587 * g + 0.299 * r


@lru_cache(maxsize=64)
def _crop_texture(speaker: Speaker) -> UInt8Array:
    painted = face_appearance.paint_skin(
        speaker.face_shape, speaker.mouth, speaker.palette, speaker.seed, _CROP_BOX, _CROP_TEXTURE_SCALE
    )
    return np.asarray(cv2.cvtColor(painted, cv2.COLOR_BGR2GRAY), np.uint8)


class _Skin:
    """The skin texture under head rotation and jaw movement."""

    def __init__(self, speaker: Speaker, texture: UInt8Array, box: Box, scale: float) -> None:
        x, y = face_appearance.pixel_grid(box, scale)
        self._texture = texture
        rows, columns = texture.shape[:2]
        self._columns = np.broadcast_to(np.arange(columns, dtype=np.float32), (rows, columns))
        self._rows = np.broadcast_to(np.arange(rows, dtype=np.float32)[:, None], (rows, columns))
        self._depth = face_appearance.face_depth(speaker.face_shape, x, y) * np.float32(scale)
        self._jaw_weight = face_appearance.jaw_weight(speaker.face_shape, speaker.mouth, x, y) * np.float32(
            scale
        )
        self._to_head = np.array([[1 / scale, 0, box[0]], [0, 1 / scale, box[1]], [0, 0, 1]], np.float32)

    def render(
        self,
        rotation: Float32Array,
        jaw: float,
        transform: Float32Array,
        size: tuple[int, int],
        border: int = cv2.BORDER_REPLICATE,
    ) -> UInt8Array:
        """Render an image of `size` (width, height) under `transform` [2, 3] of the projected head."""
        turn = rotation[:, :2]
        slide = np.linalg.solve(turn, rotation[:, 2])
        map_x = cv2.scaleAdd(self._depth, -float(slide[0]), self._columns)
        map_y = cv2.scaleAdd(self._depth, -float(slide[1]), self._rows)
        map_y = cv2.scaleAdd(self._jaw_weight, -jaw, map_y)
        moved = cv2.remap(self._texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        flat = np.concatenate([transform[:, :2] @ turn, transform[:, 2:]], axis=1) @ self._to_head
        image = cv2.warpAffine(moved, flat, size, flags=cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(image, np.uint8)


def render_frames(
    speaker: Speaker,
    motion: Float32Array,
    size: tuple[int, int] = (640, 480),
    rng: np.random.Generator | None = None,
) -> Iterator[UInt8Array]:
    """Render a talking portrait: BGR [H, W, 3] for every frame of `motion`.

    Args:
        speaker: speaker to render.
        motion: [T, K] from `visemes.mouth_motion`.
        size: width and height in pixels.
        rng: random head movement; the speaker's seed by default.
    """
    rng = rng or np.random.default_rng(speaker.seed)
    pose = Pose.random(len(motion), rng, turn_deg=3.0, sway_deg=2.0)
    transforms = _frame_transforms(len(motion), size, rng)
    face_shape, mouth, palette = speaker.face_shape, speaker.mouth, speaker.palette
    scale = float(transforms[0, 0, 0])
    rest = (float(transforms[0, 0, 2]), float(transforms[0, 1, 2]))
    background = head_rendering.paint_background(face_shape, palette, speaker.seed, size, rest, scale)
    texture, cover = head_rendering.paint_head(face_shape, mouth, palette, speaker.seed, scale)
    skin = _Skin(speaker, np.dstack([texture, cover]), head_rendering.HEAD_BOX, scale)
    gaze = 0.5 * slow_noise(rng, len(motion), 2, 40.0)
    layers = head_rendering.eye_layers(face_shape, head_rendering.random_blinks(len(motion), rng), gaze)
    layers += mouth_layers(mouth, mouth_shape(mouth, motion))
    outlines = _project_layers(layers, pose, transforms)
    colours = {**asdict(palette), **head_rendering.derive_head_colours(palette)}
    jaw = mouth.opening * motion[:, JAW] * 0.8
    for index in range(len(motion)):
        head = skin.render(pose.rows[index], float(jaw[index]), transforms[index], size, cv2.BORDER_CONSTANT)
        alpha = head[..., 3:].astype(np.uint16)
        image = ((head[..., :3] * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)
        draw_layers(image, layers, outlines, colours, index)
        yield np.asarray(cv2.GaussianBlur(image, (0, 0), 0.35 * scale), np.uint8)


def _frame_transforms(frames: int, size: tuple[int, int], rng: np.random.Generator) -> Float32Array:
    """Return transforms from the projected head to frame pixels, [T, 2, 3], with slow drift."""
    width, height = size
    scale = 1.72 * min(height / 480, width / 400) * float(rng.uniform(0.93, 1.05))
    rest = np.array([(0.5 + rng.uniform(-0.02, 0.02)) * width, 0.56 * height], np.float32)
    transforms = np.zeros((frames, 2, 3), np.float32)
    transforms[:, 0, 0] = transforms[:, 1, 1] = scale
    transforms[:, :, 2] = rest + 2.2 * scale * slow_noise(rng, frames, 2, 30.0)
    return transforms


def demo_speaker() -> Speaker:
    """Return the speaker of the demo clip."""
    return Speaker(
        seed=2_000_000,
        face_shape=FaceShape(
            width=0.99, jaw_width=0.95, chin=0.97, eye_size=1.12, brow_weight=0.85, nose_width=0.88,
            nose_depth=0.8, cheeks=0.9, folds=0.12, freckles=0.25, hair_length=0.95, hairline=-1.0,
        ),
        mouth=Mouth(y=17.5, half_width=22.0, upper_lip=5.4, lower_lip=7.6, bow=0.22, corner_drop=-0.8, opening=20.0),
        palette=Palette(
            skin=(158.0, 190.0, 231.0), upper_lip=(92.0, 88.0, 178.0), lower_lip=(108.0, 106.0, 204.0),
            lip_highlight=(136.0, 138.0, 222.0), seam=(50.0, 46.0, 96.0), cavity=(20.0, 18.0, 34.0),
            tongue=(80.0, 78.0, 158.0), tongue_tip=(98.0, 96.0, 186.0), lower_teeth=(168.0, 184.0, 192.0),
            upper_teeth=(212.0, 226.0, 234.0), upper_teeth_side=(164.0, 178.0, 188.0),
            moustache=(60.0, 70.0, 90.0), hair=(36.0, 46.0, 74.0), iris=(52.0, 88.0, 112.0),
            clothes=(124.0, 92.0, 44.0), backdrop=(196.0, 190.0, 164.0),
        ),
        style=ArticulationStyle(strength=1.05, timing_jitter_s=0.004, target_jitter=0.04),
    )  # fmt: skip
