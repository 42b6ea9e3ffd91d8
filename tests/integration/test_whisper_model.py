"""Whisper through the service: by name and by path, languages, streams, as the second model, refusals."""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gorggle
from gorggle import Client
from gorggle_evaluation.manifest import read_manifest
from gorggle_evaluation.text_normalization import normalize_words
from gorggle_server.errors import InvalidRequestError, ModelFormatError, NotFoundError
from gorggle_server.inference.model_registry import load_models
from gorggle_server.model_catalogue import catalogue
from gorggle_server.settings import ServerSettings
from tests.integration.conftest import DEMO, running_server
from tests.non_speech import NON_SPEECH
from tests.whisper.tiny_model import TinyModel, write_model

pytest.importorskip("faster_whisper", reason="the extra gorggle[whisper] is not installed")

REAL_DATA = os.environ.get("GORGGLE_REAL_DATA", "")
REAL_MODEL = os.environ.get("GORGGLE_WHISPER_MODEL", "")
needs_real_model = pytest.mark.skipif(
    not (REAL_DATA and REAL_MODEL),
    reason="needs weights and recordings of people: set GORGGLE_WHISPER_MODEL and GORGGLE_REAL_DATA to their folders",
)
TEXT = {"de": "Hallo, Mister Smith.", "en": "Hello, Mister Smith.", "fr": "Bonjour, Mister Smith."}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models with whisper-tiny, as if it were downloaded."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "whisper-tiny")
    record = {"name": "whisper-tiny", "engine": "faster-whisper", "license": {}, "files": []}
    (folder / "whisper-tiny" / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def whisper_client(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    english = write_model(tmp_path_factory.mktemp("english"), TinyModel(is_multilingual=False))
    settings = {
        "model_dir": model_dir,
        "default_model": "whisper-tiny",
        "models": {"my-whisper": str(english)},
    }
    with running_server(**settings) as server, Client(server.address) as client:
        yield client


def test_an_installed_model_recognizes_a_clip(whisper_client: Client) -> None:
    transcript = whisper_client.recognize(DEMO, automatic_punctuation=True, word_timestamps=True)
    sentences = json.loads(DEMO.with_suffix(".json").read_text())["sentences"]
    assert [segment.text for segment in transcript.segments] == [TEXT["de"]] * len(sentences)
    for segment, sentence in zip(transcript.segments, sentences, strict=True):
        assert [word.text for word in segment.words] == segment.text.split()
        assert segment.speaker == "face-1"
        assert segment.modality == "audio"
        # Within the utterance and the silence around it.
        assert segment.words[0].start_s >= sentence["start_s"] - 0.5
        assert segment.words[-1].end_s <= sentence["end_s"] + 0.5
    assert transcript.model == "whisper-tiny"


def test_a_folder_is_served_under_its_name_in_the_settings(whisper_client: Client) -> None:
    transcript = whisper_client.recognize(DEMO, model="my-whisper", language_codes=["en-US"])
    assert {segment.text for segment in transcript.segments} == {TEXT["en"]}


@pytest.mark.parametrize(
    ("language_codes", "language"),
    [
        (["fr-CA"], "fr"),
        (["en", "fr"], "fr"),
        (["en"], "en"),
        (["auto"], "de"),
        (["en", "auto"], "de"),
        ([], "de"),
    ],
)
def test_the_request_names_the_languages(
    whisper_client: Client, language_codes: list[str], language: str
) -> None:
    transcript = whisper_client.recognize(DEMO, language_codes=language_codes)
    assert {segment.text for segment in transcript.segments} == {TEXT[language]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "my-whisper", "language_codes": ["de"]},
            "language_codes holds 'de', but the model my-whisper has en: name one",
        ),
        (
            {"language_codes": ["tlh"]},
            "language_codes holds 'tlh', but the model whisper-tiny has en, zh, de",
        ),
        (
            {"modality": "video"},
            "modality is video, but the model whisper-tiny recognizes speech from audio only",
        ),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    whisper_client: Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=message):
        whisper_client.recognize(DEMO, **options)


def test_models_are_described(whisper_client: Client) -> None:
    model = whisper_client.model()
    assert (model.name, model.architecture) == ("whisper-tiny", "whisper")
    assert model.has_open_vocabulary
    assert model.supports_automatic_punctuation
    assert model.modalities == ("audio",)
    assert len(model.language_codes) == 99
    assert (model.license.name, model.license.commercial_use) == ("MIT licence", "permitted")
    own = whisper_client.model("my-whisper")
    assert own.language_codes == ("en",)
    assert own.license.commercial_use == "unknown"


def test_streams_are_recognized_together_with_interim_results(whisper_client: Client) -> None:
    def transcribe(language: str) -> list[gorggle.Segment]:
        with whisper_client.transcribe(DEMO, language_codes=[language], interim_results=True) as stream:
            return list(stream)

    languages = ["de", "fr", "en", "fr"]
    with ThreadPoolExecutor(len(languages)) as pool:
        for language, segments in zip(languages, pool.map(transcribe, languages), strict=True):
            assert {segment.text for segment in segments if segment.is_final} == {TEXT[language]}


@pytest.mark.parametrize("kind", NON_SPEECH)
def test_sounds_that_are_not_speech_have_no_words(whisper_client: Client, kind: str) -> None:
    transcript = whisper_client.recognize(None, audio=NON_SPEECH[kind]().tobytes(), modality="audio")
    assert not transcript.segments
    assert [warning.kind for warning in transcript.warnings] == ["no_speech"]


def test_it_is_the_second_model_of_a_lip_reader(model_dir: Path) -> None:
    settings = {"model_dir": model_dir, "audio_model": "whisper-tiny"}
    with running_server(**settings) as server, Client(server.address) as client:
        transcript = client.recognize(DEMO, word_timestamps=True)
        assert (transcript.model, transcript.audio_model) == ("gorggle-mini-1", "whisper-tiny")
        # The lip reader's language: without one, the model would hear German.
        words = {word.text.lower().strip(".,") for segment in transcript.segments for word in segment.words}
        assert "hallo" not in words
        assert {word.source for segment in transcript.segments for word in segment.words} <= {
            "lips",
            "audio",
            "both",
        }
        alone = client.recognize(DEMO, modality="audio", audio_model="whisper-tiny")
        assert alone.audio_model == "whisper-tiny"


def test_a_server_without_the_package_names_the_command(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages = (("no_such_package",), "gorggle[whisper]")
    monkeypatch.setitem(catalogue._OPTIONAL_ENGINES, "faster-whisper", packages)
    install = r"pip install 'gorggle\[whisper\]'"
    with pytest.raises(
        InvalidRequestError, match=f"whisper-tiny needs the engine faster-whisper.*{install}$"
    ):
        load_models(ServerSettings(model_dir=model_dir, default_model="whisper-tiny"))
    with pytest.raises(InvalidRequestError, match=f"{install}, then `gorggle model get whisper-base`"):
        load_models(ServerSettings(model_dir=model_dir, default_model="whisper-base"))
    by_path = ServerSettings(model_dir=tmp_path, models={"mine": str(model_dir / "whisper-tiny")})
    with pytest.raises(InvalidRequestError, match=f"model mine in .*{install}"):
        load_models(by_path)
    registry = load_models(ServerSettings(model_dir=model_dir))
    with pytest.raises(
        NotFoundError,
        match=f"'whisper-base' is not available here: {install}, then `gorggle model get whisper-base`",
    ):
        registry["whisper-base"]


def test_a_model_that_is_not_served_is_answered_with_the_steps(model_dir: Path) -> None:
    registry = load_models(ServerSettings(model_dir=model_dir))
    with pytest.raises(
        NotFoundError, match="'whisper-tiny' is not available here: name it in the server's setting `models`;"
    ):
        registry["whisper-tiny"]


def test_damaged_downloads_are_refused_at_the_start(model_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_dir / "whisper-tiny", tmp_path / "whisper-tiny")
    record = json.loads((folder / "model.json").read_text())
    record["files"] = [{"name": "model.bin", "sha256": "0" * 64}]
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(
        ModelFormatError,
        match=r"model\.bin is damaged \(its SHA-256 is .*`gorggle model remove whisper-tiny`",
    ):
        load_models(ServerSettings(model_dir=tmp_path, default_model="whisper-tiny"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=r"it lacks tokenizer\.json"):
        load_models(ServerSettings(models={"mine": str(folder)}, default_model="mine"))


@pytest.fixture(scope="module")
def real_client() -> Iterator[Client]:
    with (
        running_server(models={"real": REAL_MODEL}, default_model="real") as server,
        Client(server.address) as client,
    ):
        yield client


@needs_real_model
def test_at_most_six_percent_of_the_words_of_real_readings_are_wrong(real_client: Client) -> None:
    jiwer = pytest.importorskip("jiwer")
    references, hypotheses = [], []
    for entry in read_manifest(Path(REAL_DATA, "speech", "speech.jsonl")).entries:
        transcript = real_client.recognize(entry.media, modality="audio", language_codes=["en"])
        references.append(" ".join(entry.texts))
        hypotheses.append(" ".join(normalize_words(transcript.text)))
    assert jiwer.wer(references, hypotheses) <= 0.06


@needs_real_model
def test_words_of_real_speakers_are_timed(real_client: Client) -> None:
    errors_s: list[float] = []
    # Every sixth clip: all take a minute.
    for entry in read_manifest(Path(REAL_DATA, "grid", "validation.jsonl")).entries[::6]:
        transcript = real_client.recognize(entry.media, modality="audio", language_codes=["en"])
        found = [word for segment in transcript.segments for word in segment.words]
        texts = [" ".join(normalize_words(word.text)) for word in found]
        matcher = difflib.SequenceMatcher(None, entry.texts, texts, autojunk=False)
        for block in matcher.get_matching_blocks():
            for offset in range(block.size):
                reference, word = entry.words[block.a + offset], found[block.b + offset]
                if reference.start_s is not None and reference.end_s is not None:
                    errors_s += [abs(word.start_s - reference.start_s), abs(word.end_s - reference.end_s)]
    assert len(errors_s) >= 40
    assert np.median(errors_s) <= 0.12
