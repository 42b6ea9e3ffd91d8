"""The Whisper network, run by CTranslate2: spectrograms, languages, beam search, alignment."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.whisper.model_folder import TOKENIZER_FILE, ModelFolder
from gorggle_server.whisper.words import FRAME_S, AlignedTokens, TokenizedWord, split_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The encoder takes exactly this much audio; shorter utterances are padded with silence, as in training.
MAX_DURATION_S = 30
MEL_FRAMES = MAX_DURATION_S * 100
_PCM_SCALE = 32_768.0
# The decoder's positions.
_MAX_TOKENS = 448
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")
# Whisper's name of Javanese was withdrawn from BCP 47.
_BCP47 = {"jw": "jv"}
_WHISPER_CODES = {tag: code for code, tag in _BCP47.items()}
# From the lowest energy of a spectrogram to its highest: 80 dB, in the scale of its values.
_DYNAMIC_RANGE, _LOWEST_VALUE = 2.0, -1.5


@dataclass(frozen=True)
class SearchOptions:
    """Options of the beam search; ``max_tokens`` without the prompt."""

    beam_size: int
    length_penalty: float
    num_hypotheses: int
    max_tokens: int


@dataclass(frozen=True)
class Transcription:
    """Result of the search for one utterance.

    Attributes:
        texts: tokens of each hypothesis, best first, without special ones.
        log_probabilities: of each hypothesis, end included.
        no_speech_probability: that the utterance has no speech.
    """

    texts: tuple[tuple[int, ...], ...]
    log_probabilities: tuple[float, ...]
    no_speech_probability: float


class Model:
    """Network, tokenizer and spectrogram. Not thread-safe.

    Args:
        folder: the model, from ``check_folder``.
        device: "cpu" or "cuda".
        dtype: "float32" or "bfloat16"; a device without bfloat16 computes in float16 or float32.
        int8: compute with 8-bit weights.
        num_threads: on a CPU.

    Raises:
        ModelFormatError: the files do not belong together, or are damaged.
        InvalidRequestError: the device is not available.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        int8: bool = False,
        num_threads: int = 1,
    ) -> None:
        # Imported late: optional, and a second that servers without such a model save.
        import ctranslate2
        import tokenizers
        from faster_whisper.feature_extractor import FeatureExtractor
        from faster_whisper.tokenizer import Tokenizer

        self._storage_view: Any = ctranslate2.StorageView
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder.path / TOKENIZER_FILE))
        except Exception as error:  # boundary to tokenizers, which raises plain exceptions
            raise ModelFormatError(
                f"{folder.path / TOKENIZER_FILE} is damaged ({error}): download or convert the model again"
            ) from error
        self._special = _find_special_tokens(tokenizer, folder)
        try:
            self._network: Any = ctranslate2.models.Whisper(
                str(folder.path),
                device=device,
                compute_type=_choose_compute_type(device, dtype, int8=int8),
                intra_threads=num_threads,
            )
        except (RuntimeError, ValueError) as error:
            if device == "cuda" and "CUDA" in str(error):
                raise InvalidRequestError(
                    f"device is cuda, but CTranslate2 cannot use a GPU here: {error}"
                ) from error
            raise ModelFormatError(
                f"{folder.path} cannot be loaded ({error}): download or convert the model again"
            ) from error
        self._extract = FeatureExtractor(feature_size=self._network.n_mels)
        # Its language does not matter: only the texts of tokens are taken from it.
        self._tokenizer: Any = Tokenizer(tokenizer, multilingual=False)
        self._language_tokens = {
            _BCP47.get(match[1], match[1]): token
            for text, token in sorted(
                tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]
            )
            if (match := _LANGUAGE_TOKEN.fullmatch(text))
        }

    @property
    def is_multilingual(self) -> bool:
        """Whether the model has more languages than English."""
        return bool(self._network.is_multilingual)

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags of the languages."""
        return tuple(self._language_tokens) if self.is_multilingual else ("en",)

    def compute_features(self, waveform: NDArray[np.int16]) -> NDArray[np.float32]:
        """Compute the log-mel spectrogram of an utterance: (mels, 3000) for (S,) at 16 kHz, padded with silence.

        Raises:
            InvalidRequestError: it lasts more than 30 s.
        """
        duration_s = len(waveform) / SAMPLE_RATE_HZ
        if duration_s > MAX_DURATION_S:
            raise InvalidRequestError(
                f"the utterance lasts {duration_s:.1f} s; Whisper takes at most {MAX_DURATION_S} s: split it"
            )
        spectrogram = self._extract(waveform.astype(np.float32) / _PCM_SCALE)[:, :MEL_FRAMES]
        silence = max(float(spectrogram.max()) - _DYNAMIC_RANGE, _LOWEST_VALUE)
        features = np.full((len(spectrogram), MEL_FRAMES), silence, np.float32)
        features[:, : spectrogram.shape[1]] = spectrogram
        return features

    def encode(self, features: Sequence[NDArray[np.float32]]) -> Any:
        """Encode spectrograms of ``compute_features`` together; the result is an array of CTranslate2."""
        return self._network.encode(self._storage_view.from_array(np.stack(features)))

    def detect_languages(self, encoded: Any, allowed: Sequence[str] = ()) -> list[str]:
        """Return the most probable language of each utterance, of those allowed, or of all if none of them is the model's."""
        if not self.is_multilingual:
            return ["en"] * int(encoded.shape[0])
        known = [tag for tag in allowed if tag in self._language_tokens] or list(self._language_tokens)
        if len(known) == 1:
            return known * int(encoded.shape[0])
        names = {f"<|{_WHISPER_CODES.get(tag, tag)}|>": tag for tag in known}
        return [
            next(names[token] for token, _ in ranked if token in names)
            for ranked in self._network.detect_language(encoded)
        ]

    def search(
        self, encoded: Any, languages: Sequence[str], options: SearchOptions
    ) -> list[Transcription | ModelFormatError]:
        """Find the most probable texts of encoded utterances, in one beam search.

        Returns:
            For each utterance its hypotheses, or an error if the network's output is not finite.
        """
        prompts = [
            [*self._create_prompt(language), self._special["<|notimestamps|>"]] for language in languages
        ]
        results = self._network.generate(
            encoded,
            prompts,
            beam_size=options.beam_size,
            num_hypotheses=min(options.num_hypotheses, options.beam_size),
            length_penalty=options.length_penalty,
            max_length=min(_MAX_TOKENS, len(prompts[0]) + options.max_tokens),
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._to_transcription(result, options.length_penalty) for result in results]

    def align(
        self,
        encoded: Any,
        languages: Sequence[str],
        texts: Sequence[Sequence[int]],
        durations_s: Sequence[float],
    ) -> list[AlignedTokens]:
        """Find when the tokens of each utterance's text are spoken, from the decoder's cross-attention."""
        frames = [max(2, round(duration_s * 100)) for duration_s in durations_s]
        aligned: dict[int, AlignedTokens] = {}
        # The network takes one language at a time. A batch rarely has several.
        for language in sorted(set(languages)):
            results = self._network.align(
                encoded, self._create_prompt(language), [list(text) for text in texts], frames
            )
            for row, (result, text) in enumerate(zip(results, texts, strict=True)):
                if languages[row] == language:
                    aligned[row] = _to_aligned_tokens(result, len(text), durations_s[row])
        return [aligned[row] for row in range(len(texts))]

    def split_words(self, tokens: Sequence[int]) -> list[TokenizedWord]:
        """Return the words of a text."""
        texts, pieces = self._tokenizer.split_tokens_on_unicode(list(tokens))
        return split_words(zip(texts, map(len, pieces), strict=True))

    def _create_prompt(self, language: str) -> list[int]:
        start = self._special["<|startoftranscript|>"]
        if not self.is_multilingual:
            return [start]
        return [start, self._language_tokens[language], self._special["<|transcribe|>"]]

    def _to_transcription(self, result: Any, length_penalty: float) -> Transcription | ModelFormatError:
        end = self._special["<|endoftext|>"]
        texts, scores = [], []
        for ids, score in zip(result.sequences_ids, result.scores, strict=True):
            # The score is divided by this power of the length.
            total = score * max(1, len(ids)) ** length_penalty
            if not math.isfinite(total):
                return ModelFormatError(
                    "the decoder's output is not finite: the weights or the device are damaged"
                )
            texts.append(tuple(token for token in ids if token < end))
            scores.append(total)
        return Transcription(tuple(texts), tuple(scores), float(result.no_speech_prob))


def _find_special_tokens(tokenizer: Any, folder: ModelFolder) -> dict[str, int]:
    """Return the ids of the special tokens, which must be those of the weights' vocabulary too."""
    special = {}
    for text in ("<|startoftranscript|>", "<|endoftext|>", "<|transcribe|>", "<|notimestamps|>"):
        token = tokenizer.token_to_id(text)
        if token is None or folder.vocabulary[token : token + 1] != (text,):
            raise ModelFormatError(
                f"{folder.path / TOKENIZER_FILE} does not belong to the model's vocabulary: {text} is token {token}; "
                "download or convert the model again"
            )
        special[text] = token
    return special


def _choose_compute_type(device: str, dtype: str, *, int8: bool) -> str:
    """Return the first type that the device supports, of those that fit the settings."""
    import ctranslate2

    types = ["bfloat16", "float16", "float32"] if dtype == "bfloat16" else ["float32"]
    preferred = [f"int8_{name}" for name in types] if int8 else types
    try:
        supported = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError):
        return preferred[-1]  # loading fails with the reason
    return next((name for name in preferred if name in supported), "default")


def _to_aligned_tokens(result: Any, count: int, duration_s: float) -> AlignedTokens:
    """Return the times of ``count`` tokens, from pairs of a token and a frame along the best path."""
    starts: dict[int, int] = {}
    for token, frame in result.alignments:
        starts.setdefault(token, frame)
    times_s: list[float] = []
    for token in range(count + 1):
        known_s = starts[token] * FRAME_S if token in starts else duration_s
        times_s.append(max(min(known_s, duration_s), times_s[-1] if times_s else 0.0))
    log_probabilities = [math.log(max(float(value), 1e-10)) for value in result.text_token_probs[:count]]
    return AlignedTokens(times_s, log_probabilities)
