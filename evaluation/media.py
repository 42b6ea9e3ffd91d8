"""Decodes a clip's audio and replaces it, in memory (PyAV)."""

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

from gorggle.arrays import SAMPLE_RATE_HZ
from gorggle_evaluation.noise import Int16Array

# Timestamps jitter by rounding; a larger distance than a video frame is a gap.
MAX_JITTER_S = 0.04
# A longer gap is a broken timestamp and is not filled with silence.
MAX_GAP_S = 60.0
PCM_FRAME_SAMPLES = SAMPLE_RATE_HZ // 25


class MediaError(Exception):
    """A clip cannot be used; the message gives the reason."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A clip's audio, mono at 16 kHz.

    Attributes:
        waveform: int16 (S,).
        start_s: presentation time of the first sample.
    """

    waveform: Int16Array
    start_s: float


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip to send: a file, or the bytes of one.

    Attributes:
        offset_s: delay of all content relative to the manifest's timestamps.
    """

    source: Path | bytes
    offset_s: float = 0.0


def read_audio(path: Path, max_duration_s: float | None = None) -> Audio:
    """Decode a clip's first audio stream; gaps become silence, to stay in sync with the video.

    Args:
        path: media file.
        max_duration_s: duration to decode from the start; default: all.

    Raises:
        MediaError: it cannot be decoded, or has no audio.
    """
    chunks: list[Int16Array] = []
    samples, start_s = 0, 0.0
    max_samples = None if max_duration_s is None else round(max_duration_s * SAMPLE_RATE_HZ)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no audio")
            for time_s, chunk in _decode_audio(container):
                if not chunks and time_s is not None:
                    start_s = time_s
                gap_s = 0.0 if time_s is None else time_s - start_s - samples / SAMPLE_RATE_HZ
                if MAX_JITTER_S < gap_s < MAX_GAP_S:
                    chunks.append(np.zeros(round(gap_s * SAMPLE_RATE_HZ), np.int16))
                    samples += len(chunks[-1])
                chunks.append(chunk)
                samples += len(chunk)
                if max_samples is not None and samples >= max_samples:
                    break
    except (FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be decoded: {error.strerror or error}") from error
    if not samples:
        raise MediaError(f"{path} has no audio")
    return Audio(np.concatenate(chunks)[:max_samples], start_s)


def replace_audio(path: Path, audio: Audio) -> Clip:
    """Copy the clip's video packets into Matroska with the source audio as PCM.

    A clip that was cut without re-encoding has leading frames that are decoded and not shown. Matroska cannot hide them
    or place them before zero: they are shown, and everything else is delayed.

    Raises:
        MediaError: the video cannot be stored in Matroska.
    """
    buffer = io.BytesIO()
    try:
        with av.open(str(path), metadata_errors="ignore") as source:
            # Cover art is a video stream, too.
            moving = (s for s in source.streams.video if not s.disposition & Disposition.attached_pic)
            stream: Any = next(moving, None)
            packets = [] if stream is None else _demux_packets(source, stream)
            earliest_s = min([audio.start_s, *map(_pts_s, packets)])
            starts_s = min([audio.start_s, *(_pts_s(packet) for packet in packets if not packet.is_discard)])
            # By default the muxer would shift timestamps so that decoding starts at zero, and write a random segment UID.
            options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
            with av.open(buffer, "w", format="matroska", options=options) as target:
                video = target.add_stream_from_template(stream) if stream is not None else None
                _mux(target, video, packets, audio, max(0.0, -earliest_s))
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"cannot write the video of {path} with other audio: {reason}") from error
    return Clip(buffer.getvalue(), starts_s - earliest_s)


def _mux(target: Any, video: Any, packets: list[Any], audio: Audio, delay_s: float) -> None:
    stream = target.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
    frames = _to_audio_frames(Audio(audio.waveform, audio.start_s + delay_s))
    frame = next(frames, None)
    for packet in packets:
        delay = round(delay_s / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts + delay, packet.dts + delay, video
        # Interleaved: audio precedes the video that is shown later, for streaming readers.
        while frame is not None and _frame_start_s(frame) <= float(packet.dts * packet.time_base):
            target.mux(stream.encode(frame))
            frame = next(frames, None)
        target.mux(packet)
    while frame is not None:
        target.mux(stream.encode(frame))
        frame = next(frames, None)
    target.mux(stream.encode(None))


def _demux_packets(container: Any, stream: Any) -> list[Any]:
    packets = [packet for packet in container.demux(stream) if packet.size]
    if any(packet.pts is None for packet in packets):
        raise ValueError(
            "the video has no timestamps; remux the file (ffmpeg -i FILE NEW.mp4) and use the result"
        )
    if any(packet.dts is None for packet in packets):
        _set_decoding_times(packets)
    return packets


def _set_decoding_times(packets: list[Any]) -> None:
    """Set the decoding times of packets in decoding order: increasing, and none after its presentation time.

    Matroska stores presentation times only, and FFmpeg cannot derive all decoding times of reordered frames.
    """
    ordered = sorted(packet.pts for packet in packets)
    delay = max(time - packet.pts for time, packet in zip(ordered, packets, strict=True))
    for time, packet in zip(ordered, packets, strict=True):
        packet.dts = time - delay


def _pts_s(packet: Any) -> float:
    return float(packet.pts * packet.time_base)


def _frame_start_s(frame: av.AudioFrame) -> float:
    assert frame.pts is not None, "_to_audio_frames sets it"
    return frame.pts / SAMPLE_RATE_HZ


def _to_audio_frames(audio: Audio) -> Iterator[av.AudioFrame]:
    start = round(audio.start_s * SAMPLE_RATE_HZ)
    for first in range(0, len(audio.waveform), PCM_FRAME_SAMPLES):
        chunk = audio.waveform[None, first : first + PCM_FRAME_SAMPLES]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = start + first
        yield frame


def _decode_audio(container: Any) -> Iterator[tuple[float | None, Int16Array]]:
    """Yield 16 kHz audio with its presentation time if known; skips damaged packets."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    audio_format: tuple[str, str, int] | None = None
    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except FFmpegError:
            continue
        for frame in frames:
            frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            if frame_format != audio_format:
                resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
                audio_format = frame_format
            time_s = frame.time
            frame.pts = None  # gaps are filled here, not by the resampler
            for chunk in filter(None, resampler.resample(frame)):
                yield time_s, _to_samples(chunk)
                time_s = None
    if audio_format is not None:
        for chunk in filter(None, resampler.resample(None)):
            yield None, _to_samples(chunk)


def _to_samples(frame: av.AudioFrame) -> Int16Array:
    samples: Int16Array = frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)
    return samples
