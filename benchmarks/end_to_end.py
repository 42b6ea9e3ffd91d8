"""A file of 1280 x 720 from its bytes to words with times, stage by stage, beside the modules that the reference is made of.

    python -m benchmarks.end_to_end --models embedded,large

Ours is what the server does with a file: decoding, faces, crops, and whether the mouth moves (``perception``), the
encoder, the search, the times of the words. The reference, in the same process and on the same file: OpenCV's reader;
dlib's detector on every frame enlarged once, its landmarks, the colour frame warped by scikit-image; the visual front-end
as published in plain torch; fairseq's encoder and sequence generator. Its work on faces takes a quarter of a second a
frame: it is measured on every tenth frame, and multiplied. The reference gives no times of words, and is not charged
with the writing and reading of files between its steps. Both read the crops that ours cut, and must find the same units.
Seconds are the clock's. Stages are timed one after another, where the server decodes and sees beside the device's work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import hardware
from benchmarks.engine_models import EMBEDDED, ModelPair, build_pair, ignore_warnings, make_fairseq_search
from benchmarks.fairseq_reference import load_fairseq
from benchmarks.synthetic_video import enlarge
from benchmarks.vision import ReferencePipeline
from gorggle_server.avhubert import Model, load_model
from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, WORD_START, Vocabulary
from gorggle_server.inference.recognizer import InferenceInput, Recognizer
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.media_pipeline import create_media_pipeline
from gorggle_server.types import Modality, RecognitionOptions
from training.clips import Scene, demo_scene, write_clip

T = TypeVar("T")
FRAME_RATE_HZ, SAMPLE_RATE_HZ = 25, 16_000
REFERENCE_INTERVAL_FRAMES = 10
RESULTS = Path(__file__).parent / "results"
REFERENCE_VISION_STAGES = ("face detection", "landmarks", "warp and cut")
VISION_STAGE, OTHER_STAGE = "faces, crops, movement", "what is between them"


class StageTimes:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def measure(self, stage: str, work: Callable[[], T]) -> T:
        """Do work that belongs to a stage."""
        began = time.perf_counter()
        result = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
        return result

    @property
    def total(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())


def write_demo_clip(path: Path, seconds: float) -> Scene:
    """The demo speaker in 1280 x 720, H.264 and AAC."""
    scene = demo_scene()
    frames = itertools.islice(enlarge(scene.frames), round(seconds * FRAME_RATE_HZ))
    write_clip(path, frames, scene.waveform[: round(seconds * SAMPLE_RATE_HZ)])
    return scene


def extract_crops(data: bytes, times: StageTimes) -> np.ndarray:
    """The mouth of the one face in a file, uint8 (T, 96, 96)."""
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    clock = StageTimer()
    options = RecognitionOptions(model="", modality=Modality.VIDEO_ONLY)
    perception = create_media_pipeline(pipe, options, ServerSettings(), 3600.0, timer=clock)

    def perceive() -> None:
        for events in perception.steps():
            list(events)

    times.measure(OTHER_STAGE, perceive)
    for name, stage in (("decoding", PipelineStage.DECODE), (VISION_STAGE, PipelineStage.VISION)):
        times.seconds[name] = clock.spans[stage].busy_s
        times.seconds[OTHER_STAGE] -= clock.spans[stage].busy_s
    track = max(perception.buffer.tracks.values(), key=lambda track: track.end - track.start)
    return track.get_crops(FrameSpan(track.start, track.end))


def run_ours(
    data: bytes, model: Model, options: argparse.Namespace
) -> tuple[StageTimes, np.ndarray, list[int]]:
    """File to words; the crops and the units on the way."""
    times = StageTimes()
    crops = extract_crops(data, times)
    (encoded,) = times.measure(
        "front-end and encoder", lambda: Recognizer(model).encode([InferenceInput(crops, None)])
    )
    assert isinstance(encoded, Tensor)
    (found,) = times.measure(
        f"beam search, beam {options.beam}",
        lambda: model.beam_search(encoded.unsqueeze(0), beam=options.beam, max_len=options.units),
    )
    times.measure("times of the words", lambda: model.align_words(encoded, found[0]))
    return times, crops, found[0].tokens


def run_reference(
    path: Path, crops: np.ndarray, made: ModelPair, fairseq: Any, options: argparse.Namespace
) -> tuple[StageTimes, list[int]]:
    """The same file by the reference's modules; the units that they find."""
    times = StageTimes()
    frames = times.measure("decoding", lambda: _read_frames(path))
    usual = ReferencePipeline()
    for frame in frames[::REFERENCE_INTERVAL_FRAMES]:
        usual.process(frame, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    share = len(frames) / usual.frames
    times.seconds |= {
        name: seconds * share
        for name, seconds in zip(REFERENCE_VISION_STAGES, usual.seconds.values(), strict=True)
    }
    if fairseq is None:
        return times, []
    assert made.encoder is not None
    encoder, own = made.encoder, made.ours.encoder
    video = (torch.from_numpy(crops[None, :, 4:92, 4:92]).float() / 255 - 0.421) / 0.165

    def encode() -> Tensor:
        seen = made.frontend(video)
        fused = torch.cat((torch.zeros_like(seen), seen), dim=-1)
        mask = torch.zeros(seen.shape[:2], dtype=torch.bool)
        encoded: Tensor = encoder(own.post_extract_proj(own.layer_norm(fused)), padding_mask=mask)[0]
        return encoded

    encoded = times.measure("front-end and encoder", encode)
    generator, sample = make_fairseq_search(fairseq, made, options.beam, options.units, encoded)

    def search() -> list[int]:
        units: list[int] = generator.generate([], sample)[0][0]["tokens"].tolist()
        return units

    return times, times.measure(f"beam search, beam {options.beam}", search)


def compare(name: str, path: Path, fairseq: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways with one model, the least of the repetitions of each stage."""
    made = build_pair(name, fairseq)
    model = Model(made.ours, _make_vocabulary(name, made.ours.config.vocabulary_size))
    data = path.read_bytes()
    rounds = []
    for _ in range(options.repeats):
        found, crops, units = run_ours(data, model, options)
        expected, their_units = run_reference(path, crops, made, fairseq, options)
        rounds.append((found, expected, units, their_units))
    found = min((one[0] for one in rounds), key=lambda times: times.total)
    expected = min((one[1] for one in rounds), key=lambda times: times.total)
    return {
        "model": name,
        "ours": found.seconds,
        "ours_s": found.total,
        "reference": expected.seconds,
        "reference_s": expected.total if fairseq is not None else None,
        "ratio": expected.total / found.total if fairseq is not None else None,
        "times_real_time": options.seconds / found.total,
        "tokens_identical": all(one[2] == one[3] for one in rounds) if fairseq is not None else None,
    }


def measure_audio_features(scene: Scene, options: argparse.Namespace) -> float:
    """Seconds that the features of the clip's sound take."""
    waveform = scene.waveform[: round(options.seconds * SAMPLE_RATE_HZ)]
    return hardware.min_time_s(lambda: audio_features(waveform), 3)


def _read_frames(path: Path) -> list[Any]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    video.release()
    return frames


def _make_vocabulary(name: str, size: int) -> Vocabulary:
    if name == "embedded":
        return load_model(EMBEDDED).vocabulary
    # Every third unit begins a word, as sub-words do.
    made = (f"{WORD_START if number % 3 == 0 else ''}u{number}" for number in range(size))
    return Vocabulary([*RESERVED_TOKENS, *itertools.islice(made, size - len(RESERVED_TOKENS))])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says; print a line for each model, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="embedded,large")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--units", type=int, default=40, help="length of the hypotheses")
    parser.add_argument("--beam", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS / "whole.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    fairseq = load_fairseq()
    tried_on = {**hardware.describe_machine(options.threads), "clock": "wall time"}
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), ignore_warnings():
        path = Path(folder, "clip.mp4")
        scene = write_demo_clip(path, options.seconds)
        for name in options.models.split(","):
            rows.append(compare(name, path, fairseq, options))
            ratio = (
                "" if rows[-1]["ratio"] is None else f", {rows[-1]['ratio']:.1f} x the reference's modules"
            )
            print(f"{name}: {rows[-1]['ours_s']:.2f} s for {options.seconds:g} s{ratio}", flush=True)
        sound_s = measure_audio_features(scene, options)
    measured = {
        "machine": tried_on,
        "clip_s": options.seconds,
        "audio_features_s": sound_s,
        "rows": rows,
    }
    options.out.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
