"""Mouth motion from phonemes: visemes, co-articulation and individual articulation.

Each phoneme has a target mouth (`PARAMETERS`) and a weight per parameter: a /b/ strongly requires closed lips, a /k/
constrains nothing visible. The trajectory is the weighted mean of the targets under a smoothing window. This is the
dominance model of Cohen and Massaro ("Modeling coarticulation in synthetic visual speech", 1993) with one window for
all phonemes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import FRAME_RATE_HZ
from gorggle_training.speech_synthesis import TimedPhoneme

# The trajectory is computed at a higher rate and averaged over the shutter time.
_STEPS_PER_FRAME = 8
_STEP_RATE_HZ = FRAME_RATE_HZ * _STEPS_PER_FRAME
_SHUTTER_STEPS = 3

Float32Array = NDArray[np.float32]

PARAMETERS = (
    "jaw",  # opening: 0 closed, 1 wide open
    "width",  # −1 narrow … 1 spread
    "round",  # lips rounded and protruded
    "upper_raise",  # the upper lip shows the teeth
    "lower_drop",  # the lower lip shows the lower teeth
    "tuck",  # the lower lip under the upper teeth
    "press",  # lips pressed together and rolled in
    "clench",  # teeth meet
    "tongue_tip",  # the tip behind the upper teeth
    "tongue_out",  # the tip between the teeth
)
K = len(PARAMETERS)
JAW, WIDTH, ROUND, UPPER_RAISE, LOWER_DROP, TUCK, PRESS, CLENCH, TONGUE_TIP, TONGUE_OUT = range(K)


@dataclass(frozen=True)
class Viseme:
    """Target mouth of some phonemes: targets and weights of shape [K].

    Attributes:
        characters: IPA characters of espeak-ng for English, without stress, length and syllable marks.
    """

    name: str
    characters: str
    target: Float32Array
    weight: Float32Array
    # A shorter closure would not be visible at 25 fps: it takes time from its neighbours.
    min_duration_s: float


def _make_viseme(
    name: str,
    characters: str,
    min_duration_s: float,
    target_weight: float,
    rest_weight: float,
    **targets: float,
) -> Viseme:
    """Return a viseme; `target_weight` applies to the given parameters, `rest_weight` to the others, which are zero."""
    target = np.zeros(K, np.float32)
    weight = np.full(K, rest_weight, np.float32)
    for parameter, value in targets.items():
        target[PARAMETERS.index(parameter)] = value
        weight[PARAMETERS.index(parameter)] = target_weight
    # Contacts are binary: every phoneme has a minimum weight on them.
    weight[[TUCK, PRESS, CLENCH, TONGUE_TIP, TONGUE_OUT]] = np.maximum(
        weight[[TUCK, PRESS, CLENCH, TONGUE_TIP, TONGUE_OUT]], 0.7
    )
    # A short vowel between two closures still opens the lips.
    weight[PRESS] = max(weight[PRESS], 1.5)
    weight[JAW] = min(weight[JAW], 2.5)
    return Viseme(name, characters, target, weight, min_duration_s)


# Name, characters, minimum duration, weights of the given and of the other parameters, and targets.
REST = _make_viseme("rest", "", 0.0, 0.6, 0.6, jaw=0.0, press=0.12)
VISEMES: dict[str, Viseme] = {
    viseme.name: viseme
    for viseme in (
        REST,
        _make_viseme("bilabial", "pbm", 0.085, 6.0, 0.3, jaw=0.02, press=1.0),
        _make_viseme("labiodental", "fvʋ", 0.08, 4.0, 0.4, jaw=0.1, tuck=1.0, upper_raise=0.55),
        _make_viseme("dental", "θð", 0.08, 2.5, 0.5, jaw=0.26, tongue_out=1.0, lower_drop=0.2),
        _make_viseme("alveolar", "tdnɾʔ", 0.06, 1.6, 0.35, jaw=0.24, tongue_tip=0.8, clench=0.3),
        _make_viseme("lateral", "lɫɬ", 0.07, 2.0, 0.5, jaw=0.5, tongue_tip=1.0),
        _make_viseme(
            "sibilant",
            "sz",
            0.06,
            2.2,
            0.6,
            jaw=0.16,
            width=0.45,
            clench=1.0,
            upper_raise=0.5,
            lower_drop=0.7,
        ),
        _make_viseme(
            "postalveolar",
            "ʃʒ",
            0.07,
            2.6,
            0.6,
            jaw=0.2,
            width=-0.35,
            round=0.6,
            clench=0.9,
            upper_raise=0.75,
            lower_drop=0.75,
        ),
        _make_viseme("rhotic", "ɹr", 0.05, 1.5, 0.6, jaw=0.2, round=0.5, width=-0.2, lower_drop=0.25),
        _make_viseme("labiovelar", "wʍ", 0.07, 3.0, 0.6, jaw=0.1, round=1.0, width=-0.7),
        _make_viseme("velar", "kɡgŋx", 0.0, 0.7, 0.25, jaw=0.3),
        _make_viseme("glottal", "hɦ", 0.0, 0.25, 0.12, jaw=0.35),
        _make_viseme("palatal", "jç", 0.0, 0.9, 0.4, jaw=0.18, width=0.55, clench=0.4),
        _make_viseme(
            "close_front", "iy", 0.0, 1.2, 1.0, jaw=0.2, width=0.95, upper_raise=0.35, lower_drop=0.3
        ),
        _make_viseme("near_close_front", "ɪᵻɨ", 0.0, 1.0, 1.0, jaw=0.34, width=0.5, upper_raise=0.15),
        _make_viseme("mid_front", "eɛ", 0.0, 1.1, 1.0, jaw=0.55, width=0.55, upper_raise=0.2),
        _make_viseme("open_front", "æa", 0.0, 1.2, 1.0, jaw=0.85, width=0.5, upper_raise=0.3, lower_drop=0.2),
        _make_viseme("central", "əɐ", 0.0, 0.7, 0.5, jaw=0.4),
        _make_viseme("open_central", "ʌ", 0.0, 1.1, 1.0, jaw=0.68, width=0.1),
        _make_viseme("open_back", "ɑɒ", 0.0, 1.3, 1.0, jaw=1.0, width=-0.05),
        _make_viseme("mid_back", "ɔo", 0.0, 1.3, 1.0, jaw=0.62, round=0.5, width=-0.35),
        _make_viseme("near_close_back", "ʊ", 0.0, 1.1, 1.0, jaw=0.34, round=0.55, width=-0.35),
        _make_viseme("close_back", "uʉ", 0.0, 1.5, 1.0, jaw=0.2, round=0.95, width=-0.7),
        _make_viseme("rhotic_vowel", "ɜɚɝ", 0.0, 1.1, 1.0, jaw=0.42, round=0.35, width=-0.1, lower_drop=0.3),
    )
}
_CHARACTER_TO_VISEME = {character: viseme for viseme in VISEMES.values() for character in viseme.characters}
_SILENT_MARKS = frozenset("ˈˌː:ˑ̩̃̍ʲʰ.|-_ ")


@dataclass(frozen=True)
class ArticulationStyle:
    """Articulation of one person."""

    strength: float = 1.0
    jaw_strength: float = 1.0
    round_strength: float = 1.0
    spread: float = 0.0
    # Standard deviation of the co-articulation window.
    window_s: float = 0.032
    # Lips move before the audio.
    lead_s: float = 0.02
    timing_jitter_s: float = 0.008
    target_jitter: float = 0.06
    idle: float = 0.02

    @classmethod
    def random(cls, rng: np.random.Generator) -> ArticulationStyle:
        """Return a random articulation, from mumbling to exaggerated."""
        return cls(
            strength=float(rng.uniform(0.8, 1.15)),
            jaw_strength=float(rng.uniform(0.7, 1.15)),
            round_strength=float(rng.uniform(0.8, 1.15)),
            spread=float(rng.uniform(-0.15, 0.15)),
            window_s=float(rng.uniform(0.024, 0.042)),
            lead_s=float(rng.uniform(0.005, 0.035)),
            timing_jitter_s=float(rng.uniform(0.0, 0.012)),
            target_jitter=float(rng.uniform(0.02, 0.1)),
            idle=float(rng.uniform(0.0, 0.04)),
        )


def phoneme_to_visemes(symbol: str) -> tuple[Viseme, ...]:
    """Return the visemes of one phoneme, in order: two for a diphthong or an affricate.

    Raises:
        ValueError: a character has no viseme.
    """
    visemes: list[Viseme] = []
    for character in symbol:
        if character in _SILENT_MARKS:
            continue
        if character not in _CHARACTER_TO_VISEME:
            raise ValueError(f"no viseme for {character!r} in the phoneme {symbol!r}")
        visemes.append(_CHARACTER_TO_VISEME[character])
    return tuple(visemes)


def mouth_motion(
    phonemes: Sequence[TimedPhoneme],
    duration_s: float,
    rng: np.random.Generator | None = None,
    style: ArticulationStyle | None = None,
) -> Float32Array:
    """Return the mouth parameters at every video frame of timed phonemes.

    Deterministic without `rng`; `style` defaults to a neutral articulation.

    Returns:
        [T, K], the parameters in the order of `PARAMETERS`; T is `duration_s` · 25 rounded up, at least 1. Frame i is the
        middle of its time, (i + ½)/25 s.
    """
    style = style or ArticulationStyle()
    frames = max(1, int(np.ceil(round(duration_s * FRAME_RATE_HZ, 6))))
    targets, weights = _sample_targets(phonemes, frames * _STEPS_PER_FRAME, style, rng)
    trajectory = _weighted_mean(targets, weights, style.window_s * _STEP_RATE_HZ)
    motion = _apply_style(_apply_shutter(trajectory, frames), style)
    if rng is not None:
        motion += style.idle * _idle_motion(rng, frames) * (1.0 - motion[:, PRESS : PRESS + 1])
    low = np.where(np.arange(K) == WIDTH, -1.0, 0.0)
    return np.clip(motion, low, 1.2).astype(np.float32)


def _viseme_spans(phonemes: Sequence[TimedPhoneme]) -> Iterator[tuple[Viseme, float, float]]:
    """Yield every viseme with its start and end in seconds."""
    for phoneme in phonemes:
        visemes = phoneme_to_visemes(phoneme.symbol)
        length_s = (phoneme.end_s - phoneme.start_s) / max(1, len(visemes))
        for index, viseme in enumerate(visemes):
            start_s = phoneme.start_s + index * length_s
            missing_s = max(0.0, viseme.min_duration_s - length_s)
            yield viseme, start_s - 0.7 * missing_s, start_s + length_s + 0.3 * missing_s


def _sample_targets(
    phonemes: Sequence[TimedPhoneme], steps: int, style: ArticulationStyle, rng: np.random.Generator | None
) -> tuple[Float32Array, Float32Array]:
    """Return targets and weights at every step, each [steps, K], before smoothing."""
    targets = np.tile(REST.target, (steps, 1))
    weights = np.tile(REST.weight, (steps, 1))
    # Closures are written last: they take their minimum duration from their neighbours.
    for viseme, start_s, end_s in sorted(
        _viseme_spans(phonemes), key=lambda segment: segment[0].min_duration_s
    ):
        jitter = rng.normal(size=2) if rng is not None else np.zeros(2)
        shift_s = style.timing_jitter_s * float(np.clip(jitter[0], -2, 2)) - style.lead_s
        start, end = (round((time_s + shift_s) * _STEP_RATE_HZ) for time_s in (start_s, end_s))
        here = slice(max(0, start), max(0, end))
        targets[here] = viseme.target * (1.0 + style.target_jitter * float(np.clip(jitter[1], -2, 2)))
        weights[here] = viseme.weight
    return targets, weights


def _weighted_mean(targets: Float32Array, weights: Float32Array, sigma_steps: float) -> Float32Array:
    def smooth(values: Float32Array) -> Float32Array:
        blurred = cv2.GaussianBlur(
            values, (1, 0), sigmaX=0, sigmaY=sigma_steps, borderType=cv2.BORDER_REPLICATE
        )
        return np.asarray(blurred, np.float32)

    return smooth(targets * weights) / smooth(weights)


def _apply_shutter(trajectory: Float32Array, frames: int) -> Float32Array:
    """Average over the middle of each frame's time: [frames, K]."""
    first = (_STEPS_PER_FRAME - _SHUTTER_STEPS) // 2
    steps = trajectory.reshape(frames, _STEPS_PER_FRAME, K)
    return np.asarray(steps[:, first : first + _SHUTTER_STEPS].mean(axis=1), np.float32)


def _apply_style(motion: Float32Array, style: ArticulationStyle) -> Float32Array:
    """Scale the motion by articulation strength. Contacts are unchanged: a /b/ closes the lips in every style."""
    styled = motion.copy()
    styled[:, [JAW, WIDTH, ROUND, UPPER_RAISE, LOWER_DROP]] *= style.strength
    styled[:, JAW] *= style.jaw_strength
    styled[:, ROUND] *= style.round_strength
    styled[:, WIDTH] += style.spread * (1.0 - styled[:, ROUND])
    return styled


def _idle_motion(rng: np.random.Generator, frames: int) -> Float32Array:
    """Return slow independent noise of about unit size for the shape parameters, zero for contacts: [frames, K]."""
    noise = rng.standard_normal((frames + 24, K)).astype(np.float32)
    slow = np.asarray(cv2.GaussianBlur(noise, (1, 0), sigmaX=0, sigmaY=4.0), np.float32)[12:-12]
    slow[:, [TUCK, PRESS, CLENCH, TONGUE_TIP, TONGUE_OUT]] = 0.0
    return slow * 3.0
