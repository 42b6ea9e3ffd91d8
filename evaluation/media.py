"""A clip's sound, and the same clip with other sound: read and written with FFmpeg, in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from gorggle_evaluation.noise import SAMPLE_RATE_HZ, Int16Array

# Timestamps jitter by their rounding; what is further off than a frame of video is a gap.
MAX_JITTER_S = 0.04
# A longer gap is a broken timestamp, and nothing to fill with silence.
MAX_GAP_S = 60.0
PCM_FRAME_SAMPLES = SAMPLE_RATE_HZ // 25


class MediaError(Exception):
    """A clip cannot be used; the message says why."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A clip's sound, mono at 16 kHz.

    Attributes:
        waveform: int16 (S,).
        start_s: when its first sample is heard, on the file's own clock.
    """

    waveform: Int16Array
    start_s: float


@dataclass(frozen=True, eq=False)
class MixedClip:
    """A clip with other sound.

    Attributes:
        content: a Matroska file.
        offset_s: how much it shows before the moment at which the clip it was made of begins.
    """

    content: bytes
    offset_s: float


def read_audio(path: Path, max_duration_s: float | None = None) -> Audio:
    """Decode a clip's first sound stream; gaps become silence, so that it stays in step with the pictures.

    Args:
        path: of the clip.
        max_duration_s: how much of it, from its start; default: all.

    Raises:
        MediaError: it cannot be decoded, or has no sound.
    """
    pieces: list[Int16Array] = []
    samples, start_s = 0, 0.0
    most = None if max_duration_s is None else round(max_duration_s * SAMPLE_RATE_HZ)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no sound")
            for time_s, piece in _decode_audio(container):
                if not pieces and time_s is not None:
                    start_s = time_s
                gap_s = 0.0 if time_s is None else time_s - start_s - samples / SAMPLE_RATE_HZ
                if MAX_JITTER_S < gap_s < MAX_GAP_S:
                    pieces.append(np.zeros(round(gap_s * SAMPLE_RATE_HZ), np.int16))
                    samples += len(pieces[-1])
                pieces.append(piece)
                samples += len(piece)
                if most is not None and samples >= most:
                    break
    except (FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be decoded: {error.strerror or error}") from error
    if not samples:
        raise MediaError(f"{path} has no sound")
    return Audio(np.concatenate(pieces)[:most], start_s)


def replace_audio(path: Path, audio: Audio) -> MixedClip:
    """The clip's video packets as they are, with other sound as PCM beside them, in Matroska.

    A clip that was cut without encoding it anew holds pictures before its start that are needed and not shown.
    Matroska cannot hide them, nor put them before zero: they are shown, and all the rest comes later.

    Raises:
        MediaError: the pictures cannot be put into Matroska.
    """
    made = io.BytesIO()
    try:
        with av.open(str(path), metadata_errors="ignore") as given:
            stream = _find_video_stream(given)
            packets = [] if stream is None else _demux_packets(given, stream)
            earliest_s = min([audio.start_s, *map(_pts_s, packets)])
            starts_s = min([audio.start_s, *(_pts_s(packet) for packet in packets if not packet.is_discard)])
            # Left to itself the muxer would move everything so that decoding, not showing, begins at zero.
            # And it would write a number drawn by lot into every file.
            options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
            with av.open(made, "w", format="matroska", options=options) as target:
                pictures = target.add_stream_from_template(stream) if stream is not None else None
                _mux(target, pictures, packets, audio, max(0.0, -earliest_s))
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"the pictures of {path} cannot be written beside other sound: {reason}") from error
    return MixedClip(made.getvalue(), starts_s - earliest_s)


def _mux(target: Any, pictures: Any, packets: list[Any], sound: Audio, delay_s: float) -> None:
    heard = target.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
    frames = _to_audio_frames(Audio(sound.waveform, sound.start_s + delay_s))
    frame = next(frames, None)
    for packet in packets:
        delay = round(delay_s / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts + delay, packet.dts + delay, pictures
        # Sound goes before the pictures that are shown later: what is read as it comes must not wait for its end.
        while frame is not None and _frame_start_s(frame) <= float(packet.dts * packet.time_base):
            target.mux(heard.encode(frame))
            frame = next(frames, None)
        target.mux(packet)
    while frame is not None:
        target.mux(heard.encode(frame))
        frame = next(frames, None)
    target.mux(heard.encode(None))


def _find_video_stream(container: Any) -> Any:
    """The first video stream that is no cover of a record; None where there is none."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(moving, None)


def _demux_packets(container: Any, stream: Any) -> list[Any]:
    packets = [packet for packet in container.demux(stream) if packet.size]
    if any(packet.pts is None or packet.dts is None for packet in packets):
        raise ValueError(
            "they have no timestamps; write the file anew (ffmpeg -i FILE NEW.mp4) and measure that"
        )
    return packets


def _pts_s(packet: Any) -> float:
    return float(packet.pts * packet.time_base)


def _frame_start_s(frame: av.AudioFrame) -> float:
    assert frame.pts is not None, "_sound_frames sets it"
    return frame.pts / SAMPLE_RATE_HZ


def _to_audio_frames(audio: Audio) -> Iterator[av.AudioFrame]:
    start = round(audio.start_s * SAMPLE_RATE_HZ)
    for first in range(0, len(audio.waveform), PCM_FRAME_SAMPLES):
        piece = audio.waveform[None, first : first + PCM_FRAME_SAMPLES]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = start + first
        yield frame


def _decode_audio(container: Any) -> Iterator[tuple[float | None, Int16Array]]:
    """Sound as decoded, at 16 kHz, and when it is heard where that is known; damaged packets are left out."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    sound_format: tuple[str, str, int] | None = None
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        for frame in frames:
            found = (frame.format.name, frame.layout.name, frame.sample_rate)
            if found != sound_format:
                resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
                sound_format = found
            time_s = frame.time
            frame.pts = None  # gaps are filled here, not by the resampler
            for piece in filter(None, resampler.resample(frame)):
                yield time_s, _to_samples(piece)
                time_s = None
    if sound_format is not None:
        for piece in filter(None, resampler.resample(None)):
            yield None, _to_samples(piece)


def _to_samples(frame: av.AudioFrame) -> Int16Array:
    samples: Int16Array = frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)
    return samples
