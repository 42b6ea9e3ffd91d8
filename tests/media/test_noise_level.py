"""Estimate of the signal-to-noise ratio of an utterance."""

from __future__ import annotations

import numpy as np
import pytest

from gorggle_server.media.noise_level import MAX_SNR_DB, MIN_SNR_DB, estimate_snr_db


def make_utterance(snr_db: float | None) -> np.ndarray:
    """Return two seconds: syllables of 0.2 s with equal pauses, with white noise at a ratio to the syllables."""
    rng = np.random.default_rng(0)
    is_spoken = np.arange(32_000) // 3200 % 2 == 0
    speech = 3000 * rng.standard_normal(32_000) * is_spoken
    noise = 0.0 if snr_db is None else 3000 * 10 ** (-snr_db / 20) * rng.standard_normal(32_000)
    return np.clip(np.rint(speech + noise), -32_768, 32_767).astype(np.int16)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_the_ratio_of_speech_with_pauses_is_found(snr_db: float) -> None:
    assert estimate_snr_db(make_utterance(snr_db)) == pytest.approx(snr_db, abs=2)


def test_clean_speech_silence_and_almost_nothing_are_clean_or_bounded() -> None:
    assert estimate_snr_db(make_utterance(None)) >= 40
    assert estimate_snr_db(np.zeros(16_000, np.int16)) == MIN_SNR_DB, "nothing is louder than the noise"
    assert estimate_snr_db(np.zeros(100, np.int16)) == MAX_SNR_DB
    assert estimate_snr_db(np.full(16_000, -32_768, np.int16)) == MIN_SNR_DB
