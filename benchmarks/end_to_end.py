"""End-to-end time of transcribing a 1280 x 720 file, stage by stage, compared with the reference's modules.

    python -m benchmarks.end_to_end --models embedded,large

Ours is the server's path for a file: decoding, face tracking, crops and lip activity (``media_pipeline``), encoder, beam
search, word timestamps. The reference, in the same process on the same file: OpenCV's reader; dlib's detector on every
frame upsampled once, its landmarks, the colour frame warped by scikit-image; the published visual front-end in plain
torch; fairseq's encoder and sequence generator. Its face processing takes 0.25 s per frame: it is measured on every tenth
frame and extrapolated. The reference has no word timestamps, and its intermediate files are not counted. Both use our
crops and must find the same tokens. Times are wall time. Stages run sequentially, although the server overlaps decoding
and vision with the device's work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import hardware
from benchmarks.command import RESULTS, make_parser
from benchmarks.engine_models import EMBEDDED, ModelPair, build_pair, make_fairseq_search
from benchmarks.fairseq_reference import load_fairseq
from benchmarks.load import extract_mouth_crops
from benchmarks.report import VISION_STAGES
from benchmarks.synthetic_video import enlarge
from benchmarks.vision import ReferencePipeline
from gorggle_server.avhubert import Model, load_model
from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, WORD_START, Vocabulary
from gorggle_server.inference.interface import InferenceInput
from gorggle_server.inference.recognizer import EncodedWindow, Recognizer
from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer
from gorggle_server.recognition_options import Modality
from gorggle_training.clips import demo_scene, write_clip

REFERENCE_INTERVAL_FRAMES = 10
VISION_STAGE, OTHER_STAGE = "face tracking, crops, lip activity", "other"


def run_ours(
    data: bytes, model: Model, options: argparse.Namespace
) -> tuple[hardware.StageTimes, np.ndarray, list[int]]:
    """Transcribe a file; return times, crops and tokens."""
    times = hardware.StageTimes()
    timer = StageTimer()
    crops = times.measure(OTHER_STAGE, lambda: extract_mouth_crops(data, Modality.VIDEO_ONLY, timer))
    for name, stage in (("decoding", PipelineStage.DECODE), (VISION_STAGE, PipelineStage.VISION)):
        times.seconds[name] = timer.spans[stage].busy_s
        times.seconds[OTHER_STAGE] -= timer.spans[stage].busy_s
    (window,) = times.measure(
        "front-end and encoder", lambda: Recognizer(model).encode([InferenceInput(crops, None)])
    )
    assert isinstance(window, EncodedWindow)
    encoded = window.features
    (found,) = times.measure(
        f"beam search, beam {options.beam}",
        lambda: model.beam_search(encoded.unsqueeze(0), beam=options.beam, max_len=options.tokens),
    )
    times.measure("word timestamps", lambda: model.align_words(encoded, found[0]))
    return times, crops, found[0].tokens


def run_reference(
    path: Path, crops: np.ndarray, made: ModelPair, fairseq: Any, options: argparse.Namespace
) -> tuple[hardware.StageTimes, list[int]]:
    """Transcribe the same file with the reference's modules; return times and tokens."""
    times = hardware.StageTimes()
    frames = times.measure("decoding", lambda: _read_frames(path))
    usual = ReferencePipeline()
    for frame in frames[::REFERENCE_INTERVAL_FRAMES]:
        usual.process(frame, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    for stage, seconds in usual.times.seconds.items():
        times.seconds[VISION_STAGES[stage]] = seconds * len(frames) / usual.frames
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
    generator, sample = make_fairseq_search(fairseq, made, options.beam, options.tokens, encoded)

    def search() -> list[int]:
        units: list[int] = generator.generate([], sample)[0][0]["tokens"].tolist()
        return units

    return times, times.measure(f"beam search, beam {options.beam}", search)


def compare(name: str, path: Path, fairseq: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Compare both with one model; report the fastest repetition of each."""
    made = build_pair(name, fairseq)
    model = Model(made.ours, _make_vocabulary(name, made.ours.config.vocabulary_size))
    data = path.read_bytes()
    ours, reference, are_identical = [], [], True
    for _ in range(options.repeats):
        times, crops, units = run_ours(data, model, options)
        their_times, their_units = run_reference(path, crops, made, fairseq, options)
        ours.append(times)
        reference.append(their_times)
        are_identical &= units == their_units
    found, expected = (min(rounds, key=lambda times: times.total) for rounds in (ours, reference))
    return {
        "model": name,
        "ours": found.seconds,
        "ours_s": found.total,
        "reference": expected.seconds,
        "reference_s": expected.total if fairseq is not None else None,
        "ratio": expected.total / found.total if fairseq is not None else None,
        "times_real_time": options.seconds / found.total,
        "tokens_identical": are_identical if fairseq is not None else None,
    }


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
    # Every third token begins a word, like sub-words.
    made = (f"{WORD_START if number % 3 == 0 else ''}u{number}" for number in range(size))
    return Vocabulary([*RESERVED_TOKENS, *itertools.islice(made, size - len(RESERVED_TOKENS))])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print a line per model, write JSON."""
    parser = make_parser(__doc__, RESULTS / "whole.json")
    parser.add_argument("--models", default="embedded,large")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--tokens", type=int, default=40, help="length of the hypotheses")
    parser.add_argument("--beam", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    fairseq = load_fairseq()
    tried_on = {**hardware.describe_machine(options.threads), "clock": "wall time"}
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.inference_mode(),
        warnings.catch_warnings(action="ignore"),
    ):
        path = Path(folder, "clip.mp4")
        scene = demo_scene()
        frames = itertools.islice(enlarge(scene.frames), round(options.seconds * FRAME_RATE_HZ))
        waveform = scene.waveform[: round(options.seconds * SAMPLE_RATE_HZ)]
        write_clip(path, frames, waveform)
        for name in options.models.split(","):
            rows.append(compare(name, path, fairseq, options))
            ratio = (
                "" if rows[-1]["ratio"] is None else f", {rows[-1]['ratio']:.1f} x the reference's modules"
            )
            print(f"{name}: {rows[-1]['ours_s']:.2f} s for {options.seconds:g} s{ratio}", flush=True)
        audio_s = hardware.min_time_s(lambda: audio_features(waveform), 3)
    measured = {"machine": tried_on, "clip_s": options.seconds, "audio_features_s": audio_s, "rows": rows}
    options.out.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
