"""Recorded clips as utterances: mouth crops by the server's face tracking, cached in shards."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gorggle_server.errors import GorggleError
from gorggle_server.input_format import FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX, SAMPLES_PER_FRAME
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.recognition_options import EndpointingConfig, MediaLimits, RecognitionOptions
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.frame_stage import track_frames
from gorggle_server.vision.landmark_model import LandmarkModel, LandmarkModelName
from gorggle_server.vision.mouth_tracker import FrameResult
from gorggle_training.labelled_clips import LabelledClip, RejectedClip
from gorggle_training.shards import UTTERANCES_PER_SHARD, ShardFolder, init_worker, save_shard
from gorggle_training.utterances import Utterance
from gorggle_training.visemes import PARAMETERS

# The server's limit for one utterance.
MAX_CLIP_S = EndpointingConfig.max_utterance_s
MIN_FACE_SHARE = 0.8  # of the frames
# Increased when the stored crops change, so that caches are written again.
CACHE_VERSION = 1


def prepare_clips(
    clips: Sequence[LabelledClip],
    cache: Path,
    workers: int,
    report: Callable[[str], None],
    landmark_model: LandmarkModelName = LandmarkModelName.DLIB,
) -> tuple[ShardFolder, list[RejectedClip]]:
    """Crop the mouths of clips with worker processes, unless the cache already has them.

    Returns:
        The utterances, and the clips that cannot be used.
    """
    folder = cache / _hash_clips(clips, landmark_model)
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [
        list(clips[first : first + UTTERANCES_PER_SHARD])
        for first in range(0, len(clips), UTTERANCES_PER_SHARD)
    ]
    missing = [number for number in range(len(chunks)) if not _rejections_path(folder, number).exists()]
    for done, _ in enumerate(
        _write_chunks(folder, [(number, chunks[number]) for number in missing], workers, landmark_model)
    ):
        report(f"cropped clips: {done + 1} of {len(missing)} shards, {UTTERANCES_PER_SHARD} clips each")
    rejected = [
        RejectedClip(Path(media), reason)
        for number in range(len(chunks))
        for media, reason in json.loads(_rejections_path(folder, number).read_text()).items()
    ]
    return ShardFolder(folder), rejected


def read_utterance(
    clip: LabelledClip, landmark_model: LandmarkModelName = LandmarkModelName.DLIB
) -> Utterance:
    """Decode a clip and crop the mouth of the face that is visible longest.

    Frames without a face get the crop of the nearest frame with one.

    Raises:
        GorggleError: the clip cannot be decoded or is too long.
        ValueError: it lacks audio, its face is visible too rarely, or its words exceed it.
    """
    limits = MediaLimits(max_duration_s=MAX_CLIP_S)
    crops: defaultdict[int, dict[int, NDArray[np.uint8]]] = defaultdict(dict)  # by person and frame
    audio: list[NDArray[np.int16]] = []
    frames = 0
    with clip.media.open("rb") as file:
        timeline = resample(decode(file, limits), limits)
        # Without `audio`, no frame is skipped in tracking.
        detector = FaceDetector(LandmarkModel(landmark_model))
        for item in track_frames(
            timeline,
            detector,
            max_faces=RecognitionOptions.max_speakers,
            audio=False,
            live=False,
            face_identity=False,
        ):
            match item:
                case FrameResult():
                    for mouth in item.mouths:
                        crops[mouth.person].update((crop.frame_index, crop.pixels) for crop in mouth.crops)
                case Waveform():
                    audio.append(item.samples)
                case EndOfStream():
                    frames = item.frames
    if not audio:
        raise ValueError("it has no audio")
    longest = max(crops.values(), key=len, default={})
    if not frames or len(longest) < MIN_FACE_SHARE * frames:
        raise ValueError(
            f"a face was found in {len(longest)} of {frames} frames; expected at least {MIN_FACE_SHARE:.0%}"
        )
    if any(word.start_s > frames / FRAME_RATE_HZ for word in clip.words):
        raise ValueError(f"it lasts {frames / FRAME_RATE_HZ:.2f} s; words begin after its end")
    return Utterance(
        _fill_gaps(longest, frames),
        _fit_length(np.concatenate(audio), frames * SAMPLES_PER_FRAME),
        np.full((frames, len(PARAMETERS)), np.nan, np.float32),
        clip.words,
    )


def _write_chunks(
    folder: Path,
    chunks: Sequence[tuple[int, list[LabelledClip]]],
    workers: int,
    landmark_model: LandmarkModelName,
) -> Iterator[None]:
    write = functools.partial(_write_chunk, folder, landmark_model)
    if min(workers, len(chunks)) <= 1:  # starting a process takes seconds
        yield from map(write, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(chunks)), initializer=init_worker) as pool:
        yield from pool.imap_unordered(write, chunks)


def _write_chunk(
    folder: Path, landmark_model: LandmarkModelName, numbered: tuple[int, list[LabelledClip]]
) -> None:
    """Write one shard, and last the clips that cannot be used with the reasons."""
    number, clips = numbered
    utterances: list[Utterance] = []
    reasons: dict[str, str] = {}
    for clip in clips:
        try:
            utterances.append(read_utterance(clip, landmark_model))
        except (GorggleError, ValueError, OSError) as error:
            reasons[str(clip.media)] = str(error)
    if utterances and not (folder / f"{number:05d}").exists():
        save_shard(folder / f"{number:05d}", utterances)
    _rejections_path(folder, number).write_text(json.dumps(reasons, indent=2))


def _rejections_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _hash_clips(clips: Sequence[LabelledClip], landmark_model: LandmarkModelName) -> str:
    """Return a name for the cache that changes with the files, their words and the landmark model."""
    digest = hashlib.sha256(str(CACHE_VERSION).encode())
    if landmark_model is not LandmarkModelName.DLIB:
        digest.update(landmark_model.encode())
    for clip in clips:
        status = clip.media.stat()
        digest.update(
            repr((str(clip.media.resolve()), status.st_size, status.st_mtime_ns, clip.words)).encode()
        )
    return f"clips-{digest.hexdigest()[:16]}"


def _fill_gaps(crops: dict[int, NDArray[np.uint8]], frames: int) -> NDArray[np.uint8]:
    known = np.array(sorted(crops))
    nearest = known[np.abs(known[None, :] - np.arange(frames)[:, None]).argmin(axis=1)]
    filled = np.empty((frames, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX), np.uint8)
    for frame, source in enumerate(nearest.tolist()):
        filled[frame] = crops[source]
    return filled


def _fit_length(waveform: NDArray[np.int16], samples: int) -> NDArray[np.int16]:
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))
