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
from gorggle_lambdas.fusion.face_tracks import (
    BOX_WEIGHT_MS,
    MAX_BOX_OFFSET_S,
    MIN_BOX_IOU,
    compute_iou,
    find_box,
)
from gorggle_lambdas.fusion.intervals import (
    Span,
    compute_distance_s,
    compute_overlap_ms,
    compute_total_ms,
    find_exclusive_spans,
    find_overlapping,
    merge_spans,
)
from gorggle_lambdas.fusion.types import UNKNOWN_SPEAKER, FaceBox, FaceTrack
from gorggle_lambdas.fusion.window_merging import WindowedFace
from gorggle_lambdas.fusion.word_hypotheses import WordHypothesis

# Words of one speaker with shorter pauses between them are one stretch of speech.
SPEECH_GAP_S = 0.3
# A face's lips move with a voice for at least so long, and for this share of what they say.
MIN_SHARED_MS = 200
MIN_SHARED_RATIO = 0.3
# A face is alone with a voice for at least so long, and for this share of what the voice says.
MIN_EXCLUSIVE_MS = 1000
MIN_EXCLUSIVE_RATIO = 0.5
# A pairing must weigh at least this share of the best that its second half could have.
MIN_RATIO_TO_BEST = 0.5
# Words of a source that knows no speakers go to who speaks then, or to who spoke at most so long before or after.
MAX_ATTRIBUTION_GAP_S = 1.0
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
    speech_spans: tuple[Span, ...]


@dataclass(eq=False, slots=True)
class _Cluster:
    """A person in the making. Compared by identity."""

    voices: dict[str, list[Span]] = field(default_factory=dict)
    lips: dict[str, WindowedFace] = field(default_factory=dict)
    tracks: dict[str, FaceTrack] = field(default_factory=dict)
    speech_spans: list[Span] = field(default_factory=list)
    windows: set[int] = field(init=False)
    lip_boxes: list[FaceBox] = field(init=False)

    def __post_init__(self) -> None:
        self._update_derived()

    def _update_derived(self) -> None:
        self.windows = {face.window for lips in self.lips.values() for face in lips.local_faces}
        self.lip_boxes = sorted((box for lips in self.lips.values() for box in lips.boxes), key=_get_time_s)

    def get_first_s(self) -> float:
        starts = [span[0] for span in self.speech_spans]
        starts += [box.time_s for box in self.lip_boxes]
        starts += [track.boxes[0].time_s for track in self.tracks.values()]
        return min(starts, default=0.0)

    def merge(self, other: _Cluster) -> None:
        self.voices |= other.voices
        self.lips |= other.lips
        self.tracks |= other.tracks
        self.speech_spans = merge_spans([*self.speech_spans, *other.speech_spans])
        self._update_derived()

    def is_compatible(self, other: _Cluster) -> bool:
        """Whether nothing says that the two are different people."""
        if (self.voices and other.voices) or self.windows & other.windows:
            return False
        seen = [merge_spans([_get_visible_span(track)]) for track in self.tracks.values()]
        return not any(
            compute_overlap_ms(span, [_get_visible_span(track)]) > SIMULTANEOUS_MS
            for span in seen
            for track in other.tracks.values()
        )

    def to_person(self, name: str) -> Person:
        tracked = [box for track in self.tracks.values() for box in track.boxes]
        # Where both know the face, the tracks do better: they also see it in silence.
        boxes = tracked or self.lip_boxes
        return Person(
            name,
            tuple(sorted(self.voices)),
            tuple(sorted(self.lips)),
            tuple(sorted(self.tracks)),
            self.get_first_s(),
            tuple(sorted(boxes, key=lambda box: (box.time_s, box.left, box.top))),
            tuple(self.speech_spans),
        )


class SpeakerMap:
    """Everybody in a video, and whose word each claim is."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self.persons = tuple(persons)
        self._by_speaker = {
            key: p for p in persons for key in (*(_make_voice_key(v) for v in p.voices), *p.lips)
        }
        self._unknown = next((p for p in persons if not (p.voices or p.lips or p.tracks)), None)
        self._speakers = _SpeakerIndex([p for p in persons if p is not self._unknown])

    def find_speaker(self, claim: WordHypothesis, *, is_audio: bool) -> Person:
        """Whose word it is; a source that knows no speakers is asked who spoke at that time."""
        if claim.speaker != UNKNOWN_SPEAKER:
            voice = self._by_speaker.get(_make_voice_key(claim.speaker)) if is_audio else None
            return voice or self._by_speaker[claim.speaker]
        person = self._speakers.find_speaker(claim) or self._unknown
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
    heard = _group_speech([claim for claim in sound if claim.speaker not in keys])
    voices = [_Cluster(voices={label: spans}, speech_spans=spans) for label, spans in heard.items()]
    # The server may have read the sound alone although it knew the face.
    speech = _group_speech([*lips, *(claim for claim in sound if claim.speaker in keys)])
    readers = [
        _Cluster(lips={f.key: f}, speech_spans=speech.get(f.key, []))
        for f in sorted(faces, key=lambda f: f.key)
    ]
    seen = [_Cluster(tracks={track.name: track}) for track in tracks]
    bodies = _merge_clusters(_sort_clusters(voices), _sort_clusters(readers), _sort_clusters(seen))
    speakers = _SpeakerIndex([body.to_person("") for body in bodies])
    nobodys = [
        c for c in (*sound, *lips) if c.speaker == UNKNOWN_SPEAKER and speakers.find_speaker(c) is None
    ]
    if nobodys:
        bodies.append(
            _Cluster(speech_spans=merge_spans([(c.start_s, c.end_s) for c in nobodys], SPEECH_GAP_S))
        )
    return SpeakerMap(
        [body.to_person(f"person-{number}") for number, body in enumerate(_sort_clusters(bodies), 1)]
    )


def _group_speech(claims: Sequence[WordHypothesis]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for claim in claims:
        if claim.speaker != UNKNOWN_SPEAKER:
            spans.setdefault(claim.speaker, []).append((claim.start_s, claim.end_s))
    return {speaker: merge_spans(said, SPEECH_GAP_S) for speaker, said in spans.items()}


def _sort_clusters(bodies: Iterable[_Cluster]) -> list[_Cluster]:
    return sorted(bodies, key=lambda b: (b.get_first_s(), sorted(b.voices), sorted(b.lips), sorted(b.tracks)))


def _merge_clusters(voices: list[_Cluster], readers: list[_Cluster], seen: list[_Cluster]) -> list[_Cluster]:
    for window in sorted({window for body in readers for window in body.windows}):
        here = [body for body in readers if window in body.windows and not body.tracks]
        taken = _merge_best_pairs(seen, here, _compute_box_agreement)
        readers = [body for body in readers if body not in taken]
    faced = _sort_clusters([*readers, *(body for body in seen if body.lips)])
    loose = [body for body in seen if not body.lips]
    loose = _merge_until_stable(faced, loose, _compute_box_agreement)
    for window in sorted({window for body in faced for window in body.windows}):
        here = [body for body in faced if window in body.windows and not body.voices]
        taken = _merge_best_pairs(voices, here, _compute_shared_speech_ms)
        faced = [body for body in faced if body not in taken]
    heard_only = [body for body in voices if not (body.lips or body.tracks)]
    lonely = _find_exclusive_visibility(
        [*_collect_tracks(faced), *_collect_tracks(voices), *_collect_tracks(loose)]
    )
    loose = _merge_until_stable(
        heard_only, loose, lambda voice, face: _compute_exclusive_speech_ms(voice, face, lonely)
    )
    return [*voices, *faced, *loose]


def _collect_tracks(bodies: Iterable[_Cluster]) -> list[FaceTrack]:
    """All tracks of some bodies."""
    return [track for body in bodies for track in body.tracks.values()]


def _merge_until_stable(
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
    weights = [[weight(seed, body) if seed.is_compatible(body) else 0 for body in bodies] for seed in seeds]
    best = [max(column) for column in zip(*weights, strict=True)]
    # In a round in which its best seed takes another, a body must not fall to one that it hardly fits.
    fair = [[w if w >= MIN_RATIO_TO_BEST * best[at] else 0 for at, w in enumerate(line)] for line in weights]
    pairs = max_weight_matching(fair)
    for row, column in pairs:
        seeds[row].merge(bodies[column])
    return {bodies[column] for _, column in pairs}


def _compute_box_agreement(one: _Cluster, other: _Cluster) -> int:
    """Milliseconds for which the boxes of lip reading lie on those of the tracks, weighted by how well."""
    tracks, lips = (
        (one.tracks, other.lip_boxes) if one.tracks and other.lips else (other.tracks, one.lip_boxes)
    )
    total = 0
    for track in tracks.values():
        first = bisect_left(lips, track.boxes[0].time_s - MAX_BOX_OFFSET_S, key=_get_time_s)
        last = bisect_right(lips, track.boxes[-1].time_s + MAX_BOX_OFFSET_S, key=_get_time_s)
        for box in lips[first:last]:
            near = find_box(track.boxes, box.time_s, MAX_BOX_OFFSET_S)
            alike = compute_iou(near, box) if near is not None else 0.0
            total += round(BOX_WEIGHT_MS * alike) if alike >= MIN_BOX_IOU else 0
    return total


def _get_time_s(box: FaceBox) -> float:
    return box.time_s


def _compute_shared_speech_ms(voice: _Cluster, face: _Cluster) -> int:
    heard = [span for spans in voice.voices.values() for span in spans]
    shared = compute_overlap_ms(merge_spans(heard), face.speech_spans)
    enough = shared >= MIN_SHARED_MS and shared >= MIN_SHARED_RATIO * compute_total_ms(face.speech_spans)
    return shared if enough else 0


def _find_exclusive_visibility(tracks: Sequence[FaceTrack]) -> dict[str, list[Span]]:
    """For each track, when no other face was in the picture."""
    lonely = find_exclusive_spans([_get_visible_span(track) for track in tracks])
    return {track.name: spans for track, spans in zip(tracks, lonely, strict=True)}


def _compute_exclusive_speech_ms(voice: _Cluster, face: _Cluster, lonely: dict[str, list[Span]]) -> int:
    spans = merge_spans([span for name in face.tracks for span in lonely[name]])
    shared = compute_overlap_ms(voice.speech_spans, spans)
    enough = shared >= MIN_EXCLUSIVE_MS and shared >= MIN_EXCLUSIVE_RATIO * compute_total_ms(
        voice.speech_spans
    )
    return shared if enough else 0


def _get_visible_span(track: FaceTrack) -> Span:
    return track.boxes[0].time_s, track.boxes[-1].time_s


class _SpeakerIndex:
    """Who speaks at a moment. Persons are filed by stretches of time, so that few are looked at for each word."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self._persons = persons
        self._buckets: dict[int, list[int]] = {}
        for number, person in enumerate(persons):
            for at in sorted({at for span in person.speech_spans for at in _list_buckets(span)}):
                self._buckets.setdefault(at, []).append(number)

    def find_speaker(self, claim: WordHypothesis) -> Person | None:
        """Who speaks for most of a word, else who spoke last or next; the earlier person where it is even."""
        word = (claim.start_s, claim.end_s)
        near = sorted({number for at in _list_buckets(word) for number in self._buckets.get(at, ())})
        ranked = []
        for number in near:
            spans = find_overlapping(self._persons[number].speech_spans, word)
            ranked.append((-compute_overlap_ms(spans, [word]), compute_distance_s(spans, word), number))
        if not ranked or min(ranked)[1] > MAX_ATTRIBUTION_GAP_S:
            return None
        return self._persons[min(ranked)[2]]


def _list_buckets(span: Span) -> range:
    """The numbers of the stretches of ``SHELF_S`` that a span touches, its reach included."""
    first, last = span[0] - MAX_ATTRIBUTION_GAP_S, span[1] + MAX_ATTRIBUTION_GAP_S
    return range(int(first // TIME_BUCKET_S), int(last // TIME_BUCKET_S) + 1)


def _make_voice_key(label: str) -> str:
    # A voice and a face may bear the same name.
    return f"voice:{label}"
