"""Random variations of recorded utterances."""

import numpy as np
import pytest

from gorggle_training.augmentation import augment_recording, change_speed, cut_words
from gorggle_training.speech_synthesis import TimedWord
from gorggle_training.utterances import SAMPLES_PER_FRAME, Utterance
from gorggle_training.visemes import PARAMETERS

FRAMES = 50


@pytest.fixture
def utterance() -> Utterance:
    """Return two seconds whose frames and samples show their time, with three words."""
    crops = np.repeat(np.arange(FRAMES, dtype=np.uint8), 96 * 96).reshape(FRAMES, 96, 96)
    waveform = (np.arange(FRAMES * SAMPLES_PER_FRAME) // SAMPLES_PER_FRAME * 100).astype(np.int16)
    motion = np.full((FRAMES, len(PARAMETERS)), np.nan, np.float32)
    words = (TimedWord("bin", 0.6, 0.8), TimedWord("blue", 0.8, 1.1), TimedWord("at", 1.1, 1.4))
    return Utterance(crops, waveform, motion, words)


def test_cutting_keeps_video_audio_and_words_in_sync(utterance: Utterance) -> None:
    rng = np.random.default_rng(0)
    starts_by_word = {word.text: word.start_s for word in utterance.words}
    texts = set()
    for _ in range(100):
        cut = cut_words(utterance, rng)
        texts.add(cut.text)
        first_frame = int(cut.crops[0, 0, 0])
        assert len(cut.waveform) == cut.frames * SAMPLES_PER_FRAME
        assert cut.waveform[0] == first_frame * 100
        for word in cut.words:
            assert word.start_s + first_frame / 25 == pytest.approx(starts_by_word[word.text])
            assert -0.021 <= word.start_s < word.end_s <= cut.frames / 25 + 0.021
    assert "bin blue at" in texts
    assert len(texts) > 2, "sometimes a part of the words"


@pytest.mark.parametrize("ratio", [0.8, 1.24])
def test_changing_the_speed_keeps_video_audio_and_words_in_sync(utterance: Utterance, ratio: float) -> None:
    changed = change_speed(utterance, ratio)
    assert changed.frames == round(FRAMES * ratio)
    assert len(changed.waveform) == changed.frames * SAMPLES_PER_FRAME
    assert changed.words[2].end_s == pytest.approx(1.4 * ratio)
    middle = changed.frames // 2
    assert changed.crops[middle, 0, 0] == pytest.approx(FRAMES / 2, abs=1)
    assert changed.waveform[middle * SAMPLES_PER_FRAME] == pytest.approx(100 * FRAMES / 2, abs=101)


def test_augmented_recordings_differ_and_stay_consistent(utterance: Utterance) -> None:
    rng = np.random.default_rng(1)
    first, second = augment_recording(utterance, rng), augment_recording(utterance, rng)
    for one in (first, second):
        assert one.crops.shape == (one.frames, 96, 96)
        assert one.crops.dtype == np.uint8
        assert one.waveform.dtype == np.int16
        assert len(one.waveform) == one.frames * SAMPLES_PER_FRAME
        assert len(one.motion) == one.frames
    assert first.frames != second.frames or not np.array_equal(first.crops, second.crops)
    assert utterance.crops[3].max() == 3, "the stored utterance is unchanged"


def test_recordings_without_word_times_keep_all_words(utterance: Utterance) -> None:
    untimed = tuple(TimedWord(word.text, np.nan, np.nan) for word in utterance.words)
    recording = Utterance(utterance.crops, utterance.waveform, utterance.motion, untimed)
    assert augment_recording(recording, np.random.default_rng(2)).text == "bin blue at"
