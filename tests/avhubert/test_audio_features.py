"""Audio features, compared with those of the reference implementation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.avhubert.audio_features import audio_features, log_mel_spectrogram, stack_frames
from gorggle_server.errors import InvalidRequestError
from gorggle_server.media.vad import SpeechLevelEstimator

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert" / "preprocessing.npz"
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray]:
    return dict(np.load(GOLDEN))


def test_features_match_the_reference(golden) -> None:
    features = audio_features(golden["wav"])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, golden["layer_normed"], atol=1e-3)


def test_intermediate_features_match_the_reference(golden) -> None:
    energies = log_mel_spectrogram(golden["wav"])
    np.testing.assert_allclose(energies, golden["logfbank"], atol=1e-3)
    np.testing.assert_allclose(stack_frames(energies), golden["stacked"], atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (399, 1), (400, 1), (640, 1), (881, 2), (16_000, 25), (16_240, 25), (16_241, 26)],
)
def test_audio_of_any_length_has_a_feature_frame_per_40_ms(samples: int, frames: int) -> None:
    features = audio_features(np.ones(samples, np.int16))
    assert features.shape == (frames, 104)
    assert np.isfinite(features).all()


def test_digital_silence_has_finite_features() -> None:
    features = audio_features(np.zeros(RATE_HZ, np.int16))
    assert np.isfinite(features).all()


def test_features_do_not_depend_on_the_chunk_size(golden, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = audio_features(golden["wav"])
    monkeypatch.setattr(sys.modules[audio_features.__module__], "CHUNK_WINDOWS", 7)
    np.testing.assert_array_equal(audio_features(golden["wav"]), expected)


@pytest.mark.parametrize(
    "wav", [np.zeros(100, np.float32), np.zeros((2, 100), np.int16), np.zeros(100, np.int32), [0, 1]]
)
@pytest.mark.parametrize("function", [audio_features, SpeechLevelEstimator().push])
def test_arrays_of_wrong_type_or_shape_are_rejected(function, wav) -> None:
    with pytest.raises(InvalidRequestError, match="expected int16 of shape"):
        function(wav)
