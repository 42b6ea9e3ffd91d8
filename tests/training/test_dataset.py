"""Rendered utterances, their shards, and the batches made of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gorggle_evaluation.noise import NoiseKind, generate_noise, mix_at_snr
from training import phrases
from training.dataset import BatchStream, align_tokens, augment_crops
from training.sentences import GRID_VOCABULARY, Corpus, Split
from training.shards import UtteranceStore, write_shard
from training.speech_synthesis import TimedWord
from training.tokenizer import END, PAD, Tokenizer, train_tokenizer
from training.utterances import MAX_DURATION_S, SAMPLES_PER_FRAME, render_utterance

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
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def test_an_utterance_is_the_same_whenever_it_is_rendered() -> None:
    first, again = render_utterance(Split.VALIDATION, 3), render_utterance(Split.VALIDATION, 3)
    assert first.text == again.text
    # espeak-ng's sounds vary by some samples with what it said before.
    assert abs(first.frames - again.frames) <= 1
    frames = min(first.frames, again.frames)
    differences = np.abs(first.crops[:frames].astype(int) - again.crops[:frames])
    assert differences.mean() < 3


def test_splits_have_different_speakers_and_sentences() -> None:
    test, validation = render_utterance(Split.TEST, 0), render_utterance(Split.VALIDATION, 0)
    assert test.text != validation.text
    assert not np.array_equal(test.crops[0], validation.crops[0])


def test_picture_sound_and_motion_last_the_same_and_the_words_lie_within() -> None:
    for index in range(5):
        utterance = render_utterance(Split.TRAIN, index)
        assert len(utterance.motion) == utterance.frames
        assert len(utterance.waveform) == utterance.frames * SAMPLES_PER_FRAME
        times = [time for word in utterance.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= utterance.frames / 25 <= MAX_DURATION_S + 0.04


def test_sound_is_heard_while_words_are_said_and_not_before() -> None:
    utterance = render_utterance(Split.TEST, 4)
    begin, end = (round(time * 16_000) for time in (utterance.words[0].start_s, utterance.words[-1].end_s))
    assert np.abs(utterance.waveform[begin:end]).max() > 1000
    assert not utterance.waveform[: max(0, begin - 800)].any()


def test_a_shard_gives_back_what_was_rendered(store: UtteranceStore) -> None:
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


def test_a_shard_that_is_there_is_not_rendered_again(folder: Path) -> None:
    before = (folder / "train" / "00000" / "crops.npy").stat().st_mtime_ns
    write_shard(folder, Split.TRAIN, 0, UTTERANCES)
    assert (folder / "train" / "00000" / "crops.npy").stat().st_mtime_ns == before


def test_a_shard_that_is_still_being_written_is_left_alone(folder: Path) -> None:
    (folder / "train" / "00009.partial-3476").mkdir()
    (folder / "train" / "00009.partial-3476" / "crops.npy").write_bytes(b"")
    assert len(UtteranceStore(folder, Split.TRAIN)) == UTTERANCES


def test_phrases_and_commands_of_the_test_have_stores_of_their_own(tmp_path: Path) -> None:
    for corpus in Corpus:
        write_shard(tmp_path, Split.TEST, 0, count=1, corpus=corpus)
    command, phrase = (UtteranceStore(tmp_path, Split.TEST, corpus)[0] for corpus in Corpus)
    assert set(command.text.split()) <= set(GRID_VOCABULARY)
    assert set(phrase.text.split()) <= set(phrases.VOCABULARY)


def test_the_same_seed_gives_the_same_batches(store: UtteranceStore, tokenizer: Tokenizer) -> None:
    first, again = (
        next(iter(BatchStream(store, tokenizer, 200, 5))),
        next(iter(BatchStream(store, tokenizer, 200, 5))),
    )
    assert all(torch.equal(tensor, vars(again)[name]) for name, tensor in vars(first).items())
    other = next(iter(BatchStream(store, tokenizer, 200, 6)))
    assert other.video.shape != first.video.shape or not torch.equal(other.video, first.video)


def test_batches_hold_every_utterance_once_and_no_more_frames_than_asked(
    store: UtteranceStore, tokenizer: Tokenizer
) -> None:
    batches, seen = iter(BatchStream(store, tokenizer, 300, 0)), 0
    while seen < UTTERANCES:
        batch = next(batches)
        assert batch.padding_mask.numel() <= 300 or len(batch.tokens) == 1
        seen += len(batch.tokens)
    assert seen == UTTERANCES


def test_the_decoder_is_given_the_units_one_later(store: UtteranceStore, tokenizer: Tokenizer) -> None:
    batch = BatchStream(store, tokenizer, 10_000, 0).make_batch([0, 3])
    for units, previous in zip(batch.tokens.tolist(), batch.previous_tokens.tolist(), strict=True):
        length = units.index(END) + 1
        assert previous[:length] == [END, *units[: length - 1]]
        assert all(unit == PAD for unit in previous[length:])


def test_units_carry_the_frames_of_their_word(tokenizer: Tokenizer) -> None:
    words = (TimedWord("bin", 0.2, 0.4), TimedWord("xab", 0.4, 0.72))
    units, spans = align_tokens(words, tokenizer, frames=25)
    assert tokenizer.decode(units) == "bin xab"
    assert units[-1] == END
    assert spans[0] == (5, 10)
    assert spans[1][0] == 10
    assert spans[-2][1] == 18
    assert spans[-1] == (18, 25)


def test_noise_is_mixed_in_at_the_ratio_asked_for() -> None:
    rng = np.random.default_rng(0)
    speech = (3000 * rng.standard_normal(16_000)).astype(np.int16)
    for kind in NoiseKind:
        others = [(1000 * rng.standard_normal(8000)).astype(np.int16) for _ in range(3)]
        heard = mix_at_snr(speech, generate_noise(kind, len(speech), others, rng), snr_db=10.0)
        left = heard.astype(float) - speech
        assert 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(left**2)) == pytest.approx(
            10.0, abs=0.5
        )


def test_varied_crops_differ_from_time_to_time_but_keep_their_shape() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (9, 96, 96), dtype=np.uint8)
    first, second = augment_crops(crops, rng), augment_crops(crops, rng)
    assert first.shape == (9, 88, 88)
    assert np.isfinite(first).all()
    assert not np.allclose(first, second)
