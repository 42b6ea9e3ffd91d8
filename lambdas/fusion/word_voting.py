"""Word by word: which of two readings of one person's speech is kept.

Lips and sound are aligned in time. Where they agree, the word is kept once. Where they claim different words for one
place, the side with the greater mean confidence takes the place, and the other's words become alternatives. A word
that one source alone has is kept, unless the other was listening and the word is less sure than that silence allows:
then it is listed as omitted, with the reason. Every claim ends up as a word, an alternative, or an omission.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gorggle_lambdas.fusion.alignment import align, distance_s, overlap_s
from gorggle_lambdas.fusion.confidence import (
    Calibration,
    NoiseCurve,
    NoiseWeighting,
    noisy_or,
    winner_probability,
)
from gorggle_lambdas.fusion.text_normalization import edit_distance, normalize
from gorggle_lambdas.fusion.types import Origin
from gorggle_lambdas.fusion.word_hypotheses import WordHypothesis

# Costs of the alignment: a word without a partner; a second of distance. Two unlike words (difference 1) are taken
# for one place up to 0.2 s of distance, like words up to 0.6 s.
GAP_COST = 0.75
COST_PER_S = 2.5
MAX_OFFSET_S = 2.0
# Two claims rival for one place if they overlap for this share of the shorter.
MIN_RIVAL_OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class FusionRules:
    """What decides between words.

    Attributes:
        lips: turns the lips' stated confidence into a probability.
        audio: likewise.
        noise_weighting: what the sound is worth in noise.
        min_lips_only_probability: least probability of a word that only the lips have while the sound was listening; times what the
            sound is worth there.
        min_audio_only_probability: least probability of a word that only the sound has while lips were read.
    """

    lips: Calibration = field(default_factory=Calibration)
    audio: Calibration = field(default_factory=Calibration)
    noise_weighting: NoiseWeighting = field(default_factory=NoiseWeighting)
    min_lips_only_probability: float = 0.3
    min_audio_only_probability: float = 0.05


@dataclass(frozen=True, slots=True)
class AlternativeWord:
    """A reading that was decided against."""

    text: str
    source: Origin
    confidence: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class FusedWord:
    """A word as it was decided; confidences here are probabilities after calibration and noise."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    source: Origin
    alternatives: tuple[AlternativeWord, ...] = ()


@dataclass(frozen=True, slots=True)
class RejectedWord:
    """A claim that was not kept, and why."""

    word: AlternativeWord
    person: str
    reason: str


CoverageTest = Callable[[float], bool]
"""Whether a source was read at a moment."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the decision knows beside the claims: noise, and when each source was read."""

    noise: NoiseCurve
    lips_cover: CoverageTest
    audio_covers: CoverageTest
    rules: FusionRules = field(default_factory=FusionRules)

    def compute_probability(self, claim: WordHypothesis) -> float:
        """How likely a claim is right."""
        if claim.origin != "sound":
            return self.rules.lips.probability(claim.confidence)
        return self.rules.audio.probability(claim.confidence) * self.compute_audio_weight(claim)

    def compute_audio_weight(self, claim: WordHypothesis) -> float:
        """What the sound is worth in the middle of a word."""
        return self.rules.noise_weighting.compute_weight(
            self.noise.get_snr_db((claim.start_s + claim.end_s) / 2)
        )

    def to_alternative(self, claim: WordHypothesis) -> AlternativeWord:
        """A claim as a reading that lost."""
        return AlternativeWord(
            claim.text, claim.origin, self.compute_probability(claim), claim.start_s, claim.end_s
        )


@dataclass(slots=True)
class AlignmentSlot:
    """Claims for one place in a person's speech, in order of time: what the lips read there, what the sound said."""

    lips: list[WordHypothesis] = field(default_factory=list)
    sound: list[WordHypothesis] = field(default_factory=list)

    @property
    def is_agreed(self) -> bool:
        """Whether both sides have one word, the same."""
        return len(self.lips) == len(self.sound) == 1 and normalize(self.lips[0].text) == normalize(
            self.sound[0].text
        )

    @property
    def hypotheses(self) -> list[WordHypothesis]:
        """Both sides' claims."""
        return [*self.lips, *self.sound]


def align_words(lips: Sequence[WordHypothesis], sound: Sequence[WordHypothesis]) -> list[AlignmentSlot]:
    """Align one person's claims; every claim is in one place, and places keep the order of both sides."""
    found: list[AlignmentSlot] = []
    i = j = 0
    for to_i, to_j in [*align(lips, sound, _pair_cost, GAP_COST, MAX_OFFSET_S), (len(lips), len(sound))]:
        alone = [AlignmentSlot(lips=[c]) for c in lips[i:to_i]] + [
            AlignmentSlot(sound=[c]) for c in sound[j:to_j]
        ]
        # A stable sort: each side is in order already.
        found += sorted(alone, key=lambda place: place.hypotheses[0].start_s)
        if to_i < len(lips):
            found.append(AlignmentSlot([lips[to_i]], [sound[to_j]]))
        i, j = to_i + 1, to_j + 1
    return found


def reassign_shared_words(by_person: Sequence[list[AlignmentSlot]]) -> None:
    """Where lips of one person and the sound of another have the same word at once, give it to the lips.

    Diarisation errs more often than a face does. Changes the lists.
    """
    lips = [(n, p) for n, some in enumerate(by_person) for p in some if p.lips and not p.sound]
    sound = [(n, p) for n, some in enumerate(by_person) for p in some if p.sound and not p.lips]
    lips.sort(key=lambda item: item[1].lips[0].start_s)
    sound.sort(key=lambda item: item[1].sound[0].start_s)
    pairs = align(
        [p.lips[0] for _, p in lips], [p.sound[0] for _, p in sound], _same_word_cost, GAP_COST, MAX_OFFSET_S
    )
    for i, j in pairs:
        person, place = sound[j]
        lips[i][1].sound.append(place.sound[0])
        by_person[person][:] = [other for other in by_person[person] if other is not place]


def select_words(
    found: Sequence[AlignmentSlot], evidence: Evidence, person: str
) -> tuple[list[FusedWord], list[RejectedWord]]:
    """Decide one person's places.

    Returns:
        Words whose starts never fall and which do not overlap, and what was left out.
    """
    words: list[FusedWord] = []
    omitted: list[RejectedWord] = []
    for place in _join_competing_slots(found):
        if place.lips and place.sound:
            words += (
                _merge_agreeing(place, evidence) if place.is_agreed else _resolve_conflict(place, evidence)
            )
        else:
            reason = _explain_rejection(place.hypotheses[0], evidence)
            alone = [
                _build_word(claim, evidence.compute_probability(claim), [], evidence)
                for claim in place.hypotheses
            ]
            if reason:
                omitted += [
                    RejectedWord(reading, person, reason)
                    for claim in place.hypotheses
                    for reading in (
                        evidence.to_alternative(claim),
                        *map(evidence.to_alternative, claim.alternatives),
                    )
                ]
            else:
                words += alone
    return _remove_overlaps(words), omitted


def _pair_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    cost = edit_distance(one.text, other.text) + COST_PER_S * distance_s(one, other)
    return cost if cost < 2 * GAP_COST else None


def _same_word_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    return _pair_cost(one, other) if normalize(one.text) == normalize(other.text) else None


def _overlap_significantly(one: Sequence[WordHypothesis], other: Sequence[WordHypothesis]) -> bool:
    return any(
        overlap_s(a, b) >= MIN_RIVAL_OVERLAP * min(a.duration_s, b.duration_s) and overlap_s(a, b) >= 0
        for a in one
        for b in other
    )


def _join_competing_slots(found: Sequence[AlignmentSlot]) -> list[AlignmentSlot]:
    """Join places whose claims of different sources rival for the same time: "gonna" against "going to".

    Only neighbours join: the order of both sides is kept.
    """
    joined: list[AlignmentSlot] = []
    for place in found:
        if joined and _compete(joined[-1], place):
            joined[-1] = AlignmentSlot(joined[-1].lips + place.lips, joined[-1].sound + place.sound)
        else:
            joined.append(AlignmentSlot(list(place.lips), list(place.sound)))
    return joined


def _compete(before: AlignmentSlot, after: AlignmentSlot) -> bool:
    """Whether one of two neighbours is a word without a partner that the other leaves no room for.

    A word that both sides have leaves room for others: how long it lasts is the least sure thing about it.
    """
    if before.is_agreed or after.is_agreed:
        return False
    alone = not (before.lips and before.sound) or not (after.lips and after.sound)
    return alone and (
        _overlap_significantly(before.lips, after.sound) or _overlap_significantly(before.sound, after.lips)
    )


def _merge_agreeing(place: AlignmentSlot, evidence: Evidence) -> list[FusedWord]:
    """The sound writes the word (capitals, punctuation); the surer one times it."""
    lips, sound = place.lips[0], place.sound[0]
    likely_lips, likely_sound = evidence.compute_probability(lips), evidence.compute_probability(sound)
    timed = lips if likely_lips > likely_sound else sound
    # A model that heard the sound too does not err independently of it.
    confidence = (
        max(likely_lips, likely_sound) if lips.origin == "both" else noisy_or(likely_lips, likely_sound)
    )
    chosen = replace(
        timed, text=sound.text, origin="both", alternatives=lips.alternatives + sound.alternatives
    )
    return [_build_word(chosen, confidence, [], evidence)]


def _resolve_conflict(place: AlignmentSlot, evidence: Evidence) -> list[FusedWord]:
    """One side takes the place; each of the other's words becomes an alternative of the word that it overlaps most."""
    chances = {
        side: _mean([evidence.compute_probability(c) for c in getattr(place, side)])
        for side in ("lips", "sound")
    }
    winners, losers = (
        (place.lips, place.sound) if chances["lips"] > chances["sound"] else (place.sound, place.lips)
    )
    beaten: list[list[WordHypothesis]] = [[] for _ in winners]
    for loser in losers:
        nearest = max(range(len(winners)), key=lambda at: (round(overlap_s(winners[at], loser), 3), -at))
        beaten[nearest].append(loser)
    return [
        _build_word(winner, _compute_winner_confidence(winner, rivals, evidence), rivals, evidence)
        for winner, rivals in zip(winners, beaten, strict=True)
    ]


def _compute_winner_confidence(
    winner: WordHypothesis, rivals: Sequence[WordHypothesis], evidence: Evidence
) -> float:
    chance = evidence.compute_probability(winner)
    unlike = [
        evidence.compute_probability(rival)
        for rival in rivals
        if normalize(rival.text) != normalize(winner.text)
    ]
    return winner_probability(chance, max(unlike)) if unlike else chance


def _build_word(
    claim: WordHypothesis, confidence: float, rivals: Sequence[WordHypothesis], evidence: Evidence
) -> FusedWord:
    lost = [*claim.alternatives, *rivals, *(loser for rival in rivals for loser in rival.alternatives)]
    readings = tuple(evidence.to_alternative(other) for other in lost)
    return FusedWord(claim.text, claim.start_s, claim.end_s, confidence, claim.origin, readings)


def _explain_rejection(claim: WordHypothesis, evidence: Evidence) -> str:
    """Why a word that one source alone has is not believed; empty if it is."""
    chance, rules = evidence.compute_probability(claim), evidence.rules
    middle_s = (claim.start_s + claim.end_s) / 2
    if claim.origin == "lips" and evidence.audio_covers(middle_s):
        least = rules.min_lips_only_probability * evidence.compute_audio_weight(claim)
        return (
            f"no such word in the sound, and the lips' {chance:.2f} is below {least:.2f}"
            if chance < least
            else ""
        )
    if claim.origin == "sound" and evidence.lips_cover(middle_s):
        least = rules.min_audio_only_probability
        return (
            f"no such word on the lips, and the sound's {chance:.2f} is below {least:.2f}"
            if chance < least
            else ""
        )
    return ""


def _remove_overlaps(words: Sequence[FusedWord]) -> list[FusedWord]:
    """Make times follow the order of the words: an overlap goes to the later word, or is halved where it has no rest."""
    placed: list[FusedWord] = []
    for word in words:
        if placed and word.start_s < placed[-1].end_s:
            before = placed[-1]
            end_s = max(word.end_s, before.end_s) if word.start_s <= before.start_s else word.end_s
            start_s = word.start_s if word.start_s > before.start_s else (before.start_s + end_s) / 2
            placed[-1] = replace(before, end_s=min(before.end_s, start_s))
            word = replace(word, start_s=start_s, end_s=max(start_s, end_s))
        placed.append(word)
    return placed


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
