"""The Whisper network: languages, search, alignment, spectrograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.whisper import Model, SearchOptions, Transcription, check_folder
from tests.clips import read_demo_audio
from tests.whisper.tiny_model import TinyModel, write_model

SEARCH = SearchOptions(beam_size=3, length_penalty=1.0, num_hypotheses=2, max_tokens=20)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(
        check_folder(write_model(tmp_path_factory.mktemp("english"), TinyModel(is_multilingual=False)))
    )


def encode(model: Model, count: int = 1) -> object:
    audio = read_demo_audio()
    return model.encode([model.compute_features(audio[16_000 * row :][:32_000]) for row in range(count)])


def read(model: Model, tokens: tuple[int, ...]) -> str:
    return " ".join(word.text for word in model.split_words(tokens))


def test_languages_have_their_tags_of_bcp_47(model: Model, english: Model) -> None:
    assert model.is_multilingual
    assert len(model.languages) == 99
    assert {"en", "de", "haw", "jv"} <= set(model.languages)
    assert "jw" not in model.languages
    assert english.languages == ("en",)


@pytest.mark.parametrize(
    ("allowed", "language"),
    [
        ((), "de"),
        (("fr", "en"), "fr"),
        (("en",), "en"),
        (("jv", "en"), "en"),
        (("jv",), "jv"),
        # Those that the model does not have do not count.
        (("xx", "en"), "en"),
        (("xx",), "de"),
    ],
)
def test_the_most_probable_allowed_language_is_detected(
    model: Model, allowed: tuple[str, ...], language: str
) -> None:
    assert model.detect_languages(encode(model, 2), allowed) == [language, language]


def test_each_utterance_of_a_batch_has_its_language(model: Model) -> None:
    encoded, languages = encode(model, 3), ["fr", "en", "fr"]
    found = model.search(encoded, languages, SEARCH)
    texts = []
    for result in found:
        assert isinstance(result, Transcription)
        texts.append(read(model, result.texts[0]))
    assert texts == ["Bonjour, Mister Smith.", "Hello, Mister Smith.", "Bonjour, Mister Smith."]
    tokens = [result.texts[0] for result in found if isinstance(result, Transcription)]
    aligned = model.align(encoded, languages, tokens, [2.0, 2.0, 0.5])
    for row, (times, text) in enumerate(zip(aligned, tokens, strict=True)):
        alone = model.align(
            model.encode([_features(model, row)]), [languages[row]], [text], [(2.0, 2.0, 0.5)[row]]
        )
        assert times.start_s == alone[0].start_s
        assert len(times.start_s) == len(text) + 1 == len(times.log_probabilities) + 1
        assert sorted(times.start_s) == list(times.start_s)
        # The word of the language is as improbable in another language as it should be.
        assert min(times.log_probabilities) > -0.01
    assert max(aligned[2].start_s) <= 0.5


def _features(model: Model, row: int) -> np.ndarray:
    return model.compute_features(read_demo_audio()[16_000 * row :][:32_000])


def test_hypotheses_are_distinct_and_ranked(model: Model) -> None:
    (result,) = model.search(encode(model), ["de"], SEARCH)
    assert isinstance(result, Transcription)
    assert len(set(result.texts)) == 2
    assert result.log_probabilities[0] > result.log_probabilities[1]
    assert result.no_speech_probability < 0.01


@pytest.mark.parametrize("length_penalty", [-2.0, 0.5, 5.0])
def test_log_probabilities_do_not_depend_on_the_length_penalty(model: Model, length_penalty: float) -> None:
    (result,) = model.search(encode(model), ["de"], SearchOptions(3, length_penalty, 1, 20))
    (expected,) = model.search(encode(model), ["de"], SearchOptions(3, 1.0, 1, 20))
    assert isinstance(result, Transcription)
    assert isinstance(expected, Transcription)
    assert result.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


def test_the_number_of_tokens_is_limited(model: Model) -> None:
    (result,) = model.search(encode(model), ["de"], SearchOptions(1, 1.0, 1, max_tokens=3))
    assert isinstance(result, Transcription)
    assert read(model, result.texts[0]) == "Hallo, Mis"


def test_output_that_is_not_finite_is_a_model_format_error(tmp_path: Path) -> None:
    damaged = Model(check_folder(write_model(tmp_path, TinyModel(has_damaged_weights=True))))
    (result,) = damaged.search(encode(damaged), ["de"], SEARCH)
    assert isinstance(result, ModelFormatError)


def test_a_spectrogram_is_padded_with_silence_as_in_training(model: Model) -> None:
    waveform = read_demo_audio()[:48_000]
    features = model.compute_features(waveform)
    assert features.shape == (80, 3000)
    padded = model.compute_features(np.pad(waveform, (0, 480_000 - 48_000)))
    # Up to the frames that overlap the end.
    np.testing.assert_allclose(features[:, :298], padded[:, :298], atol=1e-4)
    np.testing.assert_allclose(features[:, 304:], padded[:, 304:], atol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 640, 480_000])
def test_any_duration_up_to_30_s_has_a_spectrogram(model: Model, samples: int) -> None:
    features = model.compute_features(np.ones(samples, np.int16))
    assert features.shape == (80, 3000)
    assert np.isfinite(features).all()


def test_more_than_30_s_are_refused(model: Model) -> None:
    with pytest.raises(InvalidRequestError, match=r"the utterance lasts 30\.1 s; Whisper takes at most 30 s"):
        model.compute_features(np.zeros(481_600, np.int16))


def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidRequestError, match="device is cuda, but CTranslate2 cannot use a GPU here"):
        Model(check_folder(folder), "cuda")


def test_the_network_computes_with_8_bit_weights(folder: Path) -> None:
    quantized = Model(check_folder(folder), int8=True)
    (result,) = quantized.search(encode(quantized), ["fr"], SEARCH)
    assert isinstance(result, Transcription)
    assert read(quantized, result.texts[0]) == "Bonjour, Mister Smith."
