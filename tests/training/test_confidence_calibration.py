"""Calibration of word confidences."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gorggle_evaluation.conditions import Condition
from gorggle_fusion.confidence import Calibration
from gorggle_server.avhubert import load_model
from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.model_registry import load_models
from gorggle_server.settings import EMBEDDED_MODEL, ServerSettings
from gorggle_training import confidence_calibration
from gorggle_training.confidence_calibration import calibrate_model_file, fit_calibrations

# Of the words with this confidence, this share is correct.
SHARES = {0.6: 0.4, 0.9: 0.6, 0.99: 0.8}


@pytest.fixture
def utterances(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return utterances that the model recognizes from the lips as SHARES says, and from audio without an error."""
    rng = random.Random(0)
    hypotheses = [
        [
            Word(word if rng.random() < SHARES[confidence] else "x", 0.0, 1.0, confidence)
            for word in ("bin", "blue", "at")
            for confidence in [rng.choice(list(SHARES))]
        ]
        for _ in range(1000)
    ]
    truth = [Word(word, 0.0, 1.0, 1.0) for word in ("bin", "blue", "at")]

    def transcribe(_: object, own: Sequence[Any], condition: Condition, __: int) -> list[Hypothesis]:
        found = hypotheses if condition.modality == "video" else [truth] * len(own)
        return [Hypothesis("", 0.0, tuple(words)) for words in found]

    monkeypatch.setattr(confidence_calibration, "transcribe", transcribe)
    return [SimpleNamespace(text="bin blue at")] * len(hypotheses)


def test_calibrated_confidences_are_the_share_of_correct_words(utterances: list[Any]) -> None:
    model: Any = None
    calibrations = fit_calibrations(model, utterances)
    assert set(calibrations) == {"video"}, "without errors there is nothing to fit"
    calibration = Calibration(**calibrations["video"])
    for confidence, share in SHARES.items():
        assert calibration.probability(confidence) == pytest.approx(share, abs=0.05)


def test_the_calibration_is_written_to_the_model_file_and_used(utterances: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(EMBEDDED_MODEL.read_bytes())
    before = load_model(path)
    calibrations = calibrate_model_file(path, utterances)
    after = load_model(path)
    assert after.card == {**before.card, "confidence_calibration": calibrations}
    for name, weight in before.network.state_dict().items():
        assert weight.equal(after.network.state_dict()[name]), name
    settings = ServerSettings(models={"mine": str(path)}, default_model="mine", audio_model="none")
    [served] = [model for model in load_models(settings) if model.name == "mine"]
    recognizer: Any = served.recognizer
    assert [calibration.slope for calibration in recognizer.calibrations.values()] == [
        calibrations["video"]["slope"]
    ]
