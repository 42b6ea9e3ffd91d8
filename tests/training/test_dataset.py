"""Rendered utterances, the shards that store them, and training batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gorggle_evaluation.noise import NoiseKind, generate_noise, mix_at_snr
from gorggle_server.avhubert.config import EOS, PAD
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_training import phrases
from gorggle_training.dataset import BatchStream, align_tokens, augment_crops
from gorggle_training.sentences import GRID_VOCABULARY, Corpus, Split
from gorggle_training.shards import UtteranceStore, write_shard
from gorggle_training.speech_synthesis import TimedWord
from gorggle_training.tokenizer import train_tokenizer
from gorggle_training.utterances import MAX_DURATION_S, SAMPLES_PER_FRAME, render_utterance

UTTERANCES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder, Split.TRAIN, 0, UTTERANCES)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> UtteranceStore:
    return UtteranceStore(folder, Split.TRAIN)


@pytest.fixture(scope="module")
def tokenizer() -> Vocabulary:
    return train_tokenizer()


def test_rendering_is_deterministic() -> None:
    first, repeated = render_utterance(Split.VALIDATION, 3), render_utterance(Split.VALIDATION, 3)
    assert first.text == repeated.text
    # espeak-ng's output varies by a few samples, depending on previous sentences.
    assert abs(first.frames - repeated.frames) <= 1
    frames = min(first.frames, repeated.frames)
    differences = np.abs(first.crops[:frames].astype(int) - repeated.crops[:frames])
    assert differences.mean() < 3


def test_splits_have_different_speakers_and_sentences() -> None:
    test, validation = render_utterance(Split.TEST, 0), render_utterance(Split.VALIDATION, 0)
    assert test.text != validation.text
    assert not np.array_equal(test.crops[0], validation.crops[0])


def test_video_audio_and_motion_have_equal_duration_and_span_all_words() -> None:
    for index in range(5):
        utterance = render_utterance(Split.TRAIN, index)
        assert len(utterance.motion) == utterance.frames
        assert len(utterance.waveform) == utterance.frames * SAMPLES_PER_FRAME
        timestamps_s = [time for word in utterance.words for time in (word.start_s, word.end_s)]
        assert timestamps_s == sorted(timestamps_s)
        assert timestamps_s[0] >= 0
        assert timestamps_s[-1] <= utterance.frames / 25 <= MAX_DURATION_S + 0.04


def test_audio_is_silent_before_the_first_word() -> None:
    utterance = render_utterance(Split.TEST, 4)
    begin, end = (round(time * 16_000) for time in (utterance.words[0].start_s, utterance.words[-1].end_s))
    assert np.abs(utterance.waveform[begin:end]).max() > 1000
    assert not utterance.waveform[: max(0, begin - 800)].any()


def test_a_shard_contains_the_rendered_utterances(store: UtteranceStore) -> None:
    assert len(store) == UTTERANCES
    for index in (0, 3, UTTERANCES - 1):
        rendered, stored = render_utterance(Split.TRAIN, index), store[index]
        assert stored.text == rendered.text
        assert store.frames[index] == stored.frames == len(stored.motion)
        assert abs(stored.frames - rendered.frames) <= 1
        assert stored.words[-1].end_s == pytest.approx(rendered.words[-1].end_s, abs=0.02)
        assert len(stored.waveform) == stored.frames * SAMPLES_PER_FRAME
        differences = np.abs(stored.crops[:-1].astype(int) - rendered.crops[: stored.frames - 1])
        assert differences.mean() < 3


def test_an_existing_shard_is_not_rendered_again(folder: Path) -> None:
    before = (folder / "train" / "00000" / "crops.npy").stat().st_mtime_ns
    write_shard(folder, Split.TRAIN, 0, UTTERANCES)
    assert (folder / "train" / "00000" / "crops.npy").stat().st_mtime_ns == before


def test_an_incomplete_shard_is_ignored(folder: Path) -> None:
    (folder / "train" / "00009.partial-3476").mkdir()
    (folder / "train" / "00009.partial-3476" / "crops.npy").write_bytes(b"")
    assert len(UtteranceStore(folder, Split.TRAIN)) == UTTERANCES


def test_each_corpus_has_a_separate_store(tmp_path: Path) -> None:
    for corpus in Corpus:
        write_shard(tmp_path, Split.TEST, 0, count=1, corpus=corpus)
    command, phrase = (UtteranceStore(tmp_path, Split.TEST, corpus)[0] for corpus in Corpus)
    assert set(command.text.split()) <= set(GRID_VOCABULARY)
    assert set(phrase.text.split()) <= set(phrases.VOCABULARY)


def test_batches_are_reproducible_by_seed(store: UtteranceStore, tokenizer: Vocabulary) -> None:
    first, repeated = (
        next(iter(BatchStream(store, tokenizer, 200, 5))),
        next(iter(BatchStream(store, tokenizer, 200, 5))),
    )
    assert all(torch.equal(tensor, vars(repeated)[name]) for name, tensor in vars(first).items())
    other = next(iter(BatchStream(store, tokenizer, 200, 6)))
    assert other.video.shape != first.video.shape or not torch.equal(other.video, first.video)


def test_batches_contain_every_utterance_once_within_the_frame_limit(
    store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    batches, seen = iter(BatchStream(store, tokenizer, 300, 0)), 0
    while seen < UTTERANCES:
        batch = next(batches)
        assert batch.padding_mask.numel() <= 300 or len(batch.tokens) == 1
        seen += len(batch.tokens)
    assert seen == UTTERANCES


def test_the_decoder_input_is_shifted_by_one_token(store: UtteranceStore, tokenizer: Vocabulary) -> None:
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0, 3])
    for tokens, previous in zip(batch.tokens.tolist(), batch.previous_tokens.tolist(), strict=True):
        length = tokens.index(EOS) + 1
        assert previous[:length] == [EOS, *tokens[: length - 1]]
        assert all(token == PAD for token in previous[length:])


def test_the_decoder_input_is_on_the_same_device_as_the_tokens(
    store: UtteranceStore, tokenizer: Vocabulary
) -> None:
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0])
    on_meta_device = replace(batch, tokens=batch.tokens.to("meta"))
    assert on_meta_device.previous_tokens.device.type == "meta"


def test_tokens_are_aligned_with_the_frames_of_their_word(tokenizer: Vocabulary) -> None:
    words = (TimedWord("bin", 0.2, 0.4), TimedWord("xab", 0.4, 0.72))
    tokens, spans = align_tokens(words, tokenizer, frames=25)
    assert tokenizer.decode(tokens) == "bin xab"
    assert tokens[-1] == EOS
    assert spans[0] == (5, 10)
    assert spans[1][0] == 10
    assert spans[-2][1] == 18
    assert spans[-1] == (18, 25)


def test_noise_is_mixed_at_the_requested_ratio() -> None:
    rng = np.random.default_rng(0)
    speech = (3000 * rng.standard_normal(16_000)).astype(np.int16)
    for kind in NoiseKind:
        voices = [(1000 * rng.standard_normal(8000)).astype(np.int16) for _ in range(3)]
        mixture = mix_at_snr(speech, generate_noise(kind, len(speech), voices, rng), snr_db=10.0)
        noise = mixture.astype(float) - speech
        assert 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(noise**2)) == pytest.approx(
            10.0, abs=0.5
        )


def test_augmentation_is_random_and_keeps_the_shape() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (9, 96, 96), dtype=np.uint8)
    first, second = augment_crops(crops, rng), augment_crops(crops, rng)
    assert first.shape == (9, 88, 88)
    assert np.isfinite(first).all()
    assert not np.allclose(first, second)
