"""Simulates head pose, and the camera: light, focus, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Pose:
    """Head rotation over time: the first two rows of the rotation matrix, [T, 2, 3]."""

    rows: Float32Array

    @classmethod
    def random(
        cls, frames: int, rng: np.random.Generator, turn_deg: float = 6.0, sway_deg: float = 2.5
    ) -> Pose:
        """Return a pose around a random mean angle (standard deviation `turn_deg`) with slow sway."""
        held = rng.normal(0.0, turn_deg, 3) * (1.0, 0.7, 0.6)
        swayed = slow_noise(rng, frames, 3, period_frames=18.0) * (sway_deg, sway_deg, 0.7 * sway_deg)
        yaw, pitch, roll = np.radians(np.clip(held, -16, 16) + swayed).T
        return cls(rotation_rows(yaw, pitch, roll))

    def project(self, points: Float32Array) -> Float32Array:
        """Project head points [N, 3] or [T, N, 3] orthographically: [T, N, 2]."""
        return np.asarray(points @ self.rows.transpose(0, 2, 1), np.float32)


def rotation_rows(
    yaw: NDArray[np.floating], pitch: NDArray[np.floating], roll: NDArray[np.floating]
) -> Float32Array:
    """Return the first two rows of roll · pitch · yaw, radians: [T, 2, 3]."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    first = np.stack([cy, np.zeros_like(cy), sy], -1)
    second = np.stack([sp * sy, cp, -sp * cy], -1)
    rows = [cr[:, None] * first - sr[:, None] * second, sr[:, None] * first + cr[:, None] * second]
    return np.stack(rows, axis=1).astype(np.float32)


def slow_noise(rng: np.random.Generator, frames: int, columns: int, period_frames: float) -> Float32Array:
    """Return independent smooth noise of unit variance: [frames, columns]."""
    sigma = period_frames / 3.0
    margin = int(3 * sigma) + 1
    white = rng.standard_normal((frames + 2 * margin, columns)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(white, (1, 0), sigmaX=0, sigmaY=sigma), np.float32)
    smooth = smooth.reshape(frames + 2 * margin, columns)
    # White noise under a Gaussian window keeps 1 / (2 √π σ) of its variance.
    return smooth[margin : margin + frames] * np.float32(np.sqrt(2.0 * np.sqrt(np.pi) * sigma))


def fit_similarities(source: Float32Array, target: Float32Array) -> Float32Array:
    """Fit least-squares similarity transforms [T, 2, 3] from `source` [T, N, 2] to `target` [N, 2]."""
    source_mean, target_mean = source.mean(axis=1, keepdims=True), target.mean(axis=0)
    s, t = source - source_mean, target - target_mean
    norm = np.sum(s**2, axis=(1, 2))
    a = np.sum(s * t, axis=(1, 2)) / norm
    b = np.sum(s[..., 0] * t[:, 1] - s[..., 1] * t[:, 0], axis=1) / norm
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], axis=1)
    shift = target_mean - np.einsum("tij,tj->ti", linear, source_mean[:, 0])
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


def apply_transforms(transforms: Float32Array, points: Float32Array) -> Float32Array:
    """Apply affine transforms [T, 2, 3] to points [T, N, 2]."""
    return np.asarray(
        points @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2], np.float32
    )


def rotation_transforms(
    angles: NDArray[np.floating], scales: NDArray[np.floating], center: Float32Array
) -> Float32Array:
    """Return rotations (radians) with scaling about a point, [T, 2, 3]."""
    c, s = scales * np.cos(angles), scales * np.sin(angles)
    linear = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=1)
    shift = center - linear @ center
    return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


@dataclass(frozen=True)
class CameraEffects:
    """Camera properties of one recording: light, focus, noise and compression."""

    gain: float
    offset: float
    gamma: float
    slope_x: float
    slope_y: float
    blur_px: float
    lines: int
    noise: float
    flicker: float
    jpeg_quality: int | None

    @classmethod
    def random(cls, rng: np.random.Generator) -> CameraEffects:
        """Return properties between those of a studio and of a small, noisy, compressed video."""
        return cls(
            gain=float(rng.uniform(0.65, 1.25)),
            offset=float(rng.normal(0, 10)),
            gamma=float(np.exp(rng.normal(0, 0.18))),
            slope_x=float(rng.normal(0, 0.16)),
            slope_y=float(rng.normal(0, 0.1)),
            blur_px=float(rng.uniform(0.3, 1.3)),
            # A small or distant face has a lower resolution.
            lines=int(rng.integers(48, 97)) if rng.random() < 0.35 else 96,
            noise=float(rng.uniform(0.3, 5.0)),
            flicker=float(rng.uniform(0.0, 0.015)),
            jpeg_quality=int(rng.integers(35, 95)) if rng.random() < 0.3 else None,
        )

    def apply(self, frames: UInt8Array, rng: np.random.Generator) -> UInt8Array:
        """Apply the camera to grey frames, [T, H, W]."""
        count, height, width = frames.shape
        x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
        light = np.asarray(
            self.gain * (1.0 + self.slope_x * x[None, :] + self.slope_y * y[:, None]), np.float32
        )
        curve = np.asarray(255.0 * (np.arange(256) / 255.0) ** self.gamma, np.float32)
        noise = _make_noise_frames(rng, height, width, self.noise)
        flicker = 1.0 + self.flicker * rng.standard_normal((count,), dtype=np.float32)
        recorded = np.empty_like(frames)
        order = rng.integers(0, len(noise), (count,))
        rolls = rng.integers(0, height, (count,))
        for index in range(count):
            # cv2.multiply is twice as fast as NumPy.
            lit = np.asarray(cv2.multiply(cv2.LUT(frames[index], curve), light * flicker[index]), np.float32)
            image = self._defocus(lit)
            image += self.offset + np.roll(noise[order[index]], int(rolls[index]), axis=0)
            recorded[index] = self._compress(np.clip(image, 0, 255).astype(np.uint8))
        return recorded

    def _defocus(self, image: Float32Array) -> Float32Array:
        height, width = image.shape
        if self.lines < height:
            small = cv2.resize(image, (self.lines, self.lines), interpolation=cv2.INTER_AREA)
            image = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur_px), np.float32)

    def _compress(self, image: UInt8Array) -> UInt8Array:
        if self.jpeg_quality is None:
            return image
        _, coded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality))
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)


def _make_noise_frames(rng: np.random.Generator, height: int, width: int, size: float) -> Float32Array:
    """Return a dozen noise frames; a clip uses them in random order with random shifts."""
    return rng.standard_normal((12, height, width), dtype=np.float32) * np.float32(size)
