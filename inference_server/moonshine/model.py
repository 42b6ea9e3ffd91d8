"""The Moonshine network: encoder and greedy decoder, run by onnxruntime on the CPU."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.moonshine.tokenizer import Vocabulary
from gorggle_server.onnx_session import open_session
from gorggle_server.repetition import MAX_REPEATS, find_loop_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "moonshine_voice"
MODEL_FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
# Of the files one after the other, as in moonshine-voice 0.1.0.
MODEL_SHA256 = "3975a5d0adab3f82bf70e9bc15987bfcabc1493f237ba6b5aaa824259890b57f"

START_TOKEN, END_TOKEN = 1, 2
# A limit of the authors: speech has fewer tokens, loops have more.
MAX_TOKENS_PER_SECOND = 6.5
MIN_TOKEN_LIMIT = 8

# The three convolutions of the encoder: stride, and receptive field of one frame.
SAMPLES_PER_FRAME = 64 * 3 * 2
RECEPTIVE_FIELD_SAMPLES = 895
_PCM_SCALE = 32_768.0


def find_model_folder() -> Path:
    """Return the folder of the English tiny model in the package ``moonshine-voice``.

    Raises:
        NotFoundError: the package, or onnxruntime, is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise NotFoundError("onnxruntime is not installed: pip install 'gorggle[server]'")
    # Located without importing it: the package imports the PortAudio library.
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, "assets", "tiny-en")
        if all((folder / name).is_file() for name in MODEL_FILES):
            return folder
    raise NotFoundError(
        "the weights were not found: pip install moonshine-voice==0.1.0 (part of gorggle[server]; there are wheels for "
        "Linux on x86-64 with glibc 2.34, and for Windows; later versions have no weights)"
    )


class Model:
    """Encoder, decoder and vocabulary. Not thread-safe.

    Utterances are computed one by one. The activations are quantized with one scale per tensor and normalized over time, so in a
    batch the result of an utterance would depend on the others. Batches are not faster on a CPU either.

    Args:
        folder: with the files of ``MODEL_FILES``.
        num_threads: of one operation.

    Raises:
        ModelFormatError: a file is damaged.
    """

    def __init__(self, folder: Path, num_threads: int = 1) -> None:
        self.vocabulary = Vocabulary.load(folder / MODEL_FILES[2])
        self._encoder = open_session(folder / MODEL_FILES[0], num_threads)
        self._decoder = open_session(folder / MODEL_FILES[1], num_threads)
        self._outputs = [output.name for output in self._decoder.get_outputs()]
        self._empty_cache = {
            entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), np.float32)
            for entry in self._decoder.get_inputs()
            if entry.name.startswith("past_key_values.")
        }

    def encode(self, waveform: NDArray[np.int16]) -> NDArray[np.float32]:
        """Encode an utterance.

        Args:
            waveform: int16 (S,), 16 kHz; shorter ones are padded to the receptive field of one frame.

        Returns:
            (T, 288), one frame per 384 samples (24 ms).
        """
        missing = max(0, RECEPTIVE_FIELD_SAMPLES - len(waveform))
        samples = np.pad(waveform.astype(np.float32) / _PCM_SCALE, (0, missing))[None]
        inputs = {"input_values": samples, "attention_mask": np.ones(samples.shape, np.int64)}
        hidden: NDArray[np.float32] = self._encoder.run(None, inputs)[0][0]
        return hidden

    def start_decoding(self, encoded: NDArray[np.float32]) -> GreedyDecoding:
        """Return the decoding of an encoded utterance, (T, 288)."""
        return GreedyDecoding(self, encoded)

    def run_decoder(
        self, encoded: NDArray[np.float32], token: int, cache: Mapping[str, Any]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Compute the next token's log-probabilities.

        Args:
            encoded: (T, 288).
            token: the previous token.
            cache: keys and values of the tokens before it; empty for the first token.

        Returns:
            (V,), and the extended cache.
        """
        mask = np.ones((1, len(encoded) * SAMPLES_PER_FRAME), np.int64)  # of the samples, not the frames
        inputs = {
            "input_ids": np.array([[token]]),
            "encoder_hidden_states": encoded[None],
            "encoder_attention_mask": mask,
            "use_cache_branch": np.array([bool(cache)]),
            **(cache or self._empty_cache),
        }
        outputs = dict(zip(self._outputs, self._decoder.run(None, inputs), strict=True))
        logits = outputs.pop("logits")[0, -1]
        extended = {
            f"past_key_values{name.removeprefix('present')}": value for name, value in outputs.items()
        }
        # Keys and values of the encoder are computed with the first token; later the graph returns empty ones.
        extended.update({name: value for name, value in cache.items() if ".encoder." in name})
        return _log_softmax(logits), extended


class GreedyDecoding:
    """Greedy search over one utterance, token by token.

    Attributes:
        tokens: the tokens so far, without the start and the end.
        scores: their log-probabilities.
        is_finished: the end of the text, the limit of tokens, or a loop is reached.
        is_loop_removed: the search repeated a phrase in a loop, which is kept once.
    """

    def __init__(self, model: Model, encoded: NDArray[np.float32]) -> None:
        self.encoded = encoded
        self.tokens: list[int] = []
        self.scores: list[float] = []
        self.is_finished = self.is_loop_removed = False
        self._model = model
        self._cache: dict[str, Any] = {}
        seconds = len(encoded) * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ
        self._limit = MIN_TOKEN_LIMIT + math.ceil(seconds * MAX_TOKENS_PER_SECOND)

    def step(self) -> None:
        """Find the next token.

        Raises:
            ModelFormatError: the decoder's output is not finite.
        """
        previous = self.tokens[-1] if self.tokens else START_TOKEN
        scores, self._cache = self._model.run_decoder(self.encoded, previous, self._cache)
        token = int(scores.argmax())
        if not np.isfinite(scores[token]):
            raise ModelFormatError("the decoder's output is not finite: its weights are damaged")
        if token == END_TOKEN:
            self.is_finished = True
            return
        self.tokens.append(token)
        self.scores.append(float(scores[token]))
        if length := find_loop_length(self.tokens):
            del self.tokens[-length * MAX_REPEATS :], self.scores[-length * MAX_REPEATS :]
            self.is_loop_removed = True
        self.is_finished = self.is_loop_removed or len(self.tokens) >= self._limit


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max()
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum())
    return result
