"""Word timestamps of Moonshine's text: a forced alignment of its letters to the audio.

The network gives no times. ``LetterModel`` estimates from its encoder's output which letter is spoken in each frame; the best path
through the letters of the known text gives the words' limits. No pronunciations are needed: in context, the letters of a
word stand for its sounds well enough (``python -m training.letter_model`` trains the model).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from gorggle_server.errors import ModelFormatError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.moonshine.model import RECEPTIVE_FIELD_SAMPLES, SAMPLES_PER_FRAME
from gorggle_server.viterbi import find_best_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

LETTER_MODEL = Path(__file__).parents[1] / "assets" / "moonshine-tiny-en-letters.safetensors"

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Class 0 is silence and everything else that is not speech; class n is letter n − 1.
SILENCE = 0
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The class after the letters stands for a word without letters or digits, such as "&": any speech (``add_any_letter``).
_ANY_LETTER = 1 + len(LETTERS)

CONTEXT_FRAMES = 2
# The receptive fields of two frames overlap: this is the moment where one frame's centre gives way to the next one's.
_FIRST_FRAME_S = (RECEPTIVE_FIELD_SAMPLES - SAMPLES_PER_FRAME) / 2 / SAMPLE_RATE_HZ
FRAME_S = SAMPLES_PER_FRAME / SAMPLE_RATE_HZ
# How strongly a letter's frequency is discounted, and the cost of a pause: 0.3 to 0.8 and 1 to 3 give nearly the same times.
_PRIOR_EXPONENT, _PAUSE_COST = 0.5, 1.0


def frame_start_s(frame: float) -> float:
    """Return the time at which a frame of the encoder begins, in seconds from the start of the waveform."""
    return _FIRST_FRAME_S + frame * FRAME_S


@dataclass(frozen=True)
class LetterModel:
    """Estimates the letter of each frame: one hidden layer over five frames of the encoder's output (width D = 288).

    Attributes:
        mean, std: (D,), of the encoder's output.
        hidden_weight, hidden_bias: (H, 5 D) and (H,).
        output_weight, output_bias: (27, H) and (27,).
        log_prior: (27,), how often each class occurs in the training data.
    """

    mean: FloatArray
    std: FloatArray
    hidden_weight: FloatArray
    hidden_bias: FloatArray
    output_weight: FloatArray
    output_bias: FloatArray
    log_prior: FloatArray

    @classmethod
    def load(cls, path: Path = LETTER_MODEL) -> Self:
        """Load the weights.

        Raises:
            ModelFormatError: the file is missing or damaged.
        """
        from safetensors.numpy import load_file

        try:
            tensors = load_file(path)
            return cls(**{name: tensor.astype(np.float32) for name, tensor in tensors.items()})
        except Exception as error:  # boundary to safetensors
            raise ModelFormatError(f"{path} cannot be loaded ({error}): install gorggle again") from error

    def compute_scores(self, encoded: FloatArray) -> FloatArray:
        """Return the log-likelihood of each class in each frame, up to a constant: (T, 27) for (T, D)."""
        inputs = stack_context((encoded - self.mean) / self.std)
        hidden = np.maximum(inputs @ self.hidden_weight.T + self.hidden_bias, 0)
        logits = hidden @ self.output_weight.T + self.output_bias
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        scores: FloatArray = log_probabilities - _PRIOR_EXPONENT * self.log_prior
        return scores


def stack_context(frames: FloatArray) -> FloatArray:
    """Return each frame with its neighbours, (T, 5 D) for (T, D); there are zeros beyond the ends."""
    padded = np.pad(frames, ((CONTEXT_FRAMES, CONTEXT_FRAMES), (0, 0)))
    neighbours = [padded[shift : shift + len(frames)] for shift in range(2 * CONTEXT_FRAMES + 1)]
    return np.concatenate(neighbours, axis=1)


def align_words(scores: FloatArray, words: Sequence[str], duration_s: float) -> list[tuple[float, float]]:
    """Find where each word is spoken.

    Args:
        scores: (T, 27), of ``LetterModel.compute_scores``.
        words: the words in order.
        duration_s: of the waveform; times lie within it.

    Returns:
        Start and end of each word in seconds. They do not overlap and have a positive duration.
    """
    if not words:
        return []
    spellings = [spell(word) for word in words]
    # With fewer frames than letters, frames are subdivided so that every letter gets at least one.
    parts = -(-sum(map(len, spellings)) // len(scores))
    classes, owners = [SILENCE], [-1]
    for index, spelling in enumerate(spellings):
        classes += [*spelling, SILENCE]
        owners += [index] * len(spelling) + [-1]
    emissions = add_any_letter(scores)[:, classes]
    path = find_best_path(np.repeat(emissions, parts, axis=0).T, np.array(owners) < 0, _PAUSE_COST)
    owner_of_frame = np.array(owners)[path]
    times = []
    for index in range(len(words)):
        (frames,) = np.nonzero(owner_of_frame == index)
        times.append((frame_start_s(frames[0] / parts), frame_start_s((frames[-1] + 1) / parts)))
    # The last frames of the waveform have no frame of the encoder.
    return [(min(start_s, duration_s - 0.001), min(end_s, duration_s)) for start_s, end_s in times]


def add_any_letter(scores: FloatArray) -> FloatArray:
    """Append the class of any letter, which scores as the best letter of each frame: (T, 28) for (T, 27)."""
    return np.hstack((scores, scores[:, 1:].max(axis=1, keepdims=True)))


def spell(word: str) -> list[int]:
    """Return the classes of a word's letters; digits are spelled out one by one."""
    spoken = re.sub(r"\d", lambda digit: _DIGITS[int(digit[0])], word.lower())
    return [1 + LETTERS.index(letter) for letter in spoken if letter in LETTERS] or [_ANY_LETTER]
