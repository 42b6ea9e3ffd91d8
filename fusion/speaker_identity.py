"""Resolves speakers: joins diarised voices, lip reading faces and face tracks to people.

Evidence is applied from strong to weak; every step is a maximum-weight matching, so that two people who talk at once do
not get each other's face:

1. a lip reading face and a face track with matching boxes are one face;
2. further tracks that match that face later (tracking was interrupted) are too;
3. a voice belongs to the face whose lips moved at the same time;
4. a voice without lip reading belongs to the face that was alone in view at the same time.

Never joined: two faces of one window, two tracks seen at once, two voices. A person may have a voice or a face only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gorggle_fusion.assignment import max_weight_matching
from gorggle_fusion.face_tracks import (
    BOX_WEIGHT_MS,
    MAX_BOX_OFFSET_S,
    MIN_BOX_IOU,
    compute_iou,
    find_box,
)
from gorggle_fusion.intervals import (
    Span,
    compute_distance_s,
    compute_overlap_ms,
    compute_total_ms,
    find_exclusive_spans,
    find_overlapping,
    merge_spans,
)
from gorggle_fusion.types import UNKNOWN_SPEAKER, FaceBox, FaceTrack
from gorggle_fusion.window_merging import WindowedFace
from gorggle_fusion.word_hypotheses import WordHypothesis

# Words of one speaker with shorter pauses are one span of speech.
SPEECH_GAP_S = 0.3
# Minimum common speech of a face and a voice, absolute and as a fraction of the face's speech.
MIN_SHARED_MS = 200
MIN_SHARED_RATIO = 0.3
# Minimum speech of a voice while only that face is in view, absolute and as a fraction of the voice's speech.
MIN_EXCLUSIVE_MS = 1000
MIN_EXCLUSIVE_RATIO = 0.5
# Minimum weight of a pair relative to the best weight of its second member.
MIN_RATIO_TO_BEST = 0.5
# Words without a speaker are assigned to the current speaker, or one who spoke at most this long before or after.
MAX_ATTRIBUTION_GAP_S = 1.0
TIME_BUCKET_S = 10.0
# Tracks visible together for longer are two people.
SIMULTANEOUS_MS = 200


@dataclass(frozen=True, slots=True)
class Person:
    """A person who was heard or seen.

    Attributes:
        name: "person-1", "person-2"… by first appearance.
        voices: diarisation labels.
        lips: keys of lip reading faces.
        tracks: names of face tracks.
        first_s: first time heard or seen.
        boxes: the face's boxes, by time.
        speech_spans: when the person speaks.
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
    """A person under construction. Compared by identity."""

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
        """Return whether nothing proves that the two are different people."""
        if (self.voices and other.voices) or self.windows & other.windows:
            return False
        return not any(
            compute_overlap_ms([_get_visible_span(track)], [_get_visible_span(seen)]) > SIMULTANEOUS_MS
            for track in self.tracks.values()
            for seen in other.tracks.values()
        )

    def to_person(self, name: str) -> Person:
        tracked = [box for track in self.tracks.values() for box in track.boxes]
        # Tracks are more complete than lip reading boxes: they include silence.
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
    """The people of a video, and the speaker of each hypothesis."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self.persons = tuple(persons)
        self._by_speaker = {
            key: p for p in persons for key in (*(_make_voice_key(v) for v in p.voices), *p.lips)
        }
        self._unknown = next((p for p in persons if not (p.voices or p.lips or p.tracks)), None)
        self._speakers = _SpeakerIndex([p for p in persons if p is not self._unknown])

    def find_speaker(self, hypothesis: WordHypothesis, *, is_audio: bool) -> Person:
        """Return the speaker of a word; without a label, the person speaking at that time."""
        if hypothesis.speaker != UNKNOWN_SPEAKER:
            voice = self._by_speaker.get(_make_voice_key(hypothesis.speaker)) if is_audio else None
            return voice or self._by_speaker[hypothesis.speaker]
        person = self._speakers.find_speaker(hypothesis) or self._unknown
        assert person is not None, "resolve_speakers() adds a person for words without another speaker"
        return person


def resolve_speakers(
    audio: Sequence[WordHypothesis],
    lips: Sequence[WordHypothesis],
    faces: Sequence[WindowedFace],
    tracks: Sequence[FaceTrack],
) -> SpeakerMap:
    """Resolve the people of a video.

    Args:
        audio: all audio hypotheses.
        lips: all lip reading hypotheses.
        faces: the faces of lip reading.
        tracks: face tracks of another source.
    """
    keys = {face.key for face in faces}
    heard = _group_speech([hypothesis for hypothesis in audio if hypothesis.speaker not in keys])
    voice_clusters = [_Cluster(voices={label: spans}, speech_spans=spans) for label, spans in heard.items()]
    # The server may have used the audio alone although it knew the face.
    speech = _group_speech([*lips, *(hypothesis for hypothesis in audio if hypothesis.speaker in keys)])
    lip_clusters = [
        _Cluster(lips={f.key: f}, speech_spans=speech.get(f.key, []))
        for f in sorted(faces, key=lambda f: f.key)
    ]
    track_clusters = [_Cluster(tracks={track.name: track}) for track in tracks]
    clusters = _merge_clusters(
        _sort_clusters(voice_clusters), _sort_clusters(lip_clusters), _sort_clusters(track_clusters)
    )
    speakers = _SpeakerIndex([cluster.to_person("") for cluster in clusters])
    unassigned = [
        c for c in (*audio, *lips) if c.speaker == UNKNOWN_SPEAKER and speakers.find_speaker(c) is None
    ]
    if unassigned:
        clusters.append(
            _Cluster(speech_spans=merge_spans([(c.start_s, c.end_s) for c in unassigned], SPEECH_GAP_S))
        )
    return SpeakerMap(
        [cluster.to_person(f"person-{number}") for number, cluster in enumerate(_sort_clusters(clusters), 1)]
    )


def _group_speech(hypotheses: Sequence[WordHypothesis]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for hypothesis in hypotheses:
        if hypothesis.speaker != UNKNOWN_SPEAKER:
            spans.setdefault(hypothesis.speaker, []).append((hypothesis.start_s, hypothesis.end_s))
    return {speaker: merge_spans(parts, SPEECH_GAP_S) for speaker, parts in spans.items()}


def _sort_clusters(clusters: Iterable[_Cluster]) -> list[_Cluster]:
    return sorted(
        clusters, key=lambda b: (b.get_first_s(), sorted(b.voices), sorted(b.lips), sorted(b.tracks))
    )


def _merge_clusters(
    voices: list[_Cluster], lip_faces: list[_Cluster], tracks: list[_Cluster]
) -> list[_Cluster]:
    """Merge voices, lip reading faces and face tracks to one cluster per person."""
    unmatched = _merge_by_window(tracks, lip_faces, lambda face: not face.tracks, _compute_box_agreement)
    faces = _sort_clusters([*unmatched, *(track for track in tracks if track.lips)])
    loose_tracks = [track for track in tracks if not track.lips]
    loose_tracks = _merge_until_stable(faces, loose_tracks, _compute_box_agreement)
    faces = _merge_by_window(voices, faces, lambda face: not face.voices, _compute_shared_speech_ms)
    unseen_voices = [voice for voice in voices if not (voice.lips or voice.tracks)]
    exclusive = _find_exclusive_visibility(
        [track for cluster in (*faces, *voices, *loose_tracks) for track in cluster.tracks.values()]
    )
    loose_tracks = _merge_until_stable(
        unseen_voices, loose_tracks, lambda voice, face: _compute_exclusive_speech_ms(voice, face, exclusive)
    )
    return [*voices, *faces, *loose_tracks]


def _merge_by_window(
    seeds: list[_Cluster],
    faces: list[_Cluster],
    is_candidate: Callable[[_Cluster], bool],
    weight: Callable[[_Cluster, _Cluster], int],
) -> list[_Cluster]:
    """Merge lip reading faces into seeds, window by window, since the faces of one window are different people."""
    for window in sorted({window for face in faces for window in face.windows}):
        candidates = [face for face in faces if window in face.windows and is_candidate(face)]
        merged = _merge_best_pairs(seeds, candidates, weight)
        faces = [face for face in faces if face not in merged]
    return faces


def _merge_until_stable(
    seeds: list[_Cluster], unmerged: list[_Cluster], weight: Callable[[_Cluster, _Cluster], int]
) -> list[_Cluster]:
    """Merge in rounds until a round merges nothing; return the unmerged candidates."""
    while merged := _merge_best_pairs(seeds, unmerged, weight):
        unmerged = [candidate for candidate in unmerged if candidate not in merged]
    return unmerged


def _merge_best_pairs(
    seeds: Sequence[_Cluster], candidates: Sequence[_Cluster], weight: Callable[[_Cluster, _Cluster], int]
) -> set[_Cluster]:
    """Merge candidates into seeds, at most one each, by maximum total weight; return the merged ones."""
    weights = [
        [weight(seed, candidate) if seed.is_compatible(candidate) else 0 for candidate in candidates]
        for seed in seeds
    ]
    best = [max(column) for column in zip(*weights, strict=True)]
    # If its best seed takes another, a candidate must not be merged into a poor one.
    fair = [
        [w if w >= MIN_RATIO_TO_BEST * best[column] else 0 for column, w in enumerate(line)]
        for line in weights
    ]
    pairs = max_weight_matching(fair)
    for row, column in pairs:
        seeds[row].merge(candidates[column])
    return {candidates[column] for _, column in pairs}


def _compute_box_agreement(one: _Cluster, other: _Cluster) -> int:
    """Return how long lip reading boxes match those of the tracks, in milliseconds, weighted by their overlap."""
    tracks, lips = (
        (one.tracks, other.lip_boxes) if one.tracks and other.lips else (other.tracks, one.lip_boxes)
    )
    total = 0
    for track in tracks.values():
        first = bisect_left(lips, track.boxes[0].time_s - MAX_BOX_OFFSET_S, key=_get_time_s)
        last = bisect_right(lips, track.boxes[-1].time_s + MAX_BOX_OFFSET_S, key=_get_time_s)
        for box in lips[first:last]:
            near = find_box(track.boxes, box.time_s, MAX_BOX_OFFSET_S)
            overlap = compute_iou(near, box) if near is not None else 0.0
            total += round(BOX_WEIGHT_MS * overlap) if overlap >= MIN_BOX_IOU else 0
    return total


def _get_time_s(box: FaceBox) -> float:
    return box.time_s


def _compute_shared_speech_ms(voice: _Cluster, face: _Cluster) -> int:
    heard = [span for spans in voice.voices.values() for span in spans]
    shared = compute_overlap_ms(merge_spans(heard), face.speech_spans)
    enough = shared >= MIN_SHARED_MS and shared >= MIN_SHARED_RATIO * compute_total_ms(face.speech_spans)
    return shared if enough else 0


def _find_exclusive_visibility(tracks: Sequence[FaceTrack]) -> dict[str, list[Span]]:
    """Return, for each track, when no other face is in view."""
    exclusive = find_exclusive_spans([_get_visible_span(track) for track in tracks])
    return {track.name: spans for track, spans in zip(tracks, exclusive, strict=True)}


def _compute_exclusive_speech_ms(voice: _Cluster, face: _Cluster, exclusive: dict[str, list[Span]]) -> int:
    spans = merge_spans([span for name in face.tracks for span in exclusive[name]])
    shared = compute_overlap_ms(voice.speech_spans, spans)
    enough = shared >= MIN_EXCLUSIVE_MS and shared >= MIN_EXCLUSIVE_RATIO * compute_total_ms(
        voice.speech_spans
    )
    return shared if enough else 0


def _get_visible_span(track: FaceTrack) -> Span:
    return track.boxes[0].time_s, track.boxes[-1].time_s


class _SpeakerIndex:
    """Index of people by time, so that few are compared with each word."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self._persons = persons
        self._buckets: dict[int, list[int]] = {}
        for number, person in enumerate(persons):
            for at in sorted({at for span in person.speech_spans for at in _list_buckets(span)}):
                self._buckets.setdefault(at, []).append(number)

    def find_speaker(self, hypothesis: WordHypothesis) -> Person | None:
        """Return who speaks for most of a word, else the nearest speaker in time; ties go to the earlier person."""
        word = (hypothesis.start_s, hypothesis.end_s)
        near = sorted({number for at in _list_buckets(word) for number in self._buckets.get(at, ())})
        ranked = []
        for number in near:
            spans = find_overlapping(self._persons[number].speech_spans, word)
            ranked.append((-compute_overlap_ms(spans, [word]), compute_distance_s(spans, word), number))
        if not ranked or min(ranked)[1] > MAX_ATTRIBUTION_GAP_S:
            return None
        return self._persons[min(ranked)[2]]


def _list_buckets(span: Span) -> range:
    """Return the indices of the time buckets that a span touches, including the attribution gap."""
    first, last = span[0] - MAX_ATTRIBUTION_GAP_S, span[1] + MAX_ATTRIBUTION_GAP_S
    return range(int(first // TIME_BUCKET_S), int(last // TIME_BUCKET_S) + 1)


def _make_voice_key(label: str) -> str:
    # A voice and a face may have the same label.
    return f"voice:{label}"
