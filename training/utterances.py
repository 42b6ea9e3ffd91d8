"""Rendered training utterances: synthesized speech and mouth crops, with ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from gorggle_training.face_rendering import Speaker, render_crops
from gorggle_training.phrases import Sentence
from gorggle_training.sentences import (
    FIRST_SPEAKER_SEED,
    Corpus,
    Split,
    random_sentence,
    random_span,
)
from gorggle_training.speech_synthesis import Speech, TimedWord, Voice, join_speech, synthesize
from gorggle_training.visemes import mouth_motion

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ

# Silence around speech: 0.25 s from the endpointer; a user's own clip may have more, or none.
MAX_SILENCE_S = 0.6
# The endpointer joins sentences without a pause. In audio it bridges short pauses; in video only, where resting lips
# resemble slow speech, also longer ones.
MAX_SHORT_PAUSE_S, MAX_LONG_PAUSE_S = 0.4, 1.5
LONG_PAUSE_SHARE = 0.5
MAX_DURATION_S = 12.0

# Share of utterances that are part of a sentence, and that have several sentences.
SPAN_SHARE = 0.15
SENTENCE_COUNT_SHARES = {2: 0.2, 3: 0.1, 4: 0.05}
PHRASE_SHARE = 0.5  # the rest are commands of the GRID grammar
FIRST_PHRASE_SPEAKER = 50_000  # validation and test splits: phrases and commands have different speakers


@dataclass(frozen=True)
class Utterance:
    """A rendered or recorded utterance at 25 fps; all parts have the same duration.

    Attributes:
        crops: uint8 (T, 96, 96), mouth crops.
        waveform: int16 (T * 640,), mono, 16 kHz.
        motion: float32 (T, K), mouth parameters; NaN if recorded.
        words: words with timestamps; NaN if unknown.
    """

    crops: NDArray[np.uint8]
    waveform: NDArray[np.int16]
    motion: NDArray[np.float32]
    words: tuple[TimedWord, ...]

    @property
    def text(self) -> str:
        """Return the words, joined by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def frames(self) -> int:
        """Return T, the number of frames."""
        return len(self.crops)

    @property
    def is_recorded(self) -> bool:
        """Return whether the utterance was recorded, so that its mouth parameters are unknown."""
        return bool(np.isnan(self.motion).any())

    @property
    def has_word_times(self) -> bool:
        """Return whether the timestamps of the words are known."""
        return not any(math.isnan(word.start_s) for word in self.words)


def render_utterance(split: Split, index: int, corpus: Corpus = Corpus.GRID) -> Utterance:
    """Render the utterance of an index, deterministically: each has its own sentence, voice and face.

    The training split mixes both corpora and includes partial and several sentences, so that the model learns to stop
    when speech stops; the other splits have one whole sentence of their corpus each.
    """
    seed = FIRST_SPEAKER_SEED[split] + index + (FIRST_PHRASE_SPEAKER if corpus is Corpus.PHRASES else 0)
    rng = np.random.default_rng([seed, 1])  # the speaker depends on the seed alone
    sentences = (
        _draw_training_sentences(rng) if split is Split.TRAIN else [random_sentence(split, rng, corpus)]
    )
    return render_sentences(sentences, seed, rng)


def render_sentences(sentences: list[Sentence], speaker_seed: int, rng: np.random.Generator) -> Utterance:
    """Render sentences of one speaker with pauses and silence, dropping the last ones if too long."""
    speaker_rng = np.random.default_rng(speaker_seed)
    speaker, voice = Speaker.random(speaker_rng), Voice.random(speaker_rng)
    parts = [_synthesize_sentence(sentence, voice) for sentence in sentences]
    between_s = [_draw_edge_s(rng), *(_draw_pause_s(rng) for _ in parts[1:]), _draw_edge_s(rng)]
    speech = join_speech(parts, between_s)
    if speech.duration_s > MAX_DURATION_S and len(sentences) > 1:
        return render_sentences(sentences[:-1], speaker_seed, rng)
    frames = math.ceil(speech.duration_s * FRAME_RATE_HZ)
    motion = mouth_motion(speech.phonemes, frames / FRAME_RATE_HZ, rng, speaker.style)
    frames = len(motion)
    waveform = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    audio = speech.waveform[: len(waveform)]
    waveform[: len(audio)] = audio
    return Utterance(render_crops(speaker, motion, rng), waveform, motion.astype(np.float32), speech.words)


def _draw_training_sentences(rng: np.random.Generator) -> list[Sentence]:
    corpus = Corpus.PHRASES if rng.random() < PHRASE_SHARE else Corpus.GRID
    counts = [1, *SENTENCE_COUNT_SHARES]
    shares = [1 - sum(SENTENCE_COUNT_SHARES.values()), *SENTENCE_COUNT_SHARES.values()]
    sentences = [random_sentence(Split.TRAIN, rng, corpus) for _ in range(int(rng.choice(counts, p=shares)))]
    if len(sentences) == 1 and rng.random() < SPAN_SHARE / shares[0]:
        return [random_span(sentences[0], rng)]
    return sentences


def _synthesize_sentence(sentence: Sentence, voice: Voice) -> Speech:
    """Synthesize a sentence; its words become lower case."""
    speech = synthesize(sentence, voice)
    return replace(speech, words=tuple(replace(word, text=word.text.lower()) for word in speech.words))


def _draw_edge_s(rng: np.random.Generator) -> float:
    return rng.uniform(0, MAX_SILENCE_S)


def _draw_pause_s(rng: np.random.Generator) -> float:
    long = rng.random() < LONG_PAUSE_SHARE
    return float(rng.uniform(0, MAX_LONG_PAUSE_S if long else MAX_SHORT_PAUSE_S))
