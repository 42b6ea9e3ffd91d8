"""Word alignment from attention: invariants for arbitrary attention, and accuracy for realistic attention."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.avhubert.word_alignment import align_words
from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.events import Word
from gorggle_server.input_format import FRAME_S

TOKEN_TEXTS = ["▁", "▁go", "▁now", "a", "in", "▁b", "<unk>", "'s"]


@st.composite
def attentions(draw: st.DrawFn) -> tuple[np.ndarray, list[str], list[float]]:
    tokens = draw(st.lists(st.sampled_from(TOKEN_TEXTS), max_size=12)) + draw(st.sampled_from([[], ["</s>"]]))
    frames = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["random", "peaked", "zero", "flat", "backwards", "negative"]))
    weights = {
        "random": rng.random((len(tokens), frames)),
        "peaked": rng.random((len(tokens), frames)) ** 30,
        "zero": np.zeros((len(tokens), frames)),
        "flat": np.ones((len(tokens), frames)) / frames,
        "backwards": np.eye(max(len(tokens), frames))[: len(tokens), :frames][::-1],
        "negative": rng.standard_normal((len(tokens), frames)) * 1e6,
    }[kind]
    scores = (-10 * rng.random(len(tokens))).tolist()
    return weights, tokens, scores


@settings(max_examples=300, deadline=None)
@given(attentions())
def test_word_timestamps_are_ordered_and_within_the_clip(
    case: tuple[np.ndarray, list[str], list[float]],
) -> None:
    weights, tokens, scores = case
    if not tokens:
        return
    words = align_words(weights, tokens, token_scores=scores)
    text = "".join(token for token in tokens if token != "</s>").replace("▁", " ").split()
    assert [word.text for word in words] == text
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(word.end_s > word.start_s for word in words)
    assert all(0 <= time <= weights.shape[1] * 0.04 + 1e-9 for time in times)
    assert all(0 <= word.confidence <= 1 for word in words)


def make_attention(spans: list[tuple[int, int]], frames: int, floor: float = 0.0) -> np.ndarray:
    """Return attention spread evenly over each token's frames, plus ``floor`` spread over all frames."""
    weights = np.full((len(spans), frames), floor / frames)
    for row, (first, end) in enumerate(spans):
        weights[row, first:end] += (1 - floor) / (end - first)
    return weights


def test_unambiguous_attention_gives_exact_timestamps() -> None:
    spans = [(5, 9), (9, 12), (20, 26), (26, 29), (30, 40)]
    words = align_words(make_attention(spans, 40), ["▁he", "llo", "▁the", "re", "</s>"])
    assert words == [Word("hello", 0.2, 0.48, 1.0), Word("there", 0.8, pytest.approx(1.16), 1.0)]


def test_a_single_frame_word_is_located_within_one_frame() -> None:
    (word,) = align_words(make_attention([(12, 13), (25, 30)], 30), ["▁a", "</s>"])
    assert word.start_s == pytest.approx(12 * FRAME_S, abs=FRAME_S + 1e-9)
    assert word.end_s == pytest.approx(13 * FRAME_S, abs=FRAME_S + 1e-9)


def test_adjacent_words_share_a_boundary() -> None:
    words = align_words(make_attention([(4, 10), (10, 15), (15, 20)], 20), ["▁bin", "▁blue", "</s>"])
    assert [(word.start_s, word.end_s) for word in words] == [
        (pytest.approx(0.16), pytest.approx(0.4)),
        (pytest.approx(0.4), pytest.approx(0.6)),
    ]


def random_sentence(rng: np.random.Generator) -> tuple[list[tuple[int, int]], int]:
    """Return the frame spans of six words with random pauses and of the end token, and the clip length."""
    spans, position = [], int(rng.integers(3, 15))
    for _ in range(6):
        length = int(rng.integers(4, 14))
        spans.append((position, position + length))
        position += length + (int(rng.integers(4, 15)) if rng.random() < 0.4 else 0)
    frames = position + int(rng.integers(3, 15))
    return [*spans, (position, frames)], frames


# Fraction of uniformly spread attention, blur in frames, noise in nepers, and maximum mean error.
@pytest.mark.parametrize(
    ("floor", "blur", "noise", "max_mean_error_s"),
    [(0.0, 0.0, 0.0, 0.001), (0.3, 1.0, 0.3, 0.02), (0.5, 2.0, 0.6, 0.06)],
)
def test_noisy_attention_gives_accurate_timestamps(
    floor: float, blur: float, noise: float, max_mean_error_s: float
) -> None:
    rng = np.random.default_rng(7)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / max(blur, 0.01)) ** 2)
    errors = []
    for _ in range(40):
        spans, frames = random_sentence(rng)
        weights = make_attention(spans, frames, floor)
        weights = np.stack([np.convolve(row, kernel / kernel.sum(), "same") for row in weights])
        weights *= np.exp(noise * rng.standard_normal(weights.shape))
        words = align_words(
            weights / weights.sum(1, keepdims=True), [*["▁a", "▁b", "▁c", "▁d", "▁e", "▁f"], "</s>"]
        )
        for word, (first, end) in zip(words, spans[:-1], strict=True):
            errors += [abs(word.start_s - first * 0.04), abs(word.end_s - end * 0.04)]
    assert np.mean(errors) < max_mean_error_s
    assert np.quantile(errors, 0.95) <= 3 * FRAME_S + 1e-9


def test_more_tokens_than_frames_are_supported() -> None:
    words = align_words(np.ones((5, 2)), ["▁a", "▁b", "▁c", "▁d", "▁e"])
    times = [word.start_s for word in words] + [words[-1].end_s]
    assert all(late > early for early, late in itertools.pairwise(times))
    assert times[-1] <= 0.08 + 1e-9


def test_confidence_is_the_probability_of_the_whole_word() -> None:
    weights = make_attention([(0, 2), (2, 4), (4, 6), (6, 8)], 8)
    scores = [math.log(0.5), math.log(0.8), math.log(0.9), math.log(0.1)]
    words = align_words(weights, ["▁he", "llo", "▁you", "</s>"], token_scores=scores)
    assert [word.confidence for word in words] == [pytest.approx(0.4), pytest.approx(0.9)]


@pytest.mark.parametrize("tokens", [["</s>"], ["▁", "</s>"], ["<s>", "<pad>", "</s>"], ["▁"]])
def test_a_hypothesis_without_words_has_no_timestamps(tokens: list[str]) -> None:
    assert align_words(np.ones((len(tokens), 4)), tokens) == []


@pytest.mark.parametrize(
    ("shape", "keywords", "message"),
    [
        ((2, 4), {}, "expected 3 rows"),
        ((3, 0), {}, "at least one frame"),
        ((3,), {}, "expected 3 rows"),
        ((3, 4), {"token_scores": [0.0]}, "1 token scores; expected 3"),
    ],
)
def test_inconsistent_arguments_are_rejected(
    shape: tuple[int, ...], keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        align_words(np.ones(shape), ["▁a", "▁b", "</s>"], **keywords)


def test_non_finite_attention_raises_model_format_error() -> None:
    with pytest.raises(ModelFormatError, match="not finite"):
        align_words(np.full((1, 3), np.nan), ["▁a"])
