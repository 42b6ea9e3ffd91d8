"""Looking into a video once, from its beginning to its end: what it holds, its sound, where it can be cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import av

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media.container import find_audio_stream, find_video_stream, get_start_s, open_media
from gorggle_lambdas.media.wav_writer import SAMPLE_RATE_HZ, WaveformWriter

MAX_STREAMS = 64
# A file of which less can be decoded than this is no video with a fault but a fault.
MAX_CORRUPT_SHARE = 0.5


@dataclass
class Probe:
    """What a video holds.

    Attributes:
        duration_s: from its first picture or sound to its last.
        container: FFmpeg's name of the format.
        width_px, height_px: of the upright picture; 0 where there is none.
        rotation_degrees: clockwise, 0, 90, 180 or 270: what a player does to set the picture upright.
        video_codec, audio_codec: empty where there is no such stream.
        keyframes_s: where pictures stand for themselves.
        audio_duration_s: how long the sound is, with the silence that was filled in.
        corrupt_packets: pieces that could not be decoded.
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
    """Look into a video and write its sound.

    Pictures are not decoded, but for the first (it tells the rotation); their packets tell times and key frames.

    Args:
        file: media, as a file that can be sought in.
        wav: where to write the sound: 16 kHz, mono, 16 bits; not written where there is none.
        max_duration_s: a longer video is refused.

    Raises:
        InvalidMediaError: no video, broken, empty, or too long.
    """
    with open_media(file) as container:
        if len(container.streams) > MAX_STREAMS:
            raise InvalidMediaError(
                f"the file has {len(container.streams)} streams; at most {MAX_STREAMS} are read"
            )
        video, audio = find_video_stream(container), find_audio_stream(container)
        if video is None and audio is None:
            raise InvalidMediaError("the file holds neither pictures nor sound that can be decoded")
        found = _describe_streams(container, video, audio)
        if container.duration and container.duration / av.time_base > max_duration_s:
            raise _make_too_long_error(container.duration / av.time_base, max_duration_s)
        zero = get_start_s(container)
        if audio is None:
            _scan_packets(container, video, None, None, found, zero, max_duration_s)
        else:
            with WaveformWriter(wav, zero) as waveform:
                _scan_packets(container, video, audio, waveform, found, zero, max_duration_s)
                waveform.flush()
                found.audio_duration_s = waveform.samples / SAMPLE_RATE_HZ
    failure = getattr(file, "failure", None)
    if failure is not None:
        raise failure
    found.duration_s = round(max(found.duration_s, found.audio_duration_s), 3)
    if found.duration_s <= 0:
        raise InvalidMediaError("the file holds no picture and no sound: it is empty or was cut off")
    if audio is not None and found.audio_duration_s == 0:
        found.audio_codec = ""
    return found


def _describe_streams(container: Any, video: Any, audio: Any) -> Probe:
    found = Probe(container=container.format.name)
    if video is not None:
        rate = video.average_rate or video.guessed_rate
        found.video_codec = video.codec_context.codec.canonical_name
        found.width_px, found.height_px = video.codec_context.width, video.codec_context.height
        found.frame_rate_hz = round(float(rate), 3) if rate else 0.0
    if audio is not None:
        found.audio_codec = audio.codec_context.codec.canonical_name
    return found


def _scan_packets(
    container: Any,
    video: Any,
    audio: Any,
    waveform: WaveformWriter | None,
    found: Probe,
    zero: float,
    max_s: float,
) -> None:
    packets = 0
    is_upright = video is None
    for packet in container.demux(*(stream for stream in (video, audio) if stream is not None)):
        if packet.size:
            packets += 1
        shown_at = packet.dts if packet.pts is None else packet.pts
        if shown_at is not None and packet.time_base is not None:
            start_s = float(shown_at * packet.time_base) - zero
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            found.duration_s = max(found.duration_s, end_s)
            if found.duration_s > max_s:
                raise _make_too_long_error(found.duration_s, max_s)
            if packet.stream is video and packet.is_keyframe:
                found.keyframes_s.append(round(max(0.0, start_s), 3))
        try:
            if packet.stream is audio and waveform is not None:
                for frame in packet.decode():
                    waveform.write(frame)
            elif packet.stream is video and not is_upright:
                is_upright = _apply_rotation(packet.decode(), found)
        except av.FFmpegError:
            found.corrupt_packets += 1
    found.keyframes_s.sort()
    if not packets or found.corrupt_packets > MAX_CORRUPT_SHARE * packets:
        raise InvalidMediaError(
            f"{found.corrupt_packets} of {packets} pieces of the file cannot be decoded: it is damaged"
        )


def _apply_rotation(frames: Any, found: Probe) -> bool:
    for frame in frames:
        found.rotation_degrees = -round(frame.rotation / 90) * 90 % 360
        if found.rotation_degrees in (90, 270):
            found.width_px, found.height_px = found.height_px, found.width_px
        return True
    return False


def _make_too_long_error(duration_s: float, max_duration_s: float) -> InvalidMediaError:
    return InvalidMediaError(
        f"the video lasts {duration_s:.0f} s; the limit is {max_duration_s:.0f} s: cut it before sending"
    )
