"""Probes a video in one pass: streams, duration, key frames, and the decoded audio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import av

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media.container import find_audio_stream, find_video_stream, get_start_s, open_media
from gorggle_lambdas.media.formats import SAMPLE_RATE_HZ
from gorggle_lambdas.media.wav_writer import WaveformWriter

MAX_STREAMS = 64
# A file with a greater fraction of undecodable packets is rejected as damaged.
MAX_CORRUPT_SHARE = 0.5


@dataclass
class Probe:
    """Properties of a video.

    Attributes:
        duration_s: from the first video frame or audio sample to the last.
        container: FFmpeg's name of the format.
        width_px, height_px: of the upright frame; 0 without video.
        rotation_degrees: clockwise, 0, 90, 180 or 270: rotation that makes the frame upright.
        video_codec, audio_codec: empty without such a stream.
        keyframes_s: times of key frames.
        audio_duration_s: duration of the audio, including inserted silence.
        corrupt_packets: packets that could not be decoded.
    """

    duration_s: float = 0.0
    container: str = ""
    width_px: int = 0
    height_px: int = 0
    rotation_degrees: int = 0
    frame_rate_hz: float = 0.0
    video_codec: str = ""
    audio_codec: str = ""
    keyframes_s: list[float] = field(default_factory=list)
    audio_duration_s: float = 0.0
    corrupt_packets: int = 0


def probe(file: IO[bytes] | Any, wav: Path, max_duration_s: float) -> Probe:
    """Probe a video and write its audio.

    Of the video only the first frame is decoded, for its rotation; packets give times and key frames.

    Args:
        file: media, seekable.
        wav: output path of the audio: 16 kHz, mono, 16 bits; not written without audio.
        max_duration_s: a longer video is rejected.

    Raises:
        InvalidMediaError: not a video, damaged, empty, or too long.
    """
    with open_media(file) as container:
        if len(container.streams) > MAX_STREAMS:
            raise InvalidMediaError(
                f"the file has {len(container.streams)} streams; the limit is {MAX_STREAMS}"
            )
        video, audio = find_video_stream(container), find_audio_stream(container)
        if video is None and audio is None:
            raise InvalidMediaError("the file has no video or audio stream that can be decoded")
        probe_result = _describe_streams(container, video, audio)
        if container.duration and container.duration / av.time_base > max_duration_s:
            raise _make_too_long_error(container.duration / av.time_base, max_duration_s)
        media_start_s = get_start_s(container)
        if audio is None:
            _scan_packets(container, video, None, None, probe_result, media_start_s, max_duration_s)
        else:
            with WaveformWriter(wav, media_start_s) as waveform:
                _scan_packets(container, video, audio, waveform, probe_result, media_start_s, max_duration_s)
                waveform.flush()
                probe_result.audio_duration_s = waveform.samples / SAMPLE_RATE_HZ
    probe_result.duration_s = round(max(probe_result.duration_s, probe_result.audio_duration_s), 3)
    if probe_result.duration_s <= 0:
        raise InvalidMediaError("the file has no video frames and no audio: it is empty or truncated")
    if audio is not None and probe_result.audio_duration_s == 0:
        probe_result.audio_codec = ""
    return probe_result


def _describe_streams(container: Any, video: Any, audio: Any) -> Probe:
    probe_result = Probe(container=container.format.name)
    if video is not None:
        rate = video.average_rate or video.guessed_rate
        probe_result.video_codec = video.codec_context.codec.canonical_name
        probe_result.width_px, probe_result.height_px = video.codec_context.width, video.codec_context.height
        probe_result.frame_rate_hz = round(float(rate), 3) if rate else 0.0
    if audio is not None:
        probe_result.audio_codec = audio.codec_context.codec.canonical_name
    return probe_result


def _scan_packets(
    container: Any,
    video: Any,
    audio: Any,
    waveform: WaveformWriter | None,
    probe_result: Probe,
    media_start_s: float,
    max_s: float,
) -> None:
    packets = 0
    has_rotation = video is None
    for packet in container.demux(*(stream for stream in (video, audio) if stream is not None)):
        if packet.size:
            packets += 1
        timestamp = packet.dts if packet.pts is None else packet.pts
        if timestamp is not None and packet.time_base is not None:
            start_s = float(timestamp * packet.time_base) - media_start_s
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            probe_result.duration_s = max(probe_result.duration_s, end_s)
            if probe_result.duration_s > max_s:
                raise _make_too_long_error(probe_result.duration_s, max_s)
            if packet.stream is video and packet.is_keyframe:
                probe_result.keyframes_s.append(round(max(0.0, start_s), 3))
        try:
            if packet.stream is audio and waveform is not None:
                for frame in packet.decode():
                    waveform.write(frame)
            elif packet.stream is video and not has_rotation:
                has_rotation = _apply_rotation(packet.decode(), probe_result)
        except av.FFmpegError:
            probe_result.corrupt_packets += 1
    probe_result.keyframes_s.sort()
    if not packets or probe_result.corrupt_packets > MAX_CORRUPT_SHARE * packets:
        raise InvalidMediaError(
            f"{probe_result.corrupt_packets} of {packets} packets of the file cannot be decoded: it is damaged"
        )


def _apply_rotation(frames: Any, probe_result: Probe) -> bool:
    for frame in frames:
        probe_result.rotation_degrees = -round(frame.rotation / 90) * 90 % 360
        if probe_result.rotation_degrees in (90, 270):
            probe_result.width_px, probe_result.height_px = probe_result.height_px, probe_result.width_px
        return True
    return False


def _make_too_long_error(duration_s: float, max_duration_s: float) -> InvalidMediaError:
    return InvalidMediaError(
        f"the video lasts {duration_s:.0f} s; the limit is {max_duration_s:.0f} s: cut it before sending"
    )
