"""Random variations of utterances: crops of any kind, and recordings of few speakers in few places."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import (
    FRAME_RATE_HZ,
    GREY_MEAN,
    GREY_STD,
    MODEL_INPUT_SIZE_PX,
    SAMPLES_PER_FRAME,
)
from gorggle_training.camera_simulation import CameraEffects
from gorggle_training.speech_synthesis import TimedWord
from gorggle_training.utterances import SPAN_SHARE, Utterance

# Alignment errors of crops, per clip, and jitter per frame.
MAX_SHIFT_PX, MAX_SCALING, MAX_ROTATION_DEG, JITTER_PX = 4.0, 0.08, 5.0, 0.4
MAX_FROZEN_FRAMES = 4
PIXEL_NOISE_SHARE = 0.25  # in addition to the simulated camera's noise

# Recordings: silence kept around the words, change of speed, and the shape, skin and light of the face.
MAX_EDGE_S = 0.7
MAX_SPEED_CHANGE = 1.15
MAX_WARP_PX, WARP_POINTS = 3.0, 4  # of a grid of 4 x 4 points over the crop
MAX_TEXTURE, MIN_TEXTURE_PX, MAX_TEXTURE_PX = 0.2, 2.0, 24.0
CAMERA_SHARE = 0.7
MAX_TILT_DB = 8.0  # of a microphone's frequency response
MEAN_MASKS, MAX_MASKED_FRAMES = 0.7, 6  # per utterance, for video and audio each

UInt8Array = NDArray[np.uint8]


def augment_recording(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """Vary a recorded utterance: its words, speed, face, camera and microphone; mask short parts of it."""
    if utterance.has_word_times:
        utterance = cut_words(utterance, rng)
    utterance = change_speed(utterance, math.exp(rng.uniform(-1, 1) * math.log(MAX_SPEED_CHANGE)))
    crops = change_texture(warp_faces(utterance.crops, rng), rng)
    if rng.random() < CAMERA_SHARE:
        crops = CameraEffects.random(rng).apply(crops, rng)
    waveform = change_frequency_response(utterance.waveform, rng)
    for first, end in _draw_masks(utterance.frames, rng):
        crops[first:end] = crops.mean(axis=0).astype(np.uint8)
    for first, end in _draw_masks(utterance.frames, rng):
        waveform[first * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME] = 0
    return replace(utterance, crops=crops, waveform=waveform)


def cut_words(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """Cut random silence from both sides and sometimes words, as endpointing does."""
    words = utterance.words
    first, end = 0, len(words)
    if rng.random() < SPAN_SHARE:
        length = int(rng.integers(1, len(words) + 1))
        first = int(rng.integers(0, len(words) - length + 1))
        end = first + length
    earliest_s = words[first - 1].end_s if first else 0.0
    latest_s = words[end].start_s if end < len(words) else utterance.frames / FRAME_RATE_HZ
    start_s = max(earliest_s, words[first].start_s - rng.uniform(0, MAX_EDGE_S))
    end_s = min(latest_s, words[end - 1].end_s + rng.uniform(0, MAX_EDGE_S))
    begin = min(round(start_s * FRAME_RATE_HZ), utterance.frames - 1)
    stop = max(begin + 1, min(round(end_s * FRAME_RATE_HZ), utterance.frames))
    return Utterance(
        utterance.crops[begin:stop],
        utterance.waveform[begin * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME],
        utterance.motion[begin:stop],
        _shift_words(words[first:end], -begin / FRAME_RATE_HZ),
    )


def change_speed(utterance: Utterance, duration_ratio: float) -> Utterance:
    """Play an utterance faster or slower; the pitch changes too."""
    frames = max(1, round(utterance.frames * duration_ratio))
    sources = np.minimum(
        ((np.arange(frames) + 0.5) * utterance.frames / frames).astype(int), utterance.frames - 1
    )
    samples = np.arange(frames * SAMPLES_PER_FRAME) * (utterance.frames / frames)
    waveform = np.interp(samples, np.arange(len(utterance.waveform)), utterance.waveform)
    ratio = frames / utterance.frames
    words = tuple(
        replace(word, start_s=word.start_s * ratio, end_s=word.end_s * ratio) for word in utterance.words
    )
    return Utterance(utterance.crops[sources], waveform.astype(np.int16), utterance.motion[sources], words)


def warp_faces(crops: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Distort all frames by one smooth random displacement, which gives lips and chin another shape."""
    size = crops.shape[1]
    coarse = rng.normal(0, rng.uniform(0, MAX_WARP_PX) / 2, (WARP_POINTS, WARP_POINTS, 2)).astype(np.float32)
    displacement = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    map_x, map_y = columns + displacement[..., 0], rows + displacement[..., 1]
    warped = np.empty_like(crops)
    for frame, crop in enumerate(crops):
        cv2.remap(crop, map_x, map_y, cv2.INTER_LINEAR, dst=warped[frame], borderMode=cv2.BORDER_REPLICATE)
    return warped


def change_texture(crops: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Multiply all frames by one random pattern, such as of skin, beard or shadow."""
    size = crops.shape[1]
    sigma = MIN_TEXTURE_PX * (MAX_TEXTURE_PX / MIN_TEXTURE_PX) ** rng.random()
    pattern = np.asarray(cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), sigma), np.float32)
    gains = 1 + pattern * np.float32(rng.uniform(0, MAX_TEXTURE) / pattern.std())
    return np.stack([cv2.multiply(crop, gains, dtype=cv2.CV_8U) for crop in crops])


def change_frequency_response(waveform: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
    """Filter the audio by a smooth random frequency response, as of another microphone or room."""
    spectrum = np.fft.rfft(waveform)
    gains_db = np.interp(
        np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 6), rng.normal(0, MAX_TILT_DB / 2, 6)
    )
    filtered = np.fft.irfft(spectrum * 10 ** (gains_db / 20), len(waveform))
    return np.clip(filtered, -32_768, 32_767).astype(np.int16)


def augment_crops(crops: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Augment crops: shift, rotate, scale, mirror, brightness, contrast, noise; returns (T, 88, 88)."""
    size, margin = crops.shape[1], (crops.shape[1] - MODEL_INPUT_SIZE_PX) / 2
    angle = rng.uniform(-MAX_ROTATION_DEG, MAX_ROTATION_DEG)
    scale = rng.uniform(1 - MAX_SCALING, 1 + MAX_SCALING)
    transform = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    transform[:, 2] += rng.uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX, 2) - margin
    if rng.random() < 0.5:
        transform = np.array([[-1, 0, MODEL_INPUT_SIZE_PX - 1], [0, 1, 0]]) @ np.vstack(
            [transform, [0, 0, 1]]
        )
    jitter = rng.normal(0, JITTER_PX, (len(crops), 2)) * rng.random()
    augmented = np.empty((len(crops), MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX), np.float32)
    for frame, crop in enumerate(crops):
        transform_now = transform.copy()
        transform_now[:, 2] += jitter[frame]
        augmented[frame] = cv2.warpAffine(
            crop, transform_now, (MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX), borderMode=cv2.BORDER_REPLICATE
        )
    contrast, brightness = rng.uniform(0.7, 1.3), rng.uniform(-0.5, 0.5)
    augmented *= np.float32(contrast / 255 / GREY_STD)
    augmented += np.float32(brightness - contrast * GREY_MEAN / GREY_STD)
    if rng.random() < PIXEL_NOISE_SHARE:
        augmented += np.float32(rng.uniform(0, 0.2)) * rng.standard_normal(augmented.shape, dtype=np.float32)
    return _freeze_frames(augmented, rng)


def _freeze_frames(video: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Sometimes repeat a frame for a moment, like a camera that drops frames."""
    if rng.random() < 0.2 and len(video) > MAX_FROZEN_FRAMES:
        length = int(rng.integers(1, MAX_FROZEN_FRAMES))
        first = int(rng.integers(1, len(video) - length))
        video[first : first + length] = video[first - 1]
    return video


def _draw_masks(frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return random spans of frames, first and end."""
    firsts = rng.integers(0, frames, int(rng.poisson(MEAN_MASKS)))
    return [(int(first), int(first + rng.integers(1, MAX_MASKED_FRAMES + 1))) for first in firsts]


def _shift_words(words: tuple[TimedWord, ...], shift_s: float) -> tuple[TimedWord, ...]:
    return tuple(replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s) for word in words)
