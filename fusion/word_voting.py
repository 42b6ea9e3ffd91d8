"""Selects each word of one person from the lip reading and the audio hypotheses.

Both are aligned in time. A word on which they agree is kept once. Where they disagree, the side with the greater mean
confidence wins the slot, and the other's words become alternatives. A word of one source only is kept, unless the other
source covers that time and the word's probability is below a threshold: then it is listed as omitted, with the reason.
Every hypothesis ends up as a word, an alternative, or an omission.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from gorggle_fusion.alignment import align, distance_s, overlap_s
from gorggle_fusion.confidence import (
    Calibration,
    NoiseCurve,
    NoiseWeighting,
    noisy_or,
    winner_probability,
)
from gorggle_fusion.text_normalization import edit_distance, normalize
from gorggle_fusion.types import Origin
from gorggle_fusion.word_hypotheses import WordHypothesis

# Costs of the alignment: of an unpaired word; of a second of distance. Two different words (distance 1) share a slot up
# to 0.2 s apart, equal words up to 0.6 s.
GAP_COST = 0.75
COST_PER_S = 2.5
MAX_OFFSET_S = 2.0
# Two hypotheses compete for one time if they overlap by this fraction of the shorter.
MIN_RIVAL_OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class FusionRules:
    """Parameters of the word selection.

    Attributes:
        lips: calibration of lip reading confidences.
        audio: calibration of audio confidences.
        noise_weighting: weight of the audio in noise.
        min_lips_only_probability: minimum probability of a word that only lip reading has while audio was transcribed;
            multiplied by the weight of the audio.
        min_audio_only_probability: minimum probability of a word that only audio has while lips were read.
        min_overriding_audio_weight: minimum weight of audio with an open vocabulary that overrides the words of a lip reading
            model without one in every case; with less, the more probable side of an utterance does.
        min_vocabulary_similarity: minimum similarity (1 − edit distance in letters, 0 to 1) of such a model's utterance to the
            audio's. Below, the speaker uses other words than the model's, and the audio overrides it. Measured: commands of the
            model's grammar have 0.35 to 1.0 (median 0.68), other speech 0.12 to 0.36 (median 0.23).
        min_audio_only_in_vocabulary: replaces ``min_audio_only_probability`` in utterances above that similarity.
        utterance_pause_s: pause between two utterances.
        max_utterance_s: longer speech is judged in parts: comparing two texts takes time proportional to the product of their
            lengths.
    """

    lips: Calibration = field(default_factory=Calibration)
    audio: Calibration = field(default_factory=Calibration)
    noise_weighting: NoiseWeighting = field(default_factory=NoiseWeighting)
    min_lips_only_probability: float = 0.3
    min_audio_only_probability: float = 0.05
    min_overriding_audio_weight: float = 0.5
    min_vocabulary_similarity: float = 0.35
    min_audio_only_in_vocabulary: float = 0.7
    utterance_pause_s: float = 0.7
    max_utterance_s: float = 20.0


@dataclass(frozen=True, slots=True)
class AlternativeWord:
    """A rejected alternative of a word."""

    text: str
    source: Origin
    confidence: float
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class FusedWord:
    """A selected word; confidences are probabilities after calibration and noise weighting.

    ``is_doubtful``: its source marked the word, and the other does not have it; or a closed vocabulary decided although noise hid the
    audio.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    source: Origin
    alternatives: tuple[AlternativeWord, ...] = ()
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class RejectedWord:
    """An omitted hypothesis, and the reason."""

    word: AlternativeWord
    person: str
    reason: str


CoverageTest = Callable[[float], bool]
"""Whether a source covers a time."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Context of the selection: noise, the times that each source covers, and the rules.

    Attributes:
        has_closed_lips: the audio was transcribed with an open vocabulary and the lips were not, so that the lip reading is wrong
            wherever the speaker used other words than the model's, whatever its confidence.
        is_in_vocabulary: the utterance has only words of that vocabulary, so the lip reading decides; None: unknown, and how alike
            the two texts sound is the measure.
        overriding_side: the side that decides an utterance alone; None: word by word.
        is_audio_hidden: noise hides the audio, so words of a closed vocabulary that override it are doubtful.
    """

    noise: NoiseCurve
    lips_cover: CoverageTest
    audio_covers: CoverageTest
    rules: FusionRules = field(default_factory=FusionRules)
    has_closed_lips: bool = False
    is_in_vocabulary: bool | None = None
    overriding_side: Literal["lips", "audio"] | None = None
    is_audio_hidden: bool = False

    def compute_probability(self, hypothesis: WordHypothesis) -> float:
        """Return the probability that a hypothesis is correct."""
        if hypothesis.origin != "audio":
            return self.rules.lips.probability(hypothesis.confidence)
        return self.rules.audio.probability(hypothesis.confidence) * self.compute_audio_weight(hypothesis)

    def compute_audio_weight(self, hypothesis: WordHypothesis) -> float:
        """Return the weight of the audio in the middle of a word."""
        return self.rules.noise_weighting.compute_weight(
            self.noise.get_snr_db((hypothesis.start_s + hypothesis.end_s) / 2)
        )

    def judge_vocabulary(self, slots: Sequence[AlignmentSlot]) -> Evidence:
        """Return the evidence for one utterance: where a closed vocabulary does not sound like the audio, one side decides."""
        if not self.has_closed_lips:
            return self
        hypotheses = [hypothesis for slot in slots for hypothesis in slot.hypotheses]
        lips = [hypothesis for hypothesis in hypotheses if hypothesis.is_of_lip_model]
        audio = [hypothesis for hypothesis in hypotheses if not hypothesis.is_of_lip_model]
        is_audible = (
            fmean(map(self.compute_audio_weight, hypotheses)) >= self.rules.min_overriding_audio_weight
        )
        if self.is_in_vocabulary:
            return replace(self, overriding_side="lips", is_audio_hidden=not is_audible)
        similarity = 1 - edit_distance(
            *("".join(normalize(word.text) for word in side) for side in (lips, audio))
        )
        if self.is_in_vocabulary is None and similarity >= self.rules.min_vocabulary_similarity:
            rules = replace(self.rules, min_audio_only_probability=self.rules.min_audio_only_in_vocabulary)
            return replace(self, rules=rules)
        lips_chance, audio_chance = (
            fmean([self.compute_probability(word) for word in side] or [0.0]) for side in (lips, audio)
        )
        if is_audible or audio_chance > lips_chance:
            return replace(self, overriding_side="audio")
        return replace(self, overriding_side="lips", is_audio_hidden=True)

    def to_alternative(self, hypothesis: WordHypothesis) -> AlternativeWord:
        """Convert a rejected hypothesis."""
        return AlternativeWord(
            hypothesis.text,
            hypothesis.origin,
            self.compute_probability(hypothesis),
            hypothesis.start_s,
            hypothesis.end_s,
        )


@dataclass(slots=True)
class AlignmentSlot:
    """Competing hypotheses for one time in a person's speech, sorted by time."""

    lips: list[WordHypothesis] = field(default_factory=list)
    audio: list[WordHypothesis] = field(default_factory=list)

    @property
    def is_agreed(self) -> bool:
        """Whether both sides have the same word, or the same words written differently: "F2" and "f two"."""
        if not self.lips or not self.audio:
            return False
        lips, audio = ("".join(normalize(word.text) for word in side) for side in (self.lips, self.audio))
        return lips == audio

    @property
    def hypotheses(self) -> list[WordHypothesis]:
        """Both sides' hypotheses."""
        return [*self.lips, *self.audio]


def align_words(lips: Sequence[WordHypothesis], audio: Sequence[WordHypothesis]) -> list[AlignmentSlot]:
    """Align one person's hypotheses; each is in exactly one slot, and slots keep the order of both sides."""
    slots: list[AlignmentSlot] = []
    i = j = 0
    for to_i, to_j in [*align(lips, audio, _pair_cost, GAP_COST, MAX_OFFSET_S), (len(lips), len(audio))]:
        alone = [AlignmentSlot(lips=[c]) for c in lips[i:to_i]] + [
            AlignmentSlot(audio=[c]) for c in audio[j:to_j]
        ]
        # A stable sort, because each side is sorted.
        slots += sorted(alone, key=lambda slot: slot.hypotheses[0].start_s)
        if to_i < len(lips):
            slots.append(AlignmentSlot([lips[to_i]], [audio[to_j]]))
        i, j = to_i + 1, to_j + 1
    return slots


def reassign_shared_words(by_person: Sequence[list[AlignmentSlot]]) -> None:
    """Where lip reading of one person and audio of another have the same word at once, assign it to the lips' person.

    Diarisation is less reliable than a face. Modifies the lists.
    """
    lips = [(n, p) for n, slots in enumerate(by_person) for p in slots if p.lips and not p.audio]
    audio = [(n, p) for n, slots in enumerate(by_person) for p in slots if p.audio and not p.lips]
    lips.sort(key=lambda item: item[1].lips[0].start_s)
    audio.sort(key=lambda item: item[1].audio[0].start_s)
    pairs = align(
        [p.lips[0] for _, p in lips], [p.audio[0] for _, p in audio], _same_word_cost, GAP_COST, MAX_OFFSET_S
    )
    for i, j in pairs:
        person, slot = audio[j]
        lips[i][1].audio.append(slot.audio[0])
        by_person[person][:] = [other for other in by_person[person] if other is not slot]


def select_words(
    slots: Sequence[AlignmentSlot], evidence: Evidence, person: str
) -> tuple[list[FusedWord], list[RejectedWord]]:
    """Select the words of one person's slots.

    Returns:
        Words whose starts never decrease and which do not overlap, and the omitted ones.
    """
    words: list[FusedWord] = []
    omitted: list[RejectedWord] = []
    for utterance in _split_utterances(_join_competing_slots(slots), evidence.rules):
        selected, rejected = _select_utterance_words(utterance, evidence.judge_vocabulary(utterance), person)
        words += selected
        omitted += rejected
    return _remove_overlaps(words), omitted


def _split_utterances(slots: Sequence[AlignmentSlot], rules: FusionRules) -> list[list[AlignmentSlot]]:
    utterances: list[list[AlignmentSlot]] = []
    begin_s = end_s = 0.0
    for slot in slots:
        start_s = min(word.start_s for word in slot.hypotheses)
        is_pause = start_s - end_s >= rules.utterance_pause_s
        if not utterances or is_pause or start_s - begin_s >= rules.max_utterance_s:
            utterances.append([])
            begin_s = start_s
        utterances[-1].append(slot)
        end_s = max(end_s, *(word.end_s for word in slot.hypotheses))
    return utterances


def _select_utterance_words(
    slots: Sequence[AlignmentSlot], evidence: Evidence, person: str
) -> tuple[list[FusedWord], list[RejectedWord]]:
    words: list[FusedWord] = []
    omitted: list[RejectedWord] = []
    for slot in slots:
        if slot.lips and slot.audio:
            words += _merge_agreeing(slot, evidence) if slot.is_agreed else _resolve_conflict(slot, evidence)
        else:
            reason = _explain_rejection(slot.hypotheses[0], evidence)
            for hypothesis in slot.hypotheses:
                if reason:
                    rejected = map(evidence.to_alternative, (hypothesis, *hypothesis.alternatives))
                    omitted += [RejectedWord(word, person, reason) for word in rejected]
                else:
                    chance = evidence.compute_probability(hypothesis)
                    words.append(_build_word(hypothesis, chance, [], evidence))
    return words, omitted


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


def _join_competing_slots(slots: Sequence[AlignmentSlot]) -> list[AlignmentSlot]:
    """Join slots whose hypotheses of different sources compete for the same time: "gonna" against "going to".

    Only neighbours are joined, which keeps the order of both sides.
    """
    joined: list[AlignmentSlot] = []
    for slot in slots:
        if joined and _compete(joined[-1], slot):
            joined[-1] = AlignmentSlot(joined[-1].lips + slot.lips, joined[-1].audio + slot.audio)
        else:
            joined.append(AlignmentSlot(list(slot.lips), list(slot.audio)))
    return joined


def _compete(before: AlignmentSlot, after: AlignmentSlot) -> bool:
    """Return whether one of two neighbouring slots has an unpaired word that overlaps the other's.

    A word that both sides have does not compete: its duration is its least certain property.
    """
    if before.is_agreed or after.is_agreed:
        return False
    alone = not (before.lips and before.audio) or not (after.lips and after.audio)
    return alone and (
        _overlap_significantly(before.lips, after.audio) or _overlap_significantly(before.audio, after.lips)
    )


def _merge_agreeing(slot: AlignmentSlot, evidence: Evidence) -> list[FusedWord]:
    """Take the texts (capitals, punctuation) from the audio and the times from the more probable side."""
    lips_probability = fmean(map(evidence.compute_probability, slot.lips))
    audio_probability = fmean(map(evidence.compute_probability, slot.audio))
    has_same_words = len(slot.lips) == len(slot.audio)
    timing_source = slot.lips if has_same_words and lips_probability > audio_probability else slot.audio
    # A model that used the audio too does not err independently of it.
    confidence = (
        max(lips_probability, audio_probability)
        if slot.lips[0].origin == "both"
        else noisy_or(lips_probability, audio_probability)
    )
    are_doubtful = all(any(word.is_doubtful for word in side) for side in (slot.lips, slot.audio))
    lips_alternatives = [word.alternatives for word in slot.lips]
    if not has_same_words:
        lips_alternatives = [tuple(other for word in slot.lips for other in word.alternatives)]
        lips_alternatives += [()] * (len(slot.audio) - 1)
    return [
        _build_word(
            replace(
                timed,
                text=audio.text,
                origin="both",
                alternatives=(*alternatives, *audio.alternatives),
                is_doubtful=are_doubtful,
            ),
            confidence,
            [],
            evidence,
        )
        for timed, audio, alternatives in zip(timing_source, slot.audio, lips_alternatives, strict=True)
    ]


def _resolve_conflict(slot: AlignmentSlot, evidence: Evidence) -> list[FusedWord]:
    """Select one side; each word of the other becomes an alternative of the word that it overlaps most."""
    chances = {
        side: fmean([evidence.compute_probability(c) for c in getattr(slot, side)])
        for side in ("lips", "audio")
    }
    lips_win = evidence.overriding_side == "lips" or (
        evidence.overriding_side is None and chances["lips"] > chances["audio"]
    )
    winners, rejected = (slot.lips, slot.audio) if lips_win else (slot.audio, slot.lips)
    assigned: list[list[WordHypothesis]] = [[] for _ in winners]
    for rejected_word in rejected:
        nearest = max(
            range(len(winners)), key=lambda at: (round(overlap_s(winners[at], rejected_word), 3), -at)
        )
        assigned[nearest].append(rejected_word)
    return [
        _build_word(
            winner,
            # The overridden side does not lower the confidence: it lacks the words in its vocabulary, or noise hides them.
            evidence.compute_probability(winner)
            if evidence.overriding_side
            else _compute_winner_confidence(winner, rivals, evidence),
            rivals,
            evidence,
        )
        for winner, rivals in zip(winners, assigned, strict=True)
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
    hypothesis: WordHypothesis, confidence: float, rivals: Sequence[WordHypothesis], evidence: Evidence
) -> FusedWord:
    rejected = [*hypothesis.alternatives, *rivals, *(word for rival in rivals for word in rival.alternatives)]
    alternatives = tuple(evidence.to_alternative(other) for other in rejected)
    return FusedWord(
        hypothesis.text,
        hypothesis.start_s,
        hypothesis.end_s,
        confidence,
        hypothesis.origin,
        alternatives,
        is_doubtful=hypothesis.is_doubtful or (evidence.is_audio_hidden and hypothesis.is_of_lip_model),
    )


def _explain_rejection(hypothesis: WordHypothesis, evidence: Evidence) -> str:
    """Return why a word of one source only is omitted; empty if it is kept."""
    chance, rules = evidence.compute_probability(hypothesis), evidence.rules
    middle_s = (hypothesis.start_s + hypothesis.end_s) / 2
    weight = evidence.compute_audio_weight(hypothesis)
    if hypothesis.is_of_lip_model:
        if evidence.overriding_side == "audio" and evidence.audio_covers(middle_s):
            return "not in the audio, and the lip reading model has a closed vocabulary"
    elif evidence.overriding_side == "lips" and evidence.lips_cover(middle_s):
        if evidence.is_audio_hidden:
            return "not in the lip reading, and the audio is too noisy"
        return "not in the lip reading, which fits the audio better"
    if hypothesis.origin == "lips" and evidence.audio_covers(middle_s):
        threshold = rules.min_lips_only_probability * weight
        reason = "not in the audio, and the lip reading"
    elif hypothesis.origin == "audio" and evidence.lips_cover(middle_s):
        threshold = rules.min_audio_only_probability
        reason = "not in the lip reading, and the audio"
    else:
        return ""
    return f"{reason} probability {chance:.2f} is below {threshold:.2f}" if chance < threshold else ""


def _remove_overlaps(words: Sequence[FusedWord]) -> list[FusedWord]:
    """Trim overlapping words: the overlap goes to the later word, or is halved if that one would be empty."""
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
