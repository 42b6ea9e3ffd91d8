"""Renders clips with ground truth: synthetic speakers who say sentences, written as video files.

``python -m training.clips demo --out examples/demo.mp4`` renders the demo clip and its ground truth as JSON;
``two-speakers`` and ``photo`` render the other clips that tests and documentation use.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from training.face_rendering import Speaker, demo_speaker, render_frames
from training.photo_animation import Photograph, render_photo_frames
from training.sentences import DEMO_SENTENCES, DEMO_SPEAKER_SEED
from training.speech_synthesis import (
    SAMPLE_RATE_HZ,
    Speech,
    TimedPhoneme,
    TimedWord,
    Voice,
    pad_speech,
    synthesize,
)
from training.visemes import FRAME_RATE_HZ, ArticulationStyle, mouth_motion

Int16Array = NDArray[np.int16]
UInt8Array = NDArray[np.uint8]

DEMO_VOICE = Voice(language="en", variant="f2", rate_wpm=100, pitch=52, pitch_range=55, volume=80)
_SECOND_VOICE = Voice(language="en-us", variant="m3", rate_wpm=112, pitch=42, pitch_range=50, volume=80)


@dataclass(frozen=True)
class TimedSentence:
    """A sentence and its words, timed from the clip's start."""

    text: str
    speaker: int
    start_s: float
    end_s: float
    words: tuple[TimedWord, ...]


@dataclass(frozen=True)
class Scene:
    """A clip before encoding: BGR frames at 25 fps, audio at 16 kHz, and timed sentences."""

    frames: Iterable[UInt8Array]
    waveform: Int16Array
    sentences: tuple[TimedSentence, ...]


@dataclass(frozen=True)
class Encoding:
    """Codec settings; the container follows the file's suffix."""

    video_codec: str = "libx264"
    audio_codec: str = "aac"
    pixel_format: str = "yuv420p"
    audio_rate_hz: int = 48_000
    audio_bit_rate: int = 64_000
    video_options: tuple[tuple[str, str], ...] = (("crf", "23"), ("preset", "medium"))
    container_options: tuple[tuple[str, str], ...] = (("movflags", "+faststart"),)


MP4 = Encoding()
WEBM = Encoding(
    video_codec="libvpx-vp9",
    audio_codec="libopus",
    video_options=(("crf", "33"), ("b", "0"), ("deadline", "realtime"), ("cpu-used", "6")),
    container_options=(),
)


def write_clip(
    path: Path | str,
    frames: Iterable[UInt8Array],
    waveform: Int16Array | None,
    fps: Fraction | int = FRAME_RATE_HZ,
    encoding: Encoding | None = None,
) -> None:
    """Encode frames (BGR [H, W, 3], even sizes) and audio (mono, 16 kHz; None for none) into a file.

    Without `encoding`, WebM files get VP9 and Opus, others H.264 and AAC; MP4 has its index at the start.

    Raises:
        ValueError: there are no frames.
    """
    path = Path(path)
    encoding = encoding or (WEBM if path.suffix == ".webm" else MP4)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"no frames to write to {path}: at least one is required")
    # Only for MP4: PyAV refuses options that a container does not have.
    options = encoding.container_options if path.suffix in {".mp4", ".mov", ".m4v"} else ()
    with av.open(str(path), "w", options=dict(options)) as container:
        video: Any = container.add_stream(
            encoding.video_codec, rate=Fraction(fps), options=dict(encoding.video_options)
        )
        video.height, video.width = first.shape[:2]
        video.pix_fmt = encoding.pixel_format
        audio: Any = None
        if waveform is not None:
            audio = container.add_stream(encoding.audio_codec, rate=encoding.audio_rate_hz, layout="mono")
            audio.bit_rate = encoding.audio_bit_rate
        audio_packets = iter(()) if waveform is None else _encode_audio(audio, waveform)
        audio_end_s = 0.0
        for number, frame in enumerate(itertools.chain([first], remaining)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            # Interleaved with the video, so that streaming readers get both in time.
            while audio_end_s <= number / fps and (packets := next(audio_packets, None)) is not None:
                container.mux(packets)
                audio_end_s = max([audio_end_s, *(float(p.pts * p.time_base) for p in packets)])
        container.mux(video.encode(None))
        for packets in audio_packets:
            container.mux(packets)


def _encode_audio(stream: Any, waveform: Int16Array) -> Iterator[list[Any]]:
    """Yield packets of 100 ms of audio."""
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=stream.rate)
    for start in range(0, len(waveform), SAMPLE_RATE_HZ // 10):
        piece = waveform[None, start : start + SAMPLE_RATE_HZ // 10]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
        for resampled in resampler.resample(frame):
            yield stream.encode(resampled)
    for resampled in resampler.resample(None):
        yield stream.encode(resampled)
    yield stream.encode(None)


@dataclass(frozen=True)
class _Dialogue:
    """The audio of a conversation, and each speaker's phonemes on its time line."""

    waveform: Int16Array
    phonemes: tuple[tuple[TimedPhoneme, ...], ...]
    sentences: tuple[TimedSentence, ...]
    duration_s: float


def _synthesize_turns(turns: Sequence[tuple[int, str]], voices: Sequence[Voice], pause_s: float) -> _Dialogue:
    """Synthesize sentences in turn, with a pause before, between and after them."""
    waveforms: list[Int16Array] = []
    phonemes: list[list[TimedPhoneme]] = [[] for _ in voices]
    sentences: list[TimedSentence] = []
    samples = 0
    for who, text in turns:
        alone = _trim_tail(synthesize(text, voices[who]))
        speech = pad_speech(alone, samples / SAMPLE_RATE_HZ + pause_s, 0.0)
        phonemes[who] += speech.phonemes
        start_s, end_s = speech.words[0].start_s, speech.words[-1].end_s
        sentences.append(TimedSentence(text, who, start_s, end_s, speech.words))
        waveforms.append(speech.waveform[samples:])
        samples = len(speech.waveform)
    # A whole number of frames: audio and video end together.
    frames = int(np.ceil((samples / SAMPLE_RATE_HZ + pause_s) * FRAME_RATE_HZ))
    length = frames * SAMPLE_RATE_HZ // FRAME_RATE_HZ
    waveform = np.concatenate([*waveforms, np.zeros(length - samples, np.int16)])
    own = tuple(tuple(mine) for mine in phonemes)
    return _Dialogue(waveform, own, tuple(sentences), frames / FRAME_RATE_HZ)


def _trim_tail(speech: Speech) -> Speech:
    """Remove the synthesizer's trailing silence, so that pauses have the requested length."""
    count = int(np.ceil(speech.phonemes[-1].end_s * SAMPLE_RATE_HZ))
    waveform = speech.waveform[:count]
    return replace(speech, waveform=waveform, duration_s=len(waveform) / SAMPLE_RATE_HZ)


def single_speaker_scene(
    speaker: Speaker,
    sentences: Sequence[str],
    voice: Voice,
    pause_s: float = 0.7,
    size: tuple[int, int] = (640, 480),
    rng: np.random.Generator | None = None,
) -> Scene:
    """Render one drawn speaker who says sentences with pauses of `pause_s` around them."""
    return dialogue_scene([speaker], [voice], [(0, text) for text in sentences], pause_s, size, rng)


def dialogue_scene(
    speakers: Sequence[Speaker],
    voices: Sequence[Voice],
    turns: Sequence[tuple[int, str]],
    pause_s: float = 0.7,
    size: tuple[int, int] = (1280, 720),
    rng: np.random.Generator | None = None,
) -> Scene:
    """Render speakers side by side who take turns: `turns` are pairs of speaker (from 0) and sentence."""
    conversation = _synthesize_turns(turns, voices, pause_s)
    width, height = size
    videos = []
    for speaker, phonemes in zip(speakers, conversation.phonemes, strict=True):
        own_rng = np.random.default_rng(speaker.seed) if rng is None else rng.spawn(1)[0]
        motion = mouth_motion(phonemes, conversation.duration_s, own_rng, speaker.style)
        videos.append(render_frames(speaker, motion, (width // len(speakers), height), own_rng))
    return Scene(compose_side_by_side(videos), conversation.waveform, conversation.sentences)


def photo_scene(
    photo: Photograph,
    sentences: Sequence[str],
    voice: Voice,
    pause_s: float = 0.7,
    size: tuple[int, int] = (640, 480),
    rng: np.random.Generator | None = None,
) -> Scene:
    """Animate a photograph: the mouth is warped to the words."""
    rng = rng or np.random.default_rng(0)
    conversation = _synthesize_turns([(0, text) for text in sentences], [voice], pause_s)
    motion = mouth_motion(conversation.phonemes[0], conversation.duration_s, rng, ArticulationStyle())
    return Scene(render_photo_frames(photo, motion, size, rng), conversation.waveform, conversation.sentences)


def compose_side_by_side(videos: Sequence[Iterable[UInt8Array]]) -> Iterator[UInt8Array]:
    """Yield frames of equal height next to each other until the shortest video ends."""
    for row in zip(*videos, strict=False):
        yield row[0] if len(row) == 1 else np.concatenate(row, axis=1)


def to_ground_truth(scene: Scene, made_by: str, **extra: Any) -> dict[str, Any]:
    """Return the ground truth of a clip, as in its JSON file."""
    return {
        "made_by": made_by,
        **extra,
        "frame_rate_hz": FRAME_RATE_HZ,
        "duration_s": len(scene.waveform) / SAMPLE_RATE_HZ,
        "sentences": [_round_floats(asdict(sentence)) for sentence in scene.sentences],
    }


def _round_floats(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _round_floats(inner) for key, inner in value.items()}
    return [_round_floats(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def demo_scene() -> Scene:
    """Return the README's demo: a speaker and sentences that are in no training split."""
    return single_speaker_scene(demo_speaker(), DEMO_SENTENCES, DEMO_VOICE, pause_s=1.0)


def two_speakers_scene(sentences: Sequence[str] = DEMO_SENTENCES[:4]) -> Scene:
    """Render two test speakers in one video of 1280 × 720 who take turns."""
    speakers = [Speaker.from_seed(DEMO_SPEAKER_SEED + 5), Speaker.from_seed(DEMO_SPEAKER_SEED + 11)]
    turns = [(index % 2, text) for index, text in enumerate(sentences)]
    return dialogue_scene(speakers, [DEMO_VOICE, _SECOND_VOICE], turns, pause_s=0.8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Render one of the example clips."""
    parser = argparse.ArgumentParser(prog="python -m training.clips", description=main.__doc__)
    parser.add_argument("clip", choices=("demo", "two-speakers", "photo"))
    parser.add_argument(
        "--out", type=Path, required=True, help="video file; the ground truth is written next to it as .json"
    )
    parser.add_argument("--photo", choices=[photo.value for photo in Photograph], default="astronaut")
    parser.add_argument("--size", default="640x480", help="size of the photo clip, WIDTHxHEIGHT")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    command = f"python -m training.clips {options.clip}"
    if options.clip == "demo":
        scene, who = demo_scene(), {"speaker_seed": DEMO_SPEAKER_SEED, "voice": DEMO_VOICE.name}
    elif options.clip == "two-speakers":
        scene, who = two_speakers_scene(), {"speakers": "left is 0, right is 1"}
    else:
        width, height = (int(part) for part in options.size.split("x"))
        photo = Photograph(options.photo)
        scene, who = (
            photo_scene(photo, DEMO_SENTENCES, DEMO_VOICE, size=(width, height)),
            {"photo": photo.value},
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_clip(options.out, scene.frames, scene.waveform)
    options.out.with_suffix(".json").write_text(
        json.dumps(to_ground_truth(scene, command, **who), indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
