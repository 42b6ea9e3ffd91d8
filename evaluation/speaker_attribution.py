"""Who said it: whether words were put on the right speaker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# What the service calls a speaker whose face was not seen: such words are on nobody.
NO_FACE = "voice"


@dataclass(frozen=True)
class Attribution:
    """How many words are on the right speaker, over clips.

    Attributes:
        correct: words, rightly read or not, that are on the speaker who said them.
        recognized: words that were said and of which something was read.
        words: words that were said, those that were missed among them.
        clips: with at least two speakers who are named.
    """

    correct: int
    recognized: int
    words: int
    clips: int

    @property
    def share_of_recognized(self) -> float:
        """Of the words that were read, the share on the right speaker."""
        return self.correct / self.recognized if self.recognized else 0.0

    @property
    def share_of_reference(self) -> float:
        """Of all words that were said, the share on the right speaker: a missed word is on nobody."""
        return self.correct / self.words if self.words else 0.0

    @staticmethod
    def combine(clips: Iterable[Attribution]) -> Attribution | None:
        """The sum over clips; None for none."""
        found = list(clips)
        if not found:
            return None
        return Attribution(
            sum(clip.correct for clip in found),
            sum(clip.recognized for clip in found),
            sum(clip.words for clip in found),
            sum(clip.clips for clip in found),
        )


def attribute_words(reference_speakers: Sequence[str], recognized: Sequence[tuple[int, str]]) -> Attribution:
    """Count one clip's words that are on the right speaker.

    Args:
        reference_speakers: who says each word.
        recognized: place among the said words, and the id that the service gave its speaker, of each word that was read.
    """
    counts = Counter((reference_speakers[place], face) for place, face in recognized if face != NO_FACE)
    mapping = map_speakers_to_faces(counts)
    right = sum(count for (speaker, face), count in counts.items() if mapping.get(speaker) == face)
    return Attribution(right, len(recognized), len(reference_speakers), 1)


def map_speakers_to_faces(counts: Mapping[tuple[str, str], int]) -> dict[str, str]:
    """The one-to-one mapping of speakers to faces that puts the most words right.

    Args:
        counts: words by speaker and face.

    All sets of speakers are gone through, face by face: there are few speakers in a clip.
    """
    best: dict[frozenset[str], tuple[int, dict[str, str]]] = {frozenset(): (0, {})}
    for face in sorted({face for _, face in counts}):
        speakers = [speaker for speaker, heard_on in counts if heard_on == face]
        for taken, (words, mapping) in list(best.items()):
            for speaker in speakers:
                if speaker in taken:
                    continue
                total = words + counts[speaker, face]
                if total > best.get(taken | {speaker}, (-1, {}))[0]:
                    best[taken | {speaker}] = total, {**mapping, speaker: face}
    return max(best.values(), key=lambda found: found[0])[1]
