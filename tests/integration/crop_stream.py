"""The requests of a client with its own face tracking: interleaved chunks of mouth crops and audio."""

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
    pipeline = ContainerPipeline(pipe, RecognitionOptions("any"), ServerSettings(), 1000.0)
    for _ in pipeline.steps():
        pass
    tracks = tuple((track.start, np.stack(track.crops)) for track in pipeline.buffer.tracks.values())
    pipeline.buffer._join_audio()
    return tracks, pipeline.buffer._audio


def create_chunks(path: Path, times: int = 1, chunk_frames: int = 5) -> list[MouthCrops | AudioChunk]:
    """Return the clip, repeated `times` times, as chunks of `chunk_frames` video frames."""
    tracks, audio = extract_crops_and_audio(path)
    frames = len(audio) // 640
    chunks: list[MouthCrops | AudioChunk] = []
    for start in range(0, frames * times, chunk_frames):
        first = start % frames
        end = min(first + chunk_frames, frames)
        for face, (track_start, crops) in enumerate(tracks):
            visible_frames = range(max(first, track_start), min(end, track_start + len(crops)))
            if visible_frames:
                pixels = crops[visible_frames.start - track_start : visible_frames.stop - track_start]
                chunks.append(
                    MouthCrops(pixels, [(start - first + frame) / 25 for frame in visible_frames], face)
                )
        chunks.append(AudioChunk(audio[first * 640 : end * 640]))
    return chunks
