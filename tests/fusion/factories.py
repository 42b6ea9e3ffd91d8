"""Factories of synthetic words, segments and windows, and of Amazon Transcribe results."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from gorggle_fusion.result import FusedSegment
from gorggle_fusion.types import Origin, Segment, Window, Word
from gorggle_fusion.word_hypotheses import WordHypothesis
from gorggle_fusion.word_voting import FusedWord

VOCABULARY = [
    "the",
    "bin",
    "is",
    "blue",
    "at",
    "f",
    "two",
    "now",
    "please",
    "set",
    "white",
    "with",
    "nine",
    "again",
    "soon",
    "lay",
    "green",
    "by",
    "seven",
]


def word(text: str, start_s: float, end_s: float, confidence: float = 0.9) -> Word:
    return Word(text, start_s, end_s, confidence)


def make_words(text: str, start_s: float = 0.0, each_s: float = 0.4, confidence: float = 0.9) -> list[Word]:
    """Return the words of a text, consecutive and of equal duration."""
    return [
        Word(token, start_s + index * each_s, start_s + (index + 1) * each_s, confidence)
        for index, token in enumerate(text.split())
    ]


def window(
    words: Sequence[Word], speaker: str = "face-1", origin: Origin = "lips", end_s: float | None = None
) -> Window:
    last_s = max((w.end_s for w in words), default=0.0)
    end_s = last_s + 1 if end_s is None else end_s
    return Window(0.0, end_s, (segment(words, speaker, origin),) if words else ())


def segment(words: Sequence[Word], speaker: str = "face-1", origin: Origin = "lips") -> Segment:
    return Segment(words[0].start_s, max(w.end_s for w in words), speaker, origin, tuple(words))


def hypothesis(
    text: str, start_s: float, end_s: float, confidence: float = 0.9, origin: Origin = "lips"
) -> WordHypothesis:
    return WordHypothesis(text, start_s, end_s, confidence, origin, "face-1", (0.0, 1000.0))


def fused_segment(words: Iterable[Word], person: str = "person-1") -> FusedSegment:
    return FusedSegment(
        person, tuple(FusedWord(w.text, w.start_s, w.end_s, w.confidence, "audio") for w in words)
    )


def texts(words: Iterable[Any]) -> list[str]:
    return [w.text for w in words]


@st.composite
def sentences(
    draw: st.DrawFn, min_words: int = 0, max_words: int = 30, min_s: float = 0.17, max_s: float = 0.6
) -> list[Word]:
    """Draw consecutive words of one speaker; no word repeats one of the three before it."""
    count = draw(st.integers(min_words, max_words))
    rng = random.Random(draw(st.integers(0, 2**32)))
    words: list[Word] = []
    time_s = rng.uniform(0, 2)
    for _ in range(count):
        choices = [text for text in VOCABULARY if not any(w.text == text for w in words[-3:])]
        duration_s = rng.uniform(min_s, max_s)
        words.append(Word(rng.choice(choices), time_s, time_s + duration_s, rng.uniform(0.05, 0.99)))
        time_s += duration_s + (rng.choice([0.0, 0.02, 0.5, 2.0]))
    return words


def add_jitter(words: Iterable[Word], rng: random.Random, max_s: float) -> list[Word]:
    """Return the words with both ends moved by up to ``max_s``."""
    moved = []
    for w in words:
        start_s, end_s = (max(0.0, t + rng.uniform(-max_s, max_s)) for t in (w.start_s, w.end_s))
        moved.append(replace(w, start_s=min(start_s, end_s), end_s=max(start_s, end_s)))
    return moved


def build_transcribe_result(
    words: Sequence[tuple[str, float, float, float, str]], *, speaker_in_items: bool = True
) -> dict[str, Any]:
    """Return a result of Amazon Transcribe; punctuation becomes items of that type."""
    items: list[dict[str, Any]] = []
    labels = []
    for text, start_s, end_s, confidence, speaker in words:
        if not any(c.isalnum() for c in text):
            items.append({"type": "punctuation", "alternatives": [{"confidence": "0.0", "content": text}]})
            continue
        times = {"start_time": f"{start_s:.2f}", "end_time": f"{end_s:.2f}"}
        label = {"speaker_label": speaker} if speaker and speaker_in_items else {}
        alternatives = [{"confidence": str(confidence), "content": text}]
        items.append({**times, **label, "alternatives": alternatives, "type": "pronunciation"})
        labels.append({**times, "speaker_label": speaker})
    results: dict[str, Any] = {"transcripts": [{"transcript": ""}], "items": items}
    if any(label["speaker_label"] for label in labels):
        results["speaker_labels"] = {"speakers": 2, "segments": [{"items": labels}]}
    return {"jobName": "job", "accountId": "111122223333", "status": "COMPLETED", "results": results}
