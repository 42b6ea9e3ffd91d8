"""The speech detector tells speech from other sounds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.errors import InvalidRequestError
from gorggle_server.media.speech_detector import SPEECH_THRESHOLD, SpeechDetector
from gorggle_server.media.vad import SpeechLevelEstimator
from tests.clips import read_demo_audio
from tests.non_speech import NON_SPEECH


@pytest.fixture(scope="module")
def speech() -> NDArray[np.int16]:
    return read_demo_audio()


def detect(audio: NDArray[np.int16]) -> NDArray[np.float32]:
    detector = SpeechDetector()
    return np.concatenate([detector.push(audio), detector.flush()])


@pytest.mark.parametrize("kind", NON_SPEECH)
def test_other_sounds_are_not_speech(kind: str) -> None:
    assert detect(NON_SPEECH[kind]()).max() < SPEECH_THRESHOLD


@pytest.mark.parametrize("snr_db", [None, 10, 0])
def test_speech_is_detected_also_in_noise(speech: NDArray[np.int16], snr_db: float | None) -> None:
    audio = speech.astype(np.float64)
    if snr_db is not None:
        level = audio.std() / 10 ** (snr_db / 20)
        audio += np.random.default_rng(0).normal(0, level, len(audio))
    probability = detect(np.clip(audio, -32768, 32767).astype(np.int16))
    # The first sentence.
    assert probability[25 : 3 * 25].max() > SPEECH_THRESHOLD


def split(audio: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
    rng, start = np.random.default_rng(0), 0
    while start < len(audio):
        length = int(rng.integers(0, 3000))
        yield audio[start : start + length]
        start += length


def test_the_size_of_the_pieces_does_not_change_the_result(speech: NDArray[np.int16]) -> None:
    detector, audio = SpeechDetector(), speech[: 16_000 * 6 + 100]
    pieces = [*map(detector.push, split(audio)), detector.flush()]
    assert np.allclose(np.concatenate(pieces), detect(audio), atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 639, 640, 641, 1279, 6400])
def test_there_is_one_value_per_frame_as_from_the_level_estimator(samples: int) -> None:
    audio, levels = np.ones(samples, np.int16), SpeechLevelEstimator()
    assert len(detect(audio)) == len(levels.push(audio)) + len(levels.flush())


def test_other_arrays_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="int16"):
        SpeechDetector().push(np.zeros(640, np.float32))  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="requires /proc")
def test_onnxruntime_starts_no_telemetry_thread() -> None:
    code = (
        "import os; from gorggle_server.media.speech_detector import SpeechDetector; SpeechDetector(); "
        "print(len(os.listdir('/proc/self/task')))"
    )
    # numpy's own threads are not counted.
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.strip() == "1"
