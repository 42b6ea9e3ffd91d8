"""Renders clips with ground truth: synthetic speakers who say sentences, written as video files.

``python -m training.clips demo --out examples/demo.mp4`` renders the demo clip and its ground truth as JSON;
``two-speakers`` and ``photo`` render the other clips that tests and documentation use.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from gorggle_training.face_rendering import Speaker, demo_speaker, render_frames
from gorggle_training.photo_animation import Photograph, render_photo_frames
from gorggle_training.sentences import DEMO_SENTENCES, DEMO_SPEAKER_SEED
from gorggle_training.speech_synthesis import TimedPhoneme, TimedWord, Voice, join_speech, synthesize
from gorggle_training.visemes import ArticulationStyle, mouth_motion

Int16Array = NDArray[np.int16]
UInt8Array = NDArray[np.uint8]

DEMO_VOICE = Voice(language="en", variant="f2", rate_wpm=100, pitch=52, pitch_range=55, volume=80)
PAUSE_S = 0.7
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


def write_clip(path: Path, frames: Iterable[UInt8Array], waveform: Int16Array) -> None:
    """Encode frames (BGR [H, W, 3], even sizes) and audio (mono, 16 kHz) with H.264 and AAC into a file.

    Raises:
        ValueError: there are no frames.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"no frames to write to {path}: at least one is required")
    # The index at the start; PyAV refuses options that a container does not have.
    options = {"movflags": "+faststart"} if path.suffix in {".mp4", ".mov", ".m4v"} else {}
    with av.open(str(path), "w", options=options) as container:
        video: Any = container.add_stream(
            "libx264", rate=FRAME_RATE_HZ, options={"crf": "23", "preset": "medium"}
        )
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        audio.bit_rate = 64_000
        audio_packets = _encode_audio(audio, waveform)
        audio_end_s = 0.0
        for number, frame in enumerate(itertools.chain([first], remaining)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            # Interleaved with the video, so that streaming readers get both in time.
            while (
                audio_end_s <= number / FRAME_RATE_HZ and (packets := next(audio_packets, None)) is not None
            ):
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


def _synthesize_turns(
    turns: Sequence[tuple[int, str]], voices: Sequence[Voice], pause_s: float
) -> tuple[Int16Array, list[list[TimedPhoneme]], tuple[TimedSentence, ...]]:
    """Synthesize sentences in turn, with a pause before, between and after them.

    Returns:
        The audio, each speaker's phonemes, and the sentences.
    """
    parts = [synthesize(text, voices[who]) for who, text in turns]
    speech = join_speech(parts, [pause_s] * len(parts) + [0.0])
    words, spoken = iter(speech.words), iter(speech.phonemes)
    phonemes: list[list[TimedPhoneme]] = [[] for _ in voices]
    sentences: list[TimedSentence] = []
    for (who, text), part in zip(turns, parts, strict=True):
        phonemes[who] += itertools.islice(spoken, len(part.phonemes))
        own = tuple(itertools.islice(words, len(part.words)))
        sentences.append(TimedSentence(text, who, own[0].start_s, own[-1].end_s, own))
    # A whole number of frames: audio and video end together.
    frames = math.ceil((speech.duration_s + pause_s) * FRAME_RATE_HZ)
    length = frames * SAMPLE_RATE_HZ // FRAME_RATE_HZ
    return np.pad(speech.waveform, (0, length - len(speech.waveform))), phonemes, tuple(sentences)


def single_speaker_scene(
    speaker: Speaker,
    sentences: Sequence[str],
    voice: Voice,
    pause_s: float = PAUSE_S,
    size: tuple[int, int] = (640, 480),
) -> Scene:
    """Render one drawn speaker who says sentences with pauses of `pause_s` around them."""
    return dialogue_scene([speaker], [voice], [(0, text) for text in sentences], pause_s, size)


def dialogue_scene(
    speakers: Sequence[Speaker],
    voices: Sequence[Voice],
    turns: Sequence[tuple[int, str]],
    pause_s: float = PAUSE_S,
    size: tuple[int, int] = (1280, 720),
    rng: np.random.Generator | None = None,
) -> Scene:
    """Render speakers side by side who take turns: `turns` are pairs of speaker (from 0) and sentence."""
    waveform, phonemes, sentences = _synthesize_turns(turns, voices, pause_s)
    width, height = size
    videos = []
    for speaker, own in zip(speakers, phonemes, strict=True):
        own_rng = np.random.default_rng(speaker.seed) if rng is None else rng.spawn(1)[0]
        motion = mouth_motion(own, len(waveform) / SAMPLE_RATE_HZ, own_rng, speaker.style)
        videos.append(render_frames(speaker, motion, (width // len(speakers), height), own_rng))
    return Scene(compose_side_by_side(videos), waveform, sentences)


def photo_scene(
    photo: Photograph, sentences: Sequence[str], voice: Voice, size: tuple[int, int] = (640, 480)
) -> Scene:
    """Animate a photograph: the mouth is warped to the words."""
    rng = np.random.default_rng(0)
    waveform, (phonemes,), timed = _synthesize_turns([(0, text) for text in sentences], [voice], PAUSE_S)
    motion = mouth_motion(phonemes, len(waveform) / SAMPLE_RATE_HZ, rng, ArticulationStyle())
    return Scene(render_photo_frames(photo, motion, size, rng), waveform, timed)


def compose_side_by_side(videos: Sequence[Iterable[UInt8Array]]) -> Iterator[UInt8Array]:
    """Yield frames of equal height next to each other until the shortest video ends."""
    for row in zip(*videos, strict=False):
        yield row[0] if len(row) == 1 else np.concatenate(row, axis=1)


def to_ground_truth(scene: Scene, made_by: str, **extra: Any) -> dict[str, Any]:
    """Return the ground truth of a clip, as in its JSON file."""
    sentences = json.dumps([asdict(sentence) for sentence in scene.sentences])
    return {
        "made_by": made_by,
        **extra,
        "frame_rate_hz": FRAME_RATE_HZ,
        "duration_s": len(scene.waveform) / SAMPLE_RATE_HZ,
        "sentences": json.loads(sentences, parse_float=lambda number: round(float(number), 3)),
    }


def demo_scene() -> Scene:
    """Return the README's demo: a speaker and sentences that are in no training split."""
    return single_speaker_scene(demo_speaker(), DEMO_SENTENCES, DEMO_VOICE, pause_s=1.0)


def two_speakers_scene() -> Scene:
    """Render two test speakers in one video of 1280 × 720 who take turns."""
    speakers = [Speaker.from_seed(DEMO_SPEAKER_SEED + 5), Speaker.from_seed(DEMO_SPEAKER_SEED + 11)]
    turns = [(index % 2, text) for index, text in enumerate(DEMO_SENTENCES[:4])]
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
        scene = photo_scene(photo, DEMO_SENTENCES, DEMO_VOICE, size=(width, height))
        who = {"photo": photo.value}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_clip(options.out, scene.frames, scene.waveform)
    options.out.with_suffix(".json").write_text(
        json.dumps(to_ground_truth(scene, command, **who), indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
