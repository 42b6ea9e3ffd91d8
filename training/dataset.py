"""Training batches: augmented utterances of similar length, with all targets known from rendering or labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gorggle_evaluation.noise import NoiseKind, generate_noise, mix_at_snr
from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.config import EOS, PAD
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.input_format import FRAME_RATE_HZ, MODEL_INPUT_SIZE_PX
from gorggle_training.augmentation import augment_crops, augment_recording
from gorggle_training.shards import Store
from gorggle_training.speech_synthesis import TimedWord
from gorggle_training.utterances import Utterance

# Frame target: no token is being said. <s> is never a target otherwise.
SILENCE = 0

# Share without noise. Lips of real people are harder to read: where the audio is clean, the model must rely on it.
CLEAN_SHARE, RECORDED_CLEAN_SHARE = 0.2, 0.5
NOISE_SHARES = {NoiseKind.BABBLE: 0.5, NoiseKind.WHITE: 0.25, NoiseKind.SPEECH_SHAPED: 0.25}
MIN_SNR_DB, MAX_SNR_DB = -20.0, 15.0
MAX_VOICES_IN_BABBLE = 8

# Utterances are sorted by length within windows of this number of batches.
BATCHES_PER_SORT = 24
FRAMES_MULTIPLE = 8


@dataclass(frozen=True)
class Batch:
    """B utterances, padded to T frames and L tokens.

    Attributes:
        video: float32 (B, T, 88, 88), normalized grey levels.
        audio: float32 (B, T, 104), features of the noisy audio.
        clean_audio: float32 (B, T, 104), features of the audio without noise.
        padding_mask: bool (B, T), true where padded.
        motion: float32 (B, T, K), mouth parameters; NaN if unknown.
        frame_tokens: int64 (B, T), the token being said, SILENCE, or PAD if padded or unknown.
        tokens: int64 (B, L), with the end token, padded by PAD.
        attention: float32 (B, L, T), target attention of each token; each row sums to 1, or to 0 if padded
            or unknown.
    """

    video: torch.Tensor
    audio: torch.Tensor
    clean_audio: torch.Tensor
    padding_mask: torch.Tensor
    motion: torch.Tensor
    frame_tokens: torch.Tensor
    tokens: torch.Tensor
    attention: torch.Tensor

    @property
    def previous_tokens(self) -> torch.Tensor:
        """Return the decoder input, (B, L): tokens shifted right, starting with the end token, as in beam search."""
        shifted = self.tokens.roll(1, dims=1)
        shifted = shifted.masked_fill(shifted.eq(EOS), PAD)
        shifted[:, 0] = EOS
        return shifted


@dataclass(frozen=True)
class Example:
    """One utterance before padding; shapes as in ``Batch`` without B. ``spans`` is None if word times are unknown."""

    video: NDArray[np.float32]
    audio: NDArray[np.float32]
    clean_audio: NDArray[np.float32]
    motion: NDArray[np.float32]
    tokens: list[int]
    spans: list[tuple[int, int]] | None

    @property
    def frames(self) -> int:
        """T."""
        return len(self.video)


class BatchStream:
    """An endless stream of batches from a store that may be growing; deterministic per seed."""

    def __init__(self, store: Store, tokenizer: Vocabulary, frames_per_batch: int, seed: int) -> None:
        self._store = store
        self._tokenizer = tokenizer
        self._frames_per_batch = frames_per_batch
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self._store.refresh()
            for indices in self._iterate_epoch():
                yield self.make_batch(indices)

    def make_batch(self, indices: Sequence[int]) -> Batch:
        """Return a batch of the given utterances, with new random augmentation."""
        return collate([self._make_example(index) for index in indices])

    def _iterate_epoch(self) -> Iterator[list[int]]:
        """Yield the utterances of an epoch in batches of similar length with at most ``frames_per_batch`` padded frames."""
        order, frames = self._store.draw_epoch(self._rng), self._store.frames
        mean_frames = sum(frames) / len(frames)
        stride = max(1, round(BATCHES_PER_SORT * self._frames_per_batch / mean_frames))
        for start in range(0, len(order), stride):
            window = sorted(order[start : start + stride], key=frames.__getitem__)
            batches = list(self._pack(window, frames))
            for position in self._rng.permutation(len(batches)):
                yield batches[position]

    def _pack(self, indices: Sequence[int], frames: Sequence[int]) -> Iterator[list[int]]:
        packed: list[int] = []
        for index in indices:
            # Sorted by length: the new one is the longest.
            if packed and _round_up(frames[index]) * (len(packed) + 1) > self._frames_per_batch:
                yield packed
                packed = []
            packed.append(index)
        if packed:
            yield packed

    def _make_example(self, index: int) -> Example:
        utterance = self._store[index]
        if utterance.is_recorded:
            utterance = augment_recording(utterance, self._rng)
        tokens, spans = self._encode_words(utterance)
        return Example(
            video=augment_crops(utterance.crops, self._rng),
            audio=audio_features(self._add_noise(utterance))[: utterance.frames],
            clean_audio=audio_features(utterance.waveform)[: utterance.frames],
            motion=utterance.motion,
            tokens=tokens,
            spans=spans,
        )

    def _encode_words(self, utterance: Utterance) -> tuple[list[int], list[tuple[int, int]] | None]:
        if utterance.has_word_times:
            return align_tokens(utterance.words, self._tokenizer, utterance.frames)
        return [*self._tokenizer.encode(utterance.text), EOS], None

    def _add_noise(self, utterance: Utterance) -> NDArray[np.int16]:
        if self._rng.random() < (RECORDED_CLEAN_SHARE if utterance.is_recorded else CLEAN_SHARE):
            return utterance.waveform
        kind = self._rng.choice(list(NOISE_SHARES), p=list(NOISE_SHARES.values()))
        count = int(self._rng.integers(1, MAX_VOICES_IN_BABBLE + 1))
        voices = [
            self._store[int(index)].waveform for index in self._rng.integers(len(self._store), size=count)
        ]
        interference = generate_noise(NoiseKind(kind), len(utterance.waveform), voices, self._rng)
        return mix_at_snr(utterance.waveform, interference, self._rng.uniform(MIN_SNR_DB, MAX_SNR_DB))


def align_tokens(
    words: Sequence[TimedWord], tokenizer: Vocabulary, frames: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the tokens of an utterance and the frame span (first, end) of each.

    The tokens of a word share its duration evenly. The end token comes last; its span is the silence after the last
    word, or the last frame.
    """
    tokens: list[int] = []
    spans: list[tuple[int, int]] = []
    for word in words:
        pieces = tokenizer.encode(word.text)
        borders = np.linspace(word.start_s, word.end_s, len(pieces) + 1) * FRAME_RATE_HZ
        for piece, begin, end in zip(pieces, borders[:-1], borders[1:], strict=True):
            first = min(round(begin), frames - 1)
            tokens.append(piece)
            spans.append((first, min(max(first + 1, round(end)), frames)))
    spans.append((min(spans[-1][1], frames - 1), frames))
    return [*tokens, EOS], spans


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples to the longest, rounded up: fewer distinct shapes train faster."""
    count, frames = len(examples), _round_up(max(example.frames for example in examples))
    length = max(len(example.tokens) for example in examples)
    batch = Batch(
        video=torch.zeros(count, frames, MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX),
        audio=torch.zeros(count, frames, examples[0].audio.shape[1]),
        clean_audio=torch.zeros(count, frames, examples[0].audio.shape[1]),
        padding_mask=torch.ones(count, frames, dtype=torch.bool),
        motion=torch.zeros(count, frames, examples[0].motion.shape[1]),
        frame_tokens=torch.full((count, frames), PAD),
        tokens=torch.full((count, length), PAD),
        attention=torch.zeros(count, length, frames),
    )
    for row, example in enumerate(examples):
        batch.video[row, : example.frames] = torch.from_numpy(example.video)
        batch.audio[row, : len(example.audio)] = torch.from_numpy(example.audio)
        batch.clean_audio[row, : len(example.clean_audio)] = torch.from_numpy(example.clean_audio)
        batch.padding_mask[row, : example.frames] = False
        batch.motion[row, : example.frames] = torch.from_numpy(example.motion)
        batch.tokens[row, : len(example.tokens)] = torch.tensor(example.tokens)
        if example.spans is None:
            continue
        batch.frame_tokens[row, : example.frames] = SILENCE
        for position, (token, (first, end)) in enumerate(zip(example.tokens, example.spans, strict=True)):
            batch.attention[row, position, first:end] = 1 / (end - first)
            if token != EOS:
                batch.frame_tokens[row, first:end] = token
    return batch


def _round_up(frames: int) -> int:
    return -(-frames // FRAMES_MULTIPLE) * FRAMES_MULTIPLE
