"""Synthetic voices that say a text and tell when: espeak-ng through its library's callback.

espeak-ng reports every word and phoneme with the sample at which it begins, so the truth of the
training data is what the synthesiser did, not an alignment made afterwards. The library keeps its
state in globals and must be initialised once per process: it is loaded on first use, guarded by a
lock, and a forked child, which inherits the state as memory of its own, may go on using it. The tremor
that it lends to a voice runs on from sentence to sentence: two processes that say the same sentences in
the same order get the same samples, and a sentence said twice by one process differs by half a millisecond.
"""

from __future__ import annotations

import ctypes
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

SAMPLE_RATE_HZ = 16_000
ESPEAK_SAMPLE_RATE_HZ = 22_050
# 22,050 : 16,000 in lowest terms.
_ESPEAK_BLOCK, _BLOCK = 441, 320

Int16Array = NDArray[np.int16]

# "en" is British English.
LANGUAGES = ("en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland")
_LANGUAGE_SHARES = (0.4, 0.3, 0.2, 0.05, 0.05)
# The variants that sound like people; the robots, whispers and klatt voices are left out.
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "adam", "Alex", "Alicia",
    "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed",
    "edward", "Gene", "gustave", "ian", "iven", "iven2", "john", "Lee", "linda", "Marco", "max", "Michael",
    "michel", "miguel", "mike2", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "steph",
    "steph2", "steph3", "travis", "victor",
)  # fmt: skip
# The names of the letters where the bare letter is also a word: espeak's phoneme notation.
_LETTER_A = "[[eI]]"
_PREPOSITIONS = frozenset({"at", "by", "in", "with"})
_DIGITS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})


@dataclass(frozen=True)
class TimedWord:
    """A word as it was asked for, and when it is heard."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TimedPhoneme:
    """One phoneme in IPA, as espeak-ng writes it: with stress marks, a diphthong as one symbol."""

    symbol: str
    start_s: float
    end_s: float


_Timed = TypeVar("_Timed", TimedWord, TimedPhoneme)


@dataclass(frozen=True)
class Speech:
    """What was said: mono int16 at 16 kHz, shape [S], with the times of its words and phonemes."""

    waveform: Int16Array
    words: tuple[TimedWord, ...]
    phonemes: tuple[TimedPhoneme, ...]
    duration_s: float


@dataclass(frozen=True)
class Voice:
    """A way of speaking, in the units of espeak-ng (pitch and its range 0–99, volume 0–200)."""

    language: str = "en"
    variant: str = "m3"
    rate_wpm: int = 120
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 80

    @property
    def name(self) -> str:
        """The name under which espeak-ng loads the voice."""
        return f"{self.language}+{self.variant}"

    @classmethod
    def random(cls, rng: np.random.Generator) -> Voice:
        """Any of the voices, at a speed and a pitch of their own."""
        return cls(
            language=str(rng.choice(LANGUAGES, p=_LANGUAGE_SHARES)),
            variant=str(rng.choice(VARIANTS)),
            # People read GRID sentences at about 150 words a minute, pauses left out.
            rate_wpm=int(rng.integers(95, 166)),
            pitch=int(rng.integers(25, 80)),
            pitch_range=int(rng.integers(25, 80)),
            volume=int(rng.integers(50, 91)),
        )


def synthesize(text_or_words: str | Sequence[str], voice: Voice) -> Speech:
    """Say a sentence.

    A single letter is spoken by its name. The only one that is ambiguous, "a", is taken as the letter
    when written "A", or as GRID writes it: after a preposition and before a digit ("at a two").

    Raises:
        ValueError: no word to say, a word that espeak-ng leaves out, or an unknown voice.
    """
    words = text_or_words.split() if isinstance(text_or_words, str) else list(text_or_words)
    if not words:
        raise ValueError("there is no word to say: give at least one")
    spoken = [_spell(words, index) for index in range(len(words))]
    samples, events = _Synthesizer.get().synthesize(spoken, voice)
    timed_words, phonemes = _time_words(words, spoken, events, voice)
    return Speech(_resample(samples), timed_words, phonemes, len(samples) / ESPEAK_SAMPLE_RATE_HZ)


def pad_speech(speech: Speech, before_s: float, after_s: float) -> Speech:
    """The same speech with silence around it, all times shifted by `before_s` (to whole samples)."""
    before, after = round(before_s * SAMPLE_RATE_HZ), round(after_s * SAMPLE_RATE_HZ)
    shift_s = before / SAMPLE_RATE_HZ

    def shifted(timed: _Timed) -> _Timed:
        return replace(timed, start_s=timed.start_s + shift_s, end_s=timed.end_s + shift_s)

    return Speech(
        waveform=np.pad(speech.waveform, (before, after)),
        words=tuple(shifted(word) for word in speech.words),
        phonemes=tuple(shifted(phoneme) for phoneme in speech.phonemes),
        duration_s=speech.duration_s + (before + after) / SAMPLE_RATE_HZ,
    )


def _spell(words: Sequence[str], index: int) -> str:
    """How a word is written for espeak-ng: lower case, without punctuation, "a" as the letter marked."""
    word = words[index]
    between = index > 0 and words[index - 1] in _PREPOSITIONS and words[index + 1 : index + 2]
    if word == "A" or (word == "a" and between and words[index + 1] in _DIGITS):
        return _LETTER_A
    plain = re.sub(r"[^a-z0-9'-]", "", word.lower())
    if not plain:
        raise ValueError(f"{word!r} holds nothing that can be said: expected letters or digits")
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
    """A word or phoneme event: where it stands in the text (from 0) and in the sound (samples)."""

    is_word: bool
    text_position: int
    sample: int
    symbol: str


class _Synthesizer:
    """The one espeak-ng of this process."""

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
        # Kept as an attribute: ctypes frees a callback that nothing refers to.
        self._callback = _CALLBACK(self._on_samples)
        self._library.espeak_SetSynthCallback(self._callback)

    @staticmethod
    @cache
    def get() -> _Synthesizer:
        return _Synthesizer()

    def synthesize(self, spoken: Sequence[str], voice: Voice) -> tuple[NDArray[np.int16], list[_SpeechEvent]]:
        """Returns the samples at 22.05 kHz and the events in order of time."""
        text = " ".join(spoken).encode()
        with self._lock:
            self._pcm, self._marks = [], []
            self._configure(voice)
            flags = _CHARS_UTF8 | _PHONEME_INPUT
            self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, flags, None, None)
            samples = np.frombuffer(b"".join(self._pcm), dtype=np.int16)
            marks = self._marks
        return samples, marks

    def _configure(self, voice: Voice) -> None:
        # Fixed, so that breath and jitter are the same whatever was said before.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}: see LANGUAGES and VARIANTS")
        for parameter, value in (
            (_RATE, voice.rate_wpm),
            (_VOLUME, voice.volume),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
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
            # The union has room for eight bytes: a longer symbol loses its last character.
            symbol = "" if is_word else event.id.decode("utf-8", errors="ignore")
            yield _SpeechEvent(is_word, event.text_position - 1, event.sample, symbol)
        index += 1


def _time_words(
    words: Sequence[str], spoken: Sequence[str], marks: Sequence[_SpeechEvent], voice: Voice
) -> tuple[tuple[TimedWord, ...], tuple[TimedPhoneme, ...]]:
    phonemes, owners = _extract_phonemes(_word_offsets(spoken), marks)
    owners = _split_groups(spoken, owners, voice)
    timed: list[TimedWord] = []
    for index, word in enumerate(words):
        own = [phoneme for phoneme, owner in zip(phonemes, owners, strict=True) if owner == index]
        if not own:
            raise ValueError(f"espeak-ng left {word!r} out of {' '.join(words)!r}: spell it differently")
        timed.append(TimedWord(word, own[0].start_s, own[-1].end_s))
    return tuple(timed), tuple(phonemes)


def _word_offsets(spoken: Sequence[str]) -> list[int]:
    starts = np.cumsum([0] + [len(token) + 1 for token in spoken])
    return [int(start) for start in starts[:-1]]


def _extract_phonemes(
    token_starts: list[int], marks: Sequence[_SpeechEvent]
) -> tuple[list[TimedPhoneme], list[int]]:
    """The phonemes, pauses left out, and for each the index of the word in which it stands."""
    phonemes: list[TimedPhoneme] = []
    owners: list[int] = []
    owner, word_start = 0, 0
    ends = [mark.sample for mark in marks[1:]] + [marks[-1].sample] if marks else []
    # What follows a phoneme, word mark or phoneme, ends it.
    for mark, end in zip(marks, ends, strict=True):
        if mark.is_word:
            owner = int(np.searchsorted(token_starts, mark.text_position, side="right")) - 1
            word_start = mark.sample
            continue
        if not mark.symbol:
            word_start = end
            continue
        first_in_word = not owners or owners[-1] != owner
        # Between a word's mark and its first phoneme lies the closure of a stop: part of the sound.
        start = word_start if first_in_word else mark.sample
        phonemes.append(TimedPhoneme(mark.symbol, start / ESPEAK_SAMPLE_RATE_HZ, end / ESPEAK_SAMPLE_RATE_HZ))
        owners.append(owner)
    return phonemes, owners


def _split_groups(spoken: Sequence[str], owners: list[int], voice: Voice) -> list[int]:
    """Share out the phonemes of word groups ("of the"), which espeak-ng marks as one word.

    Of the phonemes of a group the last ones belong to its last word: as many as the word has alone.
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
    """From 22.05 to 16 kHz by the spectrum: what lies above 8 kHz is cut off exactly."""
    blocks = -(-len(samples) // _ESPEAK_BLOCK) + 1
    padded = np.zeros(blocks * _ESPEAK_BLOCK)
    padded[: len(samples)] = samples
    spectrum = np.fft.rfft(padded)[: blocks * _BLOCK // 2 + 1]
    resampled = np.fft.irfft(spectrum, blocks * _BLOCK) * (_BLOCK / _ESPEAK_BLOCK)
    count = round(len(samples) * _BLOCK / _ESPEAK_BLOCK)
    return np.clip(np.rint(resampled[:count]), -32768, 32767).astype(np.int16)
