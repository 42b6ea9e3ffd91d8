"""Speech synthesis with word and phoneme timestamps: espeak-ng through its library's callback.

espeak-ng reports every word and phoneme with its first sample, so the timestamps are exact, not an alignment. The
library has global state and must be initialized once per process: it is loaded on first use and guarded by a lock; a
forked child may use its copy. Its pitch flutter continues from sentence to sentence: two processes that synthesize the
same sentences in the same order get the same samples; repeating a sentence in one process changes timing by 0.5 ms.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import SAMPLE_RATE_HZ

ESPEAK_SAMPLE_RATE_HZ = 22_050
# 22,050 : 16,000 in lowest terms.
_ESPEAK_BLOCK, _BLOCK = 441, 320

Int16Array = NDArray[np.int16]

# "en" is British English.
LANGUAGES = ("en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland")
_LANGUAGE_SHARES = (0.4, 0.3, 0.2, 0.05, 0.05)
# Variants with human-like voices; robots, whispers and klatt voices are left out.
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "adam", "Alex", "Alicia",
    "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed",
    "edward", "Gene", "gustave", "ian", "iven", "iven2", "john", "Lee", "linda", "Marco", "max", "Michael",
    "michel", "miguel", "mike2", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "steph",
    "steph2", "steph3", "travis", "victor",
)  # fmt: skip
# The letter "a", which is also a word, in espeak's phoneme notation.
_LETTER_A = "[[eI]]"
_PREPOSITIONS = frozenset({"at", "by", "in", "with"})
_DIGITS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})


@dataclass(frozen=True)
class TimedWord:
    """A word as given, and its timestamps."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedPhoneme:
    """A phoneme in espeak-ng's IPA: with stress marks, a diphthong as one symbol."""

    symbol: str
    start_s: float
    end_s: float


Timed = TypeVar("Timed", TimedWord, TimedPhoneme)


@dataclass(frozen=True)
class Speech:
    """Synthesized speech: mono int16 at 16 kHz, shape [S], with timestamps of words and phonemes."""

    waveform: Int16Array
    words: tuple[TimedWord, ...]
    phonemes: tuple[TimedPhoneme, ...]

    @property
    def duration_s(self) -> float:
        """Return the duration of the waveform."""
        return len(self.waveform) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Voice:
    """Voice settings in the units of espeak-ng (pitch and its range 0–99, volume 0–200)."""

    language: str = "en"
    variant: str = "m3"
    rate_wpm: int = 120
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 80

    @property
    def name(self) -> str:
        """Return the name under which espeak-ng loads the voice."""
        return f"{self.language}+{self.variant}"

    @classmethod
    def random(cls, rng: np.random.Generator) -> Voice:
        """Return a random voice with random speed and pitch."""
        return cls(
            language=str(rng.choice(LANGUAGES, p=_LANGUAGE_SHARES)),
            variant=str(rng.choice(VARIANTS)),
            # GRID speakers have about 150 words per minute without pauses.
            rate_wpm=int(rng.integers(95, 166)),
            pitch=int(rng.integers(25, 80)),
            pitch_range=int(rng.integers(25, 80)),
            volume=int(rng.integers(50, 91)),
        )


def synthesize(text_or_words: str | Sequence[str], voice: Voice) -> Speech:
    """Synthesize a sentence.

    A single letter is spoken by its name. The ambiguous "a" is the letter when written "A", or in GRID's context: after a
    preposition and before a digit ("at a two").

    Raises:
        ValueError: no words, a word that espeak-ng skips, or an unknown voice.
    """
    words = text_or_words.split() if isinstance(text_or_words, str) else list(text_or_words)
    if not words:
        raise ValueError("no words to say: at least one is required")
    spoken = [_spell(words, index) for index in range(len(words))]
    samples, events = _Synthesizer.get().synthesize(spoken, voice)
    timed_words, phonemes = _time_words(words, spoken, events, voice)
    return Speech(_resample(samples), timed_words, phonemes)


def join_speech(parts: Sequence[Speech], pauses_s: Sequence[float]) -> Speech:
    """Join parts on one time line, without the synthesizer's trailing silence.

    Args:
        parts: speech.
        pauses_s: silence before each part and after the last, rounded to samples.
    """
    pieces: list[Int16Array] = []
    words: list[TimedWord] = []
    phonemes: list[TimedPhoneme] = []
    samples = 0
    for part, pause_s in zip(parts, pauses_s, strict=False):
        pieces.append(_make_silence(pause_s))
        shift_s = (samples + len(pieces[-1])) / SAMPLE_RATE_HZ
        words += [_shift(word, shift_s) for word in part.words]
        phonemes += [_shift(phoneme, shift_s) for phoneme in part.phonemes]
        pieces.append(part.waveform[: math.ceil(part.phonemes[-1].end_s * SAMPLE_RATE_HZ)])
        samples += len(pieces[-2]) + len(pieces[-1])
    waveform = np.concatenate([*pieces, _make_silence(pauses_s[-1])])
    return Speech(waveform, tuple(words), tuple(phonemes))


def _shift(timed: Timed, shift_s: float) -> Timed:
    return replace(timed, start_s=timed.start_s + shift_s, end_s=timed.end_s + shift_s)


def _make_silence(duration_s: float) -> Int16Array:
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)


def _spell(words: Sequence[str], index: int) -> str:
    """Return a word's spelling for espeak-ng: lower case, without punctuation, the letter "a" marked."""
    word = words[index]
    between = index > 0 and words[index - 1] in _PREPOSITIONS and words[index + 1 : index + 2]
    if word == "A" or (word == "a" and between and words[index + 1] in _DIGITS):
        return _LETTER_A
    plain = re.sub(r"[^a-z0-9'-]", "", word.lower())
    if not plain:
        raise ValueError(f"{word!r} has nothing to say: expected letters or digits")
    return "I" if plain == "i" else plain


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h; ``id`` is a union of a number, a pointer and eight characters."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_EVENT_LIST_TERMINATED, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS, _INITIALIZE_PHONEME_IPA, _INITIALIZE_DONT_EXIT = 0x0001, 0x0002, 0x8000
_CHARS_UTF8, _PHONEME_INPUT = 0x0001, 0x0100
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class _SpeechEvent:
    """A word or phoneme event: position in the text (from 0) and in the audio (samples)."""

    is_word: bool
    text_position: int
    sample: int
    symbol: str


class _Synthesizer:
    """The process-wide espeak-ng instance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_PHONEME_IPA | _INITIALIZE_DONT_EXIT
        data_parent = str(Path(espeakng_loader.get_data_path()).parent).encode()
        rate_hz = self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data_parent, options)
        if rate_hz != ESPEAK_SAMPLE_RATE_HZ:
            raise RuntimeError(f"espeak-ng started at {rate_hz} Hz; expected {ESPEAK_SAMPLE_RATE_HZ}")
        self._pcm: list[bytes] = []
        self._marks: list[_SpeechEvent] = []
        # Kept as an attribute: ctypes frees a callback without references.
        self._callback = _CALLBACK(self._on_samples)
        self._library.espeak_SetSynthCallback(self._callback)

    @staticmethod
    @cache
    def get() -> _Synthesizer:
        return _Synthesizer()

    def synthesize(self, spoken: Sequence[str], voice: Voice) -> tuple[NDArray[np.int16], list[_SpeechEvent]]:
        """Return the samples at 22.05 kHz and the events in order of time."""
        text = " ".join(spoken).encode()
        with self._lock:
            self._pcm, self._marks = [], []
            self._configure(voice)
            flags = _CHARS_UTF8 | _PHONEME_INPUT
            self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, flags, None, None)
            return np.frombuffer(b"".join(self._pcm), dtype=np.int16), self._marks

    def _configure(self, voice: Voice) -> None:
        # Fixed seed: breath and jitter do not depend on previous sentences.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}: see LANGUAGES and VARIANTS")
        values = (voice.rate_wpm, voice.volume, voice.pitch, voice.pitch_range)
        for parameter, value in zip((_RATE, _VOLUME, _PITCH, _RANGE), values, strict=True):
            self._library.espeak_SetParameter(parameter, value, 0)

    def _on_samples(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, 2 * count))
        self._marks.extend(_parse_events(events))
        return 0


def _parse_events(events: Any) -> Iterator[_SpeechEvent]:
    index = 0
    while (event := events[index]).type != _EVENT_LIST_TERMINATED:
        if event.type in (_EVENT_WORD, _EVENT_PHONEME):
            is_word = event.type == _EVENT_WORD
            # The field has eight bytes: a longer symbol loses its last character.
            symbol = "" if is_word else event.id.decode("utf-8", errors="ignore")
            yield _SpeechEvent(is_word, event.text_position - 1, event.sample, symbol)
        index += 1


def _time_words(
    words: Sequence[str], spoken: Sequence[str], marks: Sequence[_SpeechEvent], voice: Voice
) -> tuple[tuple[TimedWord, ...], tuple[TimedPhoneme, ...]]:
    phonemes, owners = _extract_phonemes(spoken, marks)
    owners = _split_groups(spoken, owners, voice)
    timed: list[TimedWord] = []
    for index, word in enumerate(words):
        own = [phoneme for phoneme, owner in zip(phonemes, owners, strict=True) if owner == index]
        if not own:
            raise ValueError(f"espeak-ng skipped {word!r} in {' '.join(words)!r}: spell it differently")
        timed.append(TimedWord(word, own[0].start_s, own[-1].end_s))
    return tuple(timed), tuple(phonemes)


def _extract_phonemes(
    spoken: Sequence[str], marks: Sequence[_SpeechEvent]
) -> tuple[list[TimedPhoneme], list[int]]:
    """Return the phonemes without pauses, and for each the index of its word."""
    token_ends = np.cumsum([len(token) + 1 for token in spoken])
    phonemes: list[TimedPhoneme] = []
    owners: list[int] = []
    owner, word_start = 0, 0
    ends = [mark.sample for mark in marks[1:]] + [marks[-1].sample] if marks else []
    # The next word or phoneme event ends a phoneme.
    for mark, end in zip(marks, ends, strict=True):
        if mark.is_word:
            owner = int(np.searchsorted(token_ends, mark.text_position, side="right"))
            word_start = mark.sample
            continue
        if not mark.symbol:
            word_start = end
            continue
        first_in_word = not owners or owners[-1] != owner
        # The closure of a stop between a word's event and its first phoneme belongs to the phoneme.
        start = word_start if first_in_word else mark.sample
        phonemes.append(TimedPhoneme(mark.symbol, start / ESPEAK_SAMPLE_RATE_HZ, end / ESPEAK_SAMPLE_RATE_HZ))
        owners.append(owner)
    return phonemes, owners


def _split_groups(spoken: Sequence[str], owners: list[int], voice: Voice) -> list[int]:
    """Split the phonemes of word groups ("of the"), which espeak-ng reports as one word.

    The last phonemes of a group belong to its last word: as many as the word has on its own.
    """
    owners = list(owners)
    for index in range(len(spoken) - 1, 0, -1):
        if index in owners:
            continue
        before = max((owner for owner in owners if owner < index), default=-1)
        group = [position for position, owner in enumerate(owners) if owner == before]
        alone = _count_phonemes(spoken[index], voice)
        for position in group[max(1, len(group) - alone) :]:
            owners[position] = index
    return owners


def _count_phonemes(token: str, voice: Voice) -> int:
    _, marks = _Synthesizer.get().synthesize([token], voice)
    return sum(1 for mark in marks if mark.symbol)


def _resample(samples: NDArray[np.int16]) -> Int16Array:
    """Resample from 22.05 to 16 kHz in the frequency domain, with an exact cut-off at 8 kHz."""
    blocks = -(-len(samples) // _ESPEAK_BLOCK) + 1
    padded = np.zeros(blocks * _ESPEAK_BLOCK)
    padded[: len(samples)] = samples
    spectrum = np.fft.rfft(padded)[: blocks * _BLOCK // 2 + 1]
    resampled = np.fft.irfft(spectrum, blocks * _BLOCK) * (_BLOCK / _ESPEAK_BLOCK)
    count = round(len(samples) * _BLOCK / _ESPEAK_BLOCK)
    return np.clip(np.rint(resampled[:count]), -32768, 32767).astype(np.int16)
