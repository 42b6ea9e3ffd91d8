"""Speaker attribution: the share of words assigned to the correct speaker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

# The service's speaker id for off-screen speech: such words count as unattributed.
NO_FACE = "voice"


@dataclass(frozen=True)
class Attribution:
    """Counts of attributed words over clips.

    Attributes:
        correct: words assigned to the speaker who said them, whether or not the word itself is correct.
        recognized: reference words that were aligned to a recognized word.
        words: all reference words.
        clips: clips with at least two named speakers.
    """

    correct: int
    recognized: int
    words: int
    clips: int

    @property
    def share_of_recognized(self) -> float:
        """Return the share of recognized words with the correct speaker."""
        return self.correct / self.recognized if self.recognized else 0.0

    @property
    def share_of_reference(self) -> float:
        """Return the share of all reference words with the correct speaker; deleted words count as wrong."""
        return self.correct / self.words if self.words else 0.0

    @staticmethod
    def combine(clips: Iterable[Attribution]) -> Attribution | None:
        """Return the sum over clips, or None for no clips."""
        totals = list(clips)
        if not totals:
            return None
        return Attribution(*map(sum, zip(*map(astuple, totals), strict=True)))


def attribute_words(reference_speakers: Sequence[str], recognized: Sequence[tuple[int, str]]) -> Attribution:
    """Count the correctly attributed words of one clip.

    Args:
        reference_speakers: speaker of each reference word.
        recognized: for each recognized word, its reference index and the speaker id that the service assigned.
    """
    counts = Counter((reference_speakers[index], face) for index, face in recognized if face != NO_FACE)
    mapping = map_speakers_to_faces(counts)
    right = sum(count for (speaker, face), count in counts.items() if mapping.get(speaker) == face)
    return Attribution(right, len(recognized), len(reference_speakers), 1)


def map_speakers_to_faces(counts: Mapping[tuple[str, str], int]) -> dict[str, str]:
    """Return the one-to-one mapping of speakers to faces that maximizes the correct words.

    Args:
        counts: words by speaker and face.

    Dynamic programming over sets of speakers: a clip has few.
    """
    best: dict[frozenset[str], tuple[int, dict[str, str]]] = {frozenset(): (0, {})}
    for face in sorted({face for _, face in counts}):
        speakers = [speaker for speaker, seen_on in counts if seen_on == face]
        for taken, (words, mapping) in list(best.items()):
            for speaker in speakers:
                if speaker in taken:
                    continue
                total = words + counts[speaker, face]
                if total > best.get(taken | {speaker}, (-1, {}))[0]:
                    best[taken | {speaker}] = total, {**mapping, speaker: face}
    return max(best.values(), key=lambda totals: totals[0])[1]
