"""The speech model through the service: words, capabilities, refusals, and sounds that are not speech."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gorggle
from gorggle import Client
from gorggle_evaluation.manifest import read_manifest
from gorggle_evaluation.text_normalization import normalize_words
from gorggle_server.errors import NotFoundError
from gorggle_server.inference import model_registry
from gorggle_server.inference.model_registry import load_models
from gorggle_server.moonshine import MODEL_FILES, find_model_folder
from gorggle_server.settings import MOONSHINE_MODEL, ServerSettings
from tests.clips import transcode
from tests.integration.conftest import DEMO, running_server
from tests.non_speech import NON_SPEECH
from tests.speech_model import needs_speech_model

pytestmark = needs_speech_model

REAL_DATA = os.environ.get("GORGGLE_REAL_DATA", "")
needs_real_data = pytest.mark.skipif(
    not REAL_DATA, reason="needs recordings of people: set GORGGLE_REAL_DATA to their folder"
)


def recognize_audio(client: Client, audio: np.ndarray, **options: Any) -> gorggle.Transcript:
    return client.recognize(None, audio=audio.tobytes(), modality="audio", **options)


def test_open_speech_has_capitals_punctuation_and_word_times(client: Client) -> None:
    transcript = client.recognize(
        DEMO, model=MOONSHINE_MODEL, automatic_punctuation=True, language_codes=["en-US"]
    )
    sentences = json.loads(DEMO.with_suffix(".json").read_text())["sentences"]
    assert len(transcript.segments) == len(sentences)
    for segment, sentence in zip(transcript.segments, sentences, strict=True):
        assert segment.text[0].isupper()
        assert segment.text.endswith(".")
        assert segment.speaker == "face-1"
        assert segment.modality == "audio"
        assert " ".join(word.text for word in segment.words) == segment.text
        assert all(0 < word.confidence <= 1 for word in segment.words)
        assert segment.words[0].start_s == pytest.approx(sentence["start_s"], abs=0.15)
        assert segment.words[-1].end_s == pytest.approx(sentence["end_s"], abs=0.3)
    assert [warning.kind for warning in transcript.warnings] == ["lips_not_used"]
    assert segment.text in transcript.to_srt().replace("\n", " ")


def test_the_model_is_described(client: Client) -> None:
    model = client.model(MOONSHINE_MODEL)
    assert model.has_open_vocabulary
    assert model.supports_automatic_punctuation
    assert model.modalities == ("audio",)
    assert model.language_codes == ("en",)
    assert (model.license.name, model.license.commercial_use) == ("MIT", "permitted")
    assert not client.model().has_open_vocabulary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"modality": "video"},
            "modality is video, but the model moonshine-tiny-en recognizes speech from audio only",
        ),
        ({"language_codes": ["de"]}, "language_codes holds 'de', but the model moonshine-tiny-en has en"),
    ],
)
def test_what_the_model_cannot_do_is_refused(client: Client, options: dict[str, Any], message: str) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=message):
        client.recognize(DEMO, model=MOONSHINE_MODEL, **options)


def test_a_clip_without_audio_is_refused(client: Client, tmp_path: Path) -> None:
    silent = transcode(DEMO, tmp_path / "silent.mp4", audio_codec=None, max_s=1)
    with pytest.raises(
        gorggle.InvalidRequestError, match="the media has no audio, and the model moonshine-tiny-en"
    ):
        client.recognize(silent, model=MOONSHINE_MODEL)


@pytest.mark.parametrize("model", [None, MOONSHINE_MODEL])
@pytest.mark.parametrize("kind", NON_SPEECH)
def test_sounds_that_are_not_speech_have_no_words(client: Client, model: str | None, kind: str) -> None:
    transcript = recognize_audio(client, NON_SPEECH[kind](), model=model)
    assert not transcript.segments
    assert [warning.kind for warning in transcript.warnings] == ["no_speech"]


def test_a_model_without_its_package_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise NotFoundError("the weights were not found: pip install moonshine-voice==0.1.0")

    monkeypatch.setattr(model_registry, "find_model_folder", fail)
    registry = load_models(ServerSettings())
    assert [served.name for served in registry] == ["gorggle-mini-1"]
    with pytest.raises(
        NotFoundError, match=r"'moonshine-tiny-en' is not available here: .*pip install moonshine"
    ):
        registry[MOONSHINE_MODEL]
    with pytest.raises(NotFoundError, match="pip install moonshine"):
        load_models(ServerSettings(default_model=MOONSHINE_MODEL))


def test_damaged_weights_are_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in MODEL_FILES:
        (tmp_path / file).write_bytes((find_model_folder() / file).read_bytes()[:2000])
    monkeypatch.setattr(model_registry, "find_model_folder", lambda: tmp_path)
    with running_server(audio_model="auto") as server, Client(server.address) as client:
        transcript = client.recognize(DEMO)
        assert transcript.audio_model == ""
        assert transcript.segments, "the lips are read as before"
        with pytest.raises(
            gorggle.NotFoundError, match=r"weights are damaged: pip install --force-reinstall"
        ):
            client.recognize(DEMO, audio_model=MOONSHINE_MODEL)


@needs_real_data
def test_at_most_four_percent_of_the_words_of_real_readings_are_wrong(client: Client) -> None:
    jiwer = pytest.importorskip("jiwer")
    references, hypotheses = [], []
    for entry in read_manifest(Path(REAL_DATA, "speech", "speech.jsonl")).entries:
        transcript = client.recognize(entry.media, model=MOONSHINE_MODEL, modality="audio")
        references.append(" ".join(entry.texts))
        hypotheses.append(
            " ".join(" ".join(normalize_words(segment.text)) for segment in transcript.segments)
        )
    assert jiwer.wer(references, hypotheses) <= 0.04


@needs_real_data
def test_words_of_real_speakers_are_timed_precisely(client: Client) -> None:
    errors_s: list[float] = []
    # Every sixth clip: all take 20 s.
    for entry in read_manifest(Path(REAL_DATA, "grid", "validation.jsonl")).entries[::6]:
        transcript = client.recognize(entry.media, model=MOONSHINE_MODEL, modality="audio")
        found = [word for segment in transcript.segments for word in segment.words]
        texts = [" ".join(normalize_words(word.text)) for word in found]
        matcher = difflib.SequenceMatcher(None, entry.texts, texts, autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                reference, word = entry.words[block.a + offset], found[block.b + offset]
                if reference.start_s is not None and reference.end_s is not None:
                    errors_s += [abs(word.start_s - reference.start_s), abs(word.end_s - reference.end_s)]
    assert len(errors_s) >= 40
    assert np.median(errors_s) <= 0.05
    assert np.mean(np.array(errors_s) <= 0.15) >= 0.9
