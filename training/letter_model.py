"""Train the letter model that times Moonshine's words: ``python -m training.letter_model [--manifest FILE]``.

The network that is trained (``gorggle_server.moonshine.word_alignment.LetterModel``) estimates the letter of each frame from the
output of Moonshine's encoder. The data has word times, not letter times: within a word, letters first share its frames
equally; then training and realigning the letters to the network's own estimates take turns. Outside words is silence.

Data: sentences spoken by espeak-ng, of the phrases of the embedded model and of Python's own documentation, with noise; and
the clips with word times of a ``gorggle evaluate`` manifest. Needs 10 minutes on two cores for 1,400 sentences and 964 clips.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from gorggle_evaluation.manifest import read_manifest
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.moonshine import Model, find_model_folder
from gorggle_server.moonshine.word_alignment import (
    CONTEXT_FRAMES,
    FRAME_S,
    LETTER_MODEL,
    LETTERS,
    SILENCE,
    frame_start_s,
    spell,
    stack_context,
)
from gorggle_server.viterbi import find_best_path
from gorggle_training.phrases import random_phrase
from gorggle_training.speech_synthesis import TimedWord, Voice, synthesize

SENTENCES = 1_400
HIDDEN_UNITS, BATCH_UTTERANCES, DROPOUT, LABEL_SMOOTHING = 96, 16, 0.1, 0.05
MAX_LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
# Epochs before each realignment; the last number ends the training.
EPOCHS = (3, 3, 4)
EDGE_S, NOISE_LEVELS_LOG10 = 0.5, (-0.5, 2.3)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Utterance:
    """Encoder output (T, 288) in half precision, and the words spoken in it."""

    encoded: NDArray[np.float16]
    words: tuple[TimedWord, ...]

    def get_frames(self, word: TimedWord) -> range:
        """Return the frames of a word, at least one."""
        first, end = (round((time - frame_start_s(0)) / FRAME_S) for time in (word.start_s, word.end_s))
        first = min(max(0, first), len(self.encoded) - 1)
        return range(first, min(max(first + 1, end), len(self.encoded)))


class LetterNetwork(nn.Module):
    """One hidden layer over normalized frames with their neighbours: (T, 5 D) to (T, 27)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, HIDDEN_UNITS)
        self.output = nn.Linear(HIDDEN_UNITS, 1 + len(LETTERS))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scores of each class."""
        scores: Tensor = self.output(torch.relu(self.hidden(inputs)))
        return scores


class Trainer:
    """Trains the network on utterances, whose letters it realigns as it improves."""

    def __init__(self, utterances: Sequence[Utterance], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._utterances = utterances
        frames = np.concatenate([utterance.encoded for utterance in utterances]).astype(np.float32)
        self._mean, self._std = frames.mean(axis=0), frames.std(axis=0) + 1e-5
        self._labels = [share_frames(utterance) for utterance in utterances]
        self._network = LetterNetwork((2 * CONTEXT_FRAMES + 1) * frames.shape[1])
        optimizer = torch.optim.AdamW(self._network.parameters(), weight_decay=WEIGHT_DECAY)
        self._optimizer = optimizer
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, MAX_LEARNING_RATE, total_steps=sum(EPOCHS) * len(self._create_batches()) + 1
        )

    def run(self) -> dict[str, FloatArray]:
        """Train; return the tensors of a ``LetterModel``."""
        for epochs in EPOCHS:
            for _ in range(epochs):
                losses = [self._train_batch(batch) for batch in self._create_batches()]
                print(f"loss {np.mean(losses):.3f}", file=sys.stderr)
            self._realign()
        counts = np.bincount(np.concatenate(self._labels), minlength=1 + len(LETTERS)) + 1.0
        return {
            "mean": self._mean,
            "std": self._std,
            "hidden_weight": self._network.hidden.weight.detach().numpy(),
            "hidden_bias": self._network.hidden.bias.detach().numpy(),
            "output_weight": self._network.output.weight.detach().numpy(),
            "output_bias": self._network.output.bias.detach().numpy(),
            "log_prior": np.log(counts / counts.sum()).astype(np.float32),
        }

    def _create_batches(self) -> list[IntArray]:
        count = len(self._utterances)
        return np.array_split(self._rng.permutation(count), -(-count // BATCH_UTTERANCES))

    def _prepare(self, utterance: Utterance) -> Tensor:
        frames = (utterance.encoded.astype(np.float32) - self._mean) / self._std
        return torch.from_numpy(stack_context(frames))

    def _train_batch(self, batch: IntArray) -> float:
        inputs = torch.cat([self._prepare(self._utterances[index]) for index in batch])
        labels = torch.from_numpy(np.concatenate([self._labels[index] for index in batch]))
        scores = self._network(nn.functional.dropout(inputs, DROPOUT))
        loss = nn.functional.cross_entropy(scores, labels, label_smoothing=LABEL_SMOOTHING)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        return loss.item()

    @torch.no_grad()
    def _realign(self) -> None:
        for index, utterance in enumerate(self._utterances):
            scores = self._network(self._prepare(utterance)).log_softmax(dim=1).numpy()
            self._labels[index] = realign(utterance, scores)


def share_frames(utterance: Utterance) -> IntArray:
    """Return a class for each frame, (T,): the letters of a word share its frames equally."""
    labels = np.full(len(utterance.encoded), SILENCE)
    for word in utterance.words:
        frames, letters = utterance.get_frames(word), spell(word.text)
        labels[frames.start : frames.stop] = _share(letters, len(frames))
    return labels


def realign(utterance: Utterance, scores: FloatArray) -> IntArray:
    """Return a class for each frame, (T,): the best path through the letters of each word, within its frames."""
    labels = np.full(len(utterance.encoded), SILENCE)
    for word in utterance.words:
        frames, letters = utterance.get_frames(word), spell(word.text)
        if len(frames) <= len(letters):
            labels[frames.start : frames.stop] = _share(letters, len(frames))
            continue
        # The pauses around the letters are impossible.
        silence = np.full(len(frames), -1e9)
        emissions = np.vstack((silence, scores[frames.start : frames.stop, letters].T, silence))
        is_pause = np.array([True, *(False for _ in letters), True])
        path = find_best_path(emissions, is_pause, 0.0)
        labels[frames.start : frames.stop] = np.array(letters)[path - 1]
    return labels


def _share(letters: Sequence[int], frames: int) -> list[int]:
    return [letters[frame * len(letters) // frames] for frame in range(frames)]


def synthesize_utterances(model: Model, count: int, seed: int = 0) -> Iterator[Utterance]:
    """Yield sentences spoken by random voices, with noise and silence around."""
    rng = np.random.default_rng(seed)
    prose = [
        word.lower()
        for word in re.findall(r"\b[A-Za-z][a-z]+\b", " ".join(pydoc_data.topics.topics.values()))
    ]
    for _ in range(count):
        voice = replace(Voice.random(rng), rate_wpm=int(rng.integers(95, 231)))
        start, length = int(rng.integers(len(prose) - 14)), int(rng.integers(3, 14))
        words = list(random_phrase(rng)) if rng.random() < 0.35 else prose[start : start + length]
        try:
            speech = synthesize([word.lower() for word in words], voice)
        except ValueError:  # espeak-ng skips a word
            continue
        before, after = rng.integers(0, int(EDGE_S * SAMPLE_RATE_HZ), 2)
        waveform = np.pad(speech.waveform.astype(np.float64), (before, after))
        waveform += 10 ** rng.uniform(*NOISE_LEVELS_LOG10) * rng.standard_normal(len(waveform))
        shift_s = before / SAMPLE_RATE_HZ
        yield _create_utterance(
            model,
            np.clip(waveform, -32768, 32767).astype(np.int16),
            [TimedWord(word.text, word.start_s + shift_s, word.end_s + shift_s) for word in speech.words],
        )


def read_clips(model: Model, manifest: Path) -> Iterator[Utterance]:
    """Yield the clips of a manifest that have word times."""
    for entry in read_manifest(manifest).entries:
        words = [
            TimedWord(word.text, word.start_s, word.end_s)
            for word in entry.words
            if word.start_s is not None and word.end_s is not None
        ]
        if words:
            yield _create_utterance(model, _read_audio(entry.media), words)


def _create_utterance(model: Model, waveform: NDArray[np.int16], words: Sequence[TimedWord]) -> Utterance:
    known = tuple(word for word in words if min(spell(word.text)) > SILENCE)
    return Utterance(model.encode(waveform).astype(np.float16), known)


def _read_audio(path: Path) -> NDArray[np.int16]:
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ)
    with av.open(path) as container:
        frames = [*container.decode(audio=0), None]  # None flushes
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the model and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.letter_model",
        description="Train the letter model of Moonshine's word times.",
    )
    parser.add_argument("--manifest", type=Path, action="append", default=[], help="clips with word times")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="number of synthesized sentences")
    parser.add_argument("--out", type=Path, default=LETTER_MODEL)
    options = parser.parse_args(arguments)
    model = Model(find_model_folder())
    utterances = list(synthesize_utterances(model, options.sentences))
    for manifest in options.manifest:
        utterances += read_clips(model, manifest)
    print(f"{len(utterances)} utterances", file=sys.stderr)
    tensors = Trainer(utterances).run()
    save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, options.out)


if __name__ == "__main__":
    main()
