"""Writes small Whisper models in the form of CTranslate2, whose weights are constructed so that their output is known.

The decoder's output depends on the position: a script says which token follows at each. The first word is a greeting in the language
of the prompt, which self-attention carries to it. The encoder, and cross-attention, have random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LANGUAGE_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv "
    "bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa "
    "lb my bo tl mg as tt haw ln ha ba jw su"
)
LANGUAGES = _LANGUAGE_CODES.split()
GREETINGS = {"en": " Hello", "de": " Hallo", "fr": " Bonjour"}
SENTENCE = (",", " Mis", "ter", " Smith", ".")
LOOP = (" oh", " no") * 200
WIDTH, HEADS, MELS = 32, 2, 80
_FIRST_TEXT_TOKEN, _TIMESTAMPS = 300, 1501


@dataclass(frozen=True)
class TinyModel:
    """What a model says.

    Attributes:
        script: texts of the tokens after the greeting.
        has_greeting: the text begins with one; English models only.
        detected: languages, the most probable first.
        is_silent: it is sure that there is no speech, and of no word.
        has_damaged_weights: its output is not finite.
    """

    script: Sequence[str] = SENTENCE
    is_multilingual: bool = True
    has_greeting: bool = True
    detected: Sequence[str] = ("de", "fr", "en")
    is_silent: bool = False
    has_damaged_weights: bool = False


def write_model(folder: Path, model: TinyModel = TinyModel()) -> Path:
    """Write a model to ``folder`` and return it."""
    from ctranslate2.specs import WhisperSpec

    texts = list(dict.fromkeys([*GREETINGS.values(), *model.script]))
    vocabulary = _create_vocabulary(texts, is_multilingual=model.is_multilingual)
    ids = {token: number for number, token in enumerate(vocabulary)}
    spec = WhisperSpec(1, HEADS, 1, HEADS)
    _fill_encoder(spec.encoder)
    _fill_decoder(spec.decoder, model, ids)
    spec.register_vocabulary(vocabulary)
    spec.config.suppress_ids = [ids["<|startoftranscript|>"], ids["<|nospeech|>"]]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[f"<|{language}|>"] for language in LANGUAGES]
    spec.config.alignment_heads = [[0, 0], [0, 1]]
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    _write_tokenizer(folder / "tokenizer.json", vocabulary)
    return folder


def _create_vocabulary(texts: Sequence[str], *, is_multilingual: bool) -> list[str]:
    """Return the tokens in Whisper's order, with unused ones in place of most words."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = [
        ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0] for text in texts
    ]
    letters = sorted(ByteLevel.alphabet())
    # CTranslate2 recognizes a multilingual model by its empty token.
    unused = [*(f"unused{number}" for number in range(50_256)), *([""] if is_multilingual else [])]
    base = [
        *letters,
        *unused[len(letters) : _FIRST_TEXT_TOKEN],
        *(word for word in words if word not in letters),
    ]
    base += unused[len(base) :]
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    timestamps = [f"<|{number * 0.02:.2f}|>" for number in range(_TIMESTAMPS)]
    return [*base, *special, "<|notimestamps|>", *timestamps]


def _write_tokenizer(path: Path, vocabulary: Sequence[str]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    first_special = vocabulary.index("<|endoftext|>")
    words = {token: number for number, token in enumerate(vocabulary[:first_special])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in vocabulary[first_special:-_TIMESTAMPS]]
    )
    tokenizer.save(str(path))


class _Random:
    """Random weights; the same in every run."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def draw(self, *shape: int, scale: float = 0.1) -> NDArray[np.float32]:
        return (scale * self._rng.standard_normal(shape)).astype(np.float32)


def _fill_encoder(encoder: object) -> None:
    random = _Random()
    for convolution, inputs in ((encoder.conv1, MELS), (encoder.conv2, WIDTH)):
        convolution.weight, convolution.bias = random.draw(WIDTH, inputs, 3), _zeros(WIDTH)
    encoder.position_encodings.encodings = random.draw(1500, WIDTH)
    (layer,) = encoder.layer
    _fill_attention(layer.self_attention, random.draw(3 * WIDTH, WIDTH), random.draw(WIDTH, WIDTH))
    _fill_feed_forward(layer.ffn)
    _fill_norm(encoder.layer_norm)


def _fill_decoder(decoder: object, model: TinyModel, ids: dict[str, int]) -> None:
    random = _Random()
    known = [*dict.fromkeys(map(_to_token, model.script)), *map(_to_token, GREETINGS.values())]
    known += [*(f"<|{language}|>" for language in GREETINGS), "<|endoftext|>", "<|nospeech|>"]
    axes = {token: axis for axis, token in enumerate(dict.fromkeys(known))}
    assert len(axes) <= WIDTH, "each token of a script has its own dimension"
    embeddings = _zeros(len(ids), WIDTH)
    for token, axis in axes.items():
        embeddings[ids[token], axis] = 1.0
    if model.is_silent:  # sure of it in spite of the small gain
        embeddings[ids["<|nospeech|>"]] *= 5000.0
    decoder.embeddings.weight, decoder.projection.weight = embeddings, embeddings
    decoder.position_encodings.encodings = _create_script(model, axes)
    (layer,) = decoder.layer
    # Attention is uniform over the tokens so far; its values turn a language into the greeting of this language.
    values = _zeros(WIDTH, WIDTH)
    for language, greeting in GREETINGS.items():
        values[axes[_to_token(greeting)], axes[f"<|{language}|>"]] = 4.0
    fused = np.concatenate([_zeros(2 * WIDTH, WIDTH), values])
    _fill_attention(layer.self_attention, fused, np.eye(WIDTH, dtype=np.float32))
    attention = layer.attention
    _fill_norm(attention.layer_norm)
    for linear, weight in zip(
        attention.linear,
        (
            random.draw(WIDTH, WIDTH, scale=0.5),
            random.draw(2 * WIDTH, WIDTH, scale=0.5),
            random.draw(WIDTH, WIDTH, scale=0.01),
        ),
        strict=True,
    ):
        linear.weight, linear.bias = weight, _zeros(len(weight))
    _fill_feed_forward(layer.ffn)
    # How sharply the next token is predicted.
    gain = np.nan if model.has_damaged_weights else 0.01 if model.is_silent else 4.0
    _fill_norm(decoder.layer_norm, gain)


def _create_script(model: TinyModel, axes: dict[str, int]) -> NDArray[np.float32]:
    """Return the decoder's position encodings: at each position the token that follows it."""
    positions = _zeros(448, WIDTH)
    for rank, language in enumerate(model.detected):
        positions[0, axes[f"<|{language}|>"]] = 8.0 / (1 + rank)
    if model.is_silent:
        positions[0, axes["<|nospeech|>"]] = 16.0
    # The prompt: start, language, task, no timestamps; English models have the first and the last only.
    first = 3 if model.is_multilingual else 1
    if model.has_greeting and not model.is_multilingual:
        positions[first, axes[_to_token(GREETINGS["en"])]] = 16.0
    first += model.has_greeting
    script = [_to_token(text) for text in model.script][: 448 - first]
    for position, token in enumerate(script, first):
        positions[position, axes[token]] = 16.0
    positions[first + len(script) :, axes["<|endoftext|>"]] = 16.0
    return positions


def _to_token(text: str) -> str:
    return text.replace(" ", "Ġ")


def _fill_attention(attention: object, fused: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    _fill_norm(attention.layer_norm)
    for linear, weight in zip(attention.linear, (fused, output), strict=True):
        linear.weight, linear.bias = weight, _zeros(len(weight))


def _fill_feed_forward(network: object) -> None:
    _fill_norm(network.layer_norm)
    network.linear_0.weight, network.linear_0.bias = _zeros(4 * WIDTH, WIDTH), _zeros(4 * WIDTH)
    network.linear_1.weight, network.linear_1.bias = _zeros(WIDTH, 4 * WIDTH), _zeros(WIDTH)


def _fill_norm(norm: object, gain: float = 1.0) -> None:
    norm.gamma, norm.beta = np.full(WIDTH, gain, np.float32), _zeros(WIDTH)


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)
