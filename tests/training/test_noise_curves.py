"""Plots of word error rate over signal-to-noise ratio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from gorggle_training.noise_curves import plot_noise_curves


def make_condition(modality: str, condition: str, rate: float) -> dict[str, Any]:
    return {
        "modality": modality,
        "condition": condition,
        "words": {"rate": rate, "interval": [rate * 0.9, rate * 1.1]},
    }


def make_evaluation(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": {f"{each['modality']}, {each['condition']}": each for each in conditions}}


CLEAN = [
    make_condition("video only", "clean", 0.02),
    make_condition("audio only", "clean", 0.01),
    make_condition("audio-visual", "clean", 0.01),
]
NOISY = [
    make_condition(modality, f"babble at {snr} dB", rate)
    for snr, rates in ((-10, (0.8, 0.02)), (0, (0.4, 0.015)))
    for modality, rate in zip(("audio only", "audio-visual"), rates, strict=True)
]


def test_each_corpus_is_a_row_and_each_noise_a_column(tmp_path: Path) -> None:
    white = [
        make_condition("audio only", "white at 0 dB", 0.3),
        make_condition("audio-visual", "white at 0 dB", 0.02),
    ]
    plot_noise_curves({"grid": make_evaluation(*CLEAN, *NOISY)}, tmp_path / "one.png")
    plot_noise_curves(
        {"grid": make_evaluation(*CLEAN, *NOISY, *white), "phrases": make_evaluation(*CLEAN, *NOISY)},
        tmp_path / "four.png",
    )
    one, four = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "four.png"))
    assert four.shape[0] == 2 * one.shape[0]
    assert four.shape[1] == 2 * one.shape[1]
    assert one.std() > 5  # not blank


def test_an_evaluation_without_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--noise"):
        plot_noise_curves({"grid": make_evaluation(*CLEAN)}, tmp_path / "none.png")
