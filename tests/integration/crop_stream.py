"""The demo clip as sent by a client with its own face tracking: chunks of crops and audio, interleaved."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from gorggle import AudioChunk, MouthCrops
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.media_pipeline import ContainerPipeline


@functools.cache
def extract_crops_and_audio(path: Path) -> tuple[tuple[tuple[int, np.ndarray], ...], np.ndarray]:
    """Return each face's first frame and crops (T, 96, 96), and the audio: int16 (S,), 16 kHz."""
    content = path.read_bytes()
    pipe = BytePipe(len(content) + 1)
    pipe.write(content)
    pipe.close()
    perception = ContainerPipeline(pipe, RecognitionOptions("any"), ServerSettings(), 1000.0)
    for _ in perception.steps():
        pass
    tracks = tuple((track.start, np.stack(track.crops)) for track in perception.buffer.tracks.values())
    perception.buffer._join_audio()
    return tracks, perception.buffer._audio


def create_chunks(path: Path, times: int = 1, chunk_frames: int = 5) -> list[MouthCrops | AudioChunk]:
    """The clip, several times over, in pieces of a fifth of a second by default."""
    tracks, audio = extract_crops_and_audio(path)
    frames = len(audio) // 640
    made: list[MouthCrops | AudioChunk] = []
    for start in range(0, frames * times, chunk_frames):
        first = start % frames
        end = min(first + chunk_frames, frames)
        for face, (track_start, crops) in enumerate(tracks):
            shown = range(max(first, track_start), min(end, track_start + len(crops)))
            if shown:
                pixels = crops[shown.start - track_start : shown.stop - track_start]
                made.append(MouthCrops(pixels, [(start - first + frame) / 25 for frame in shown], face))
        made.append(AudioChunk(audio[first * 640 : end * 640]))
    return made
