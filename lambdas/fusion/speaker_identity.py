"""One set of people out of the voices that diarisation told apart, the faces that lip reading followed, face tracks.

Evidence joins them, strongest first; every step is an assignment of greatest total weight, so that two people who talk
at once do not take each other's face:

1. a face of lip reading and a face track whose boxes lie on each other are one face;
2. further tracks that lie on that face later (tracking broke) are too;
3. a voice belongs to the face whose lips spoke while it was heard;
4. a voice without lips belongs to the face that was alone in the picture while it was heard.

Never joined: two faces of one window, two tracks seen at once, two voices. A person may be a voice or a face only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gorggle_lambdas.fusion.assignment import max_weight_matching
from gorggle_lambdas.fusion.face_tracks import BOX_LIKENESS, BOX_MS, BOX_REACH_S, box_at, iou
from gorggle_lambdas.fusion.intervals import (
    Span,
    alone,
    covered_ms,
    joined_spans,
    nearest_s,
    overlapping,
    shared_ms,
)
from gorggle_lambdas.fusion.types import UNKNOWN_SPEAKER, FaceBox, FaceTrack
from gorggle_lambdas.fusion.window_merging import WindowedFace
from gorggle_lambdas.fusion.word_hypotheses import WordHypothesis

# Words of one speaker with shorter pauses between them are one stretch of speech.
SPEECH_GAP_S = 0.3
# A face's lips move with a voice for at least so long, and for this share of what they say.
LEAST_SHARED_MS = 200
LEAST_SHARED_SHARE = 0.3
# A face is alone with a voice for at least so long, and for this share of what the voice says.
LEAST_ALONE_MS = 1000
LEAST_ALONE_SHARE = 0.5
# A pairing must weigh at least this share of the best that its second half could have.
BEST_SHARE = 0.5
# Words of a source that knows no speakers go to who speaks then, or to who spoke at most so long before or after.
ATTRIBUTION_REACH_S = 1.0
TIME_BUCKET_S = 10.0
# Tracks seen at the same time for longer are two people.
SIMULTANEOUS_MS = 200


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who was heard or seen.

    Attributes:
        name: "person-1", "person-2"… by first appearance.
        voices: labels that diarisation gave.
        lips: keys of faces whose lips were read.
        tracks: names of face tracks.
        first_s: when first heard or seen.
        boxes: where the face was, by time.
    """

    name: str
    voices: tuple[str, ...]
    lips: tuple[str, ...]
    tracks: tuple[str, ...]
    first_s: float
    boxes: tuple[FaceBox, ...]
    spoken: tuple[Span, ...]


@dataclass(eq=False, slots=True)
class _Cluster:
    """A person in the making. Compared by identity."""

    voices: dict[str, list[Span]] = field(default_factory=dict)
    lips: dict[str, WindowedFace] = field(default_factory=dict)
    tracks: dict[str, FaceTrack] = field(default_factory=dict)
    spoken: list[Span] = field(default_factory=list)
    windows: set[int] = field(init=False)
    lip_boxes: list[FaceBox] = field(init=False)

    def __post_init__(self) -> None:
        self._gather()

    def _gather(self) -> None:
        self.windows = {face.window for lips in self.lips.values() for face in lips.local_faces}
        self.lip_boxes = sorted((box for lips in self.lips.values() for box in lips.boxes), key=_time)

    def first_s(self) -> float:
        starts = [span[0] for span in self.spoken]
        starts += [box.time_s for box in self.lip_boxes]
        starts += [track.boxes[0].time_s for track in self.tracks.values()]
        return min(starts, default=0.0)

    def take(self, other: _Cluster) -> None:
        self.voices |= other.voices
        self.lips |= other.lips
        self.tracks |= other.tracks
        self.spoken = joined_spans([*self.spoken, *other.spoken])
        self._gather()

    def may_be(self, other: _Cluster) -> bool:
        """Whether nothing says that the two are different people."""
        if (self.voices and other.voices) or self.windows & other.windows:
            return False
        seen = [joined_spans([_seen(track)]) for track in self.tracks.values()]
        return not any(
            shared_ms(span, [_seen(track)]) > SIMULTANEOUS_MS
            for span in seen
            for track in other.tracks.values()
        )

    def person(self, name: str) -> Person:
        tracked = [box for track in self.tracks.values() for box in track.boxes]
        # Where both know the face, the tracks do better: they also see it in silence.
        boxes = tracked or self.lip_boxes
        return Person(
            name,
            tuple(sorted(self.voices)),
            tuple(sorted(self.lips)),
            tuple(sorted(self.tracks)),
            self.first_s(),
            tuple(sorted(boxes, key=lambda box: (box.time_s, box.left, box.top))),
            tuple(self.spoken),
        )


class SpeakerMap:
    """Everybody in a video, and whose word each claim is."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self.persons = tuple(persons)
        self._by_speaker = {key: p for p in persons for key in (*(_voice(v) for v in p.voices), *p.lips)}
        self._unknown = next((p for p in persons if not (p.voices or p.lips or p.tracks)), None)
        self._speakers = _Speakers([p for p in persons if p is not self._unknown])

    def speaker_of(self, claim: WordHypothesis, *, is_sound: bool) -> Person:
        """Whose word it is; a source that knows no speakers is asked who spoke at that time."""
        if claim.speaker != UNKNOWN_SPEAKER:
            voice = self._by_speaker.get(_voice(claim.speaker)) if is_sound else None
            return voice or self._by_speaker[claim.speaker]
        person = self._speakers.at(claim) or self._unknown
        assert person is not None, "people() makes a person for words that nobody else can have said"
        return person


def resolve_speakers(
    sound: Sequence[WordHypothesis],
    lips: Sequence[WordHypothesis],
    faces: Sequence[WindowedFace],
    tracks: Sequence[FaceTrack],
) -> SpeakerMap:
    """Find out who is who.

    Args:
        sound: all words heard.
        lips: all words read from lips.
        faces: the faces that lip reading followed.
        tracks: faces followed by another source.
    """
    keys = {face.key for face in faces}
    heard = _speech([claim for claim in sound if claim.speaker not in keys])
    voices = [_Cluster(voices={label: spans}, spoken=spans) for label, spans in heard.items()]
    # The server may have read the sound alone although it knew the face.
    speech = _speech([*lips, *(claim for claim in sound if claim.speaker in keys)])
    readers = [
        _Cluster(lips={f.key: f}, spoken=speech.get(f.key, [])) for f in sorted(faces, key=lambda f: f.key)
    ]
    seen = [_Cluster(tracks={track.name: track}) for track in tracks]
    bodies = _joined(_ordered(voices), _ordered(readers), _ordered(seen))
    speakers = _Speakers([body.person("") for body in bodies])
    nobodys = [c for c in (*sound, *lips) if c.speaker == UNKNOWN_SPEAKER and speakers.at(c) is None]
    if nobodys:
        bodies.append(_Cluster(spoken=joined_spans([(c.start_s, c.end_s) for c in nobodys], SPEECH_GAP_S)))
    return SpeakerMap([body.person(f"person-{number}") for number, body in enumerate(_ordered(bodies), 1)])


def _speech(claims: Sequence[WordHypothesis]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for claim in claims:
        if claim.speaker != UNKNOWN_SPEAKER:
            spans.setdefault(claim.speaker, []).append((claim.start_s, claim.end_s))
    return {speaker: joined_spans(said, SPEECH_GAP_S) for speaker, said in spans.items()}


def _ordered(bodies: Iterable[_Cluster]) -> list[_Cluster]:
    return sorted(bodies, key=lambda b: (b.first_s(), sorted(b.voices), sorted(b.lips), sorted(b.tracks)))


def _joined(voices: list[_Cluster], readers: list[_Cluster], seen: list[_Cluster]) -> list[_Cluster]:
    for window in sorted({window for body in readers for window in body.windows}):
        here = [body for body in readers if window in body.windows and not body.tracks]
        taken = _merge_best_pairs(seen, here, _box_agreement)
        readers = [body for body in readers if body not in taken]
    faced = _ordered([*readers, *(body for body in seen if body.lips)])
    loose = [body for body in seen if not body.lips]
    loose = _until_settled(faced, loose, _box_agreement)
    for window in sorted({window for body in faced for window in body.windows}):
        here = [body for body in faced if window in body.windows and not body.voices]
        taken = _merge_best_pairs(voices, here, _spoken_together)
        faced = [body for body in faced if body not in taken]
    heard_only = [body for body in voices if not (body.lips or body.tracks)]
    lonely = _alone_in_picture([*_tracks_of(faced), *_tracks_of(voices), *_tracks_of(loose)])
    loose = _until_settled(heard_only, loose, lambda voice, face: _alone_together(voice, face, lonely))
    return [*voices, *faced, *loose]


def _tracks_of(bodies: Iterable[_Cluster]) -> list[FaceTrack]:
    """All tracks of some bodies."""
    return [track for body in bodies for track in body.tracks.values()]


def _until_settled(
    seeds: list[_Cluster], loose: list[_Cluster], weight: Callable[[_Cluster, _Cluster], int]
) -> list[_Cluster]:
    """Unite in rounds until a round finds nothing; gives what stays loose."""
    while taken := _merge_best_pairs(seeds, loose, weight):
        loose = [body for body in loose if body not in taken]
    return loose


def _merge_best_pairs(
    seeds: Sequence[_Cluster], bodies: Sequence[_Cluster], weight: Callable[[_Cluster, _Cluster], int]
) -> set[_Cluster]:
    """Give bodies to seeds, at most one to each, by greatest total weight; gives the bodies that were taken."""
    weights = [[weight(seed, body) if seed.may_be(body) else 0 for body in bodies] for seed in seeds]
    best = [max(column) for column in zip(*weights, strict=True)]
    # In a round in which its best seed takes another, a body must not fall to one that it hardly fits.
    fair = [[w if w >= BEST_SHARE * best[at] else 0 for at, w in enumerate(line)] for line in weights]
    pairs = max_weight_matching(fair)
    for row, column in pairs:
        seeds[row].take(bodies[column])
    return {bodies[column] for _, column in pairs}


def _box_agreement(one: _Cluster, other: _Cluster) -> int:
    """Milliseconds for which the boxes of lip reading lie on those of the tracks, weighted by how well."""
    tracks, lips = (
        (one.tracks, other.lip_boxes) if one.tracks and other.lips else (other.tracks, one.lip_boxes)
    )
    total = 0
    for track in tracks.values():
        first = bisect_left(lips, track.boxes[0].time_s - BOX_REACH_S, key=_time)
        last = bisect_right(lips, track.boxes[-1].time_s + BOX_REACH_S, key=_time)
        for box in lips[first:last]:
            near = box_at(track.boxes, box.time_s, BOX_REACH_S)
            alike = iou(near, box) if near is not None else 0.0
            total += round(BOX_MS * alike) if alike >= BOX_LIKENESS else 0
    return total


def _time(box: FaceBox) -> float:
    return box.time_s


def _spoken_together(voice: _Cluster, face: _Cluster) -> int:
    heard = [span for spans in voice.voices.values() for span in spans]
    shared = shared_ms(joined_spans(heard), face.spoken)
    enough = shared >= LEAST_SHARED_MS and shared >= LEAST_SHARED_SHARE * covered_ms(face.spoken)
    return shared if enough else 0


def _alone_in_picture(tracks: Sequence[FaceTrack]) -> dict[str, list[Span]]:
    """For each track, when no other face was in the picture."""
    lonely = alone([_seen(track) for track in tracks])
    return {track.name: spans for track, spans in zip(tracks, lonely, strict=True)}


def _alone_together(voice: _Cluster, face: _Cluster, lonely: dict[str, list[Span]]) -> int:
    spans = joined_spans([span for name in face.tracks for span in lonely[name]])
    shared = shared_ms(voice.spoken, spans)
    enough = shared >= LEAST_ALONE_MS and shared >= LEAST_ALONE_SHARE * covered_ms(voice.spoken)
    return shared if enough else 0


def _seen(track: FaceTrack) -> Span:
    return track.boxes[0].time_s, track.boxes[-1].time_s


class _Speakers:
    """Who speaks at a moment. Persons are filed by stretches of time, so that few are looked at for each word."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self._persons = persons
        self._filed: dict[int, list[int]] = {}
        for number, person in enumerate(persons):
            for at in sorted({at for span in person.spoken for at in _shelves(span)}):
                self._filed.setdefault(at, []).append(number)

    def at(self, claim: WordHypothesis) -> Person | None:
        """Who speaks for most of a word, else who spoke last or next; the earlier person where it is even."""
        word = (claim.start_s, claim.end_s)
        near = sorted({number for at in _shelves(word) for number in self._filed.get(at, ())})
        ranked = []
        for number in near:
            spans = overlapping(self._persons[number].spoken, word)
            ranked.append((-shared_ms(spans, [word]), nearest_s(spans, word), number))
        if not ranked or min(ranked)[1] > ATTRIBUTION_REACH_S:
            return None
        return self._persons[min(ranked)[2]]


def _shelves(span: Span) -> range:
    """The numbers of the stretches of ``SHELF_S`` that a span touches, its reach included."""
    first, last = span[0] - ATTRIBUTION_REACH_S, span[1] + ATTRIBUTION_REACH_S
    return range(int(first // TIME_BUCKET_S), int(last // TIME_BUCKET_S) + 1)


def _voice(label: str) -> str:
    # A voice and a face may bear the same name.
    return f"voice:{label}"
