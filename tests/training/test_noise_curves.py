"""Plots of error rates over noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from training.noise_curves import plot_noise_curves


def measured(modality: str, condition: str, rate: float) -> dict[str, Any]:
    return {
        "modality": modality,
        "condition": condition,
        "words": {"rate": rate, "interval": [rate * 0.9, rate * 1.1]},
    }


def evaluation(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": {f"{one['modality']}, {one['condition']}": one for one in conditions}}


CLEAN = [
    measured("video only", "clean", 0.02),
    measured("audio only", "clean", 0.01),
    measured("audio-visual", "clean", 0.01),
]
NOISY = [
    measured(modality, f"babble at {snr} dB", rate)
    for snr, rates in ((-10, (0.8, 0.02)), (0, (0.4, 0.015)))
    for modality, rate in zip(("audio only", "audio-visual"), rates, strict=True)
]


def test_each_corpus_is_a_row_and_each_noise_a_column(tmp_path: Path) -> None:
    white = [measured("audio only", "white at 0 dB", 0.3), measured("audio-visual", "white at 0 dB", 0.02)]
    plot_noise_curves({"grid": evaluation(*CLEAN, *NOISY)}, tmp_path / "one.png")
    plot_noise_curves(
        {"grid": evaluation(*CLEAN, *NOISY, *white), "phrases": evaluation(*CLEAN, *NOISY)},
        tmp_path / "four.png",
    )
    one, four = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "four.png"))
    assert four.shape[0] == 2 * one.shape[0]
    assert four.shape[1] == 2 * one.shape[1]
    assert one.std() > 5  # not blank


def test_an_evaluation_without_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--noise"):
        plot_noise_curves({"grid": evaluation(*CLEAN)}, tmp_path / "none.png")
