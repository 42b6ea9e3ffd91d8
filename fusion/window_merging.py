"""Merges the overlapping windows of a long video without duplicating or losing words.

Words of the overlap are aligned in time. Three kinds of pairs are treated as one word:

- the same text at the same time, within the timing error of word timestamps;
- a word cut by a window's edge, and the other window's word that continues it;
- two texts at one time, well inside both windows: the windows disagree.

The hypothesis further from its own window's edge is kept, because models are most accurate in the middle of a window.
A different text of the other becomes an alternative. Unpaired words are kept unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from gorggle_fusion.alignment import PairCost, align, overlap_s
from gorggle_fusion.assignment import max_weight_matching
from gorggle_fusion.face_tracks import (
    BOX_WEIGHT_MS,
    MAX_BOX_OFFSET_S,
    MIN_BOX_IOU,
    compute_iou,
    find_box,
)
from gorggle_fusion.text_normalization import normalize
from gorggle_fusion.types import UNKNOWN_SPEAKER, FaceBox, Window
from gorggle_fusion.word_hypotheses import WordHypothesis, extract_hypotheses, sort_hypotheses

# Difference of two timestamps of one word: ±80 ms each (99.9 % of the embedded model's words are within 100 ms), plus a
# margin.
MAX_TIMING_ERROR_S = 0.2
# A word that ends this close to its window's edge may have been cut there.
EDGE_MARGIN_S = 0.15
# Two different words at one time overlap by this fraction of the shorter.
MIN_SUBSTITUTION_OVERLAP = 0.5
# Greatest difference between the starts of one word; only a cut word comes near it.
MAX_OFFSET_S = 3.0

Boxes = tuple[FaceBox, ...]

_GAP_COST = 1.0
_MAX_SAME_COST = 0.9
_DIFFERENT_COST = 1.2


@dataclass(frozen=True, slots=True)
class LocalFace:
    """A face label within one window."""

    window: int
    label: str

    @property
    def key(self) -> str:
        """Its unique key in the whole media: "window-2/face-1"."""
        return f"window-{self.window + 1}/{self.label}"


@dataclass(frozen=True, slots=True)
class WindowedFace:
    """One face in one or several windows; ``key`` is that of its first."""

    key: str
    local_faces: tuple[LocalFace, ...]
    boxes: tuple[FaceBox, ...]


@dataclass(frozen=True, slots=True)
class MergedTranscript:
    """The merged windows; ``faces`` is empty for audio."""

    hypotheses: tuple[WordHypothesis, ...]
    faces: tuple[WindowedFace, ...] = ()


def merge_audio_windows(windows: Sequence[Window]) -> MergedTranscript:
    """Merge windows of audio, whose speaker labels are the same in all windows."""
    hypotheses: list[WordHypothesis] = []
    for window in _sort_windows(windows):
        new = extract_hypotheses(window)
        hypotheses = _merge_window(
            hypotheses, new, {hypothesis.speaker: hypothesis.speaker for hypothesis in new}
        )
    return MergedTranscript(tuple(hypotheses))


def merge_lip_windows(windows: Sequence[Window]) -> MergedTranscript:
    """Merge windows of lip reading, and faces whose words or boxes agree in the overlap."""
    hypotheses: list[WordHypothesis] = []
    members: dict[str, list[LocalFace]] = {}
    boxes: dict[str, Boxes] = {}
    for index, window in enumerate(_sort_windows(windows)):
        new = extract_hypotheses(window, LocalFace(index, "").key)
        new_boxes = _collect_boxes(window, index)
        old_boxes = {
            key: some
            for key, some in boxes.items()
            if some and some[-1].time_s >= window.start_s - MAX_BOX_OFFSET_S
        }
        links = _link_speakers(_filter_recent(hypotheses, window.start_s), new, old_boxes, new_boxes)
        hypotheses = _merge_window(hypotheses, new, links)
        for label in sorted({segment.speaker for segment in window.segments} - {UNKNOWN_SPEAKER}):
            local = LocalFace(index, label)
            key = links.get(local.key) or local.key
            members.setdefault(key, []).append(local)
            boxes[key] = tuple(sorted({*boxes.get(key, ()), *new_boxes[local.key]}, key=_get_box_order))
    faces = [
        WindowedFace(key, tuple(sorted(local, key=lambda face: (face.window, face.label))), boxes[key])
        for key, local in members.items()
    ]
    return MergedTranscript(tuple(hypotheses), tuple(faces))


def _collect_boxes(window: Window, index: int) -> dict[str, Boxes]:
    """Return the boxes of each of a window's faces, by face key."""
    found: dict[str, list[FaceBox]] = {}
    for segment in window.segments:
        if segment.speaker != UNKNOWN_SPEAKER:
            found.setdefault(LocalFace(index, segment.speaker).key, []).extend(segment.face_boxes)
    return {key: tuple(sorted(boxes, key=_get_box_order)) for key, boxes in found.items()}


def _get_box_order(box: FaceBox) -> tuple[float, float, float]:
    return box.time_s, box.left, box.top


def merge_hypotheses(
    first: Sequence[WordHypothesis], second: Sequence[WordHypothesis]
) -> list[WordHypothesis]:
    """Merge two transcripts of the same audio as if they were two windows, regardless of speakers."""
    near, new = list(first), list(second)
    pairs = align(near, new, _pair_cost, _GAP_COST, MAX_OFFSET_S)
    return _combine_pairs(near, new, pairs)


def _sort_windows(windows: Sequence[Window]) -> list[Window]:
    return sorted(windows, key=lambda window: (window.start_s, window.end_s))


def _filter_recent(hypotheses: Sequence[WordHypothesis], start_s: float) -> list[WordHypothesis]:
    return [hypothesis for hypothesis in hypotheses if hypothesis.end_s >= start_s - MAX_TIMING_ERROR_S]


def _link_speakers(
    before: Sequence[WordHypothesis],
    new: Sequence[WordHypothesis],
    old_boxes: Mapping[str, Boxes],
    new_boxes: Mapping[str, Boxes],
) -> dict[str, str]:
    """Map each new speaker to the same earlier one, by their words and face boxes in the overlap."""
    old_speakers = list(dict.fromkeys([*(hypothesis.speaker for hypothesis in before), *old_boxes]))
    new_speakers = list(dict.fromkeys([*(hypothesis.speaker for hypothesis in new), *new_boxes]))
    weights = [
        [
            _compute_evidence_ms(
                _filter_by_speaker(before, old),
                _filter_by_speaker(new, speaker),
                old_boxes.get(old, ()),
                new_boxes.get(speaker, ()),
            )
            for speaker in new_speakers
        ]
        for old in old_speakers
    ]
    return {new_speakers[column]: old_speakers[row] for row, column in max_weight_matching(weights)}


def _compute_evidence_ms(
    left: Sequence[WordHypothesis], right: Sequence[WordHypothesis], old_boxes: Boxes, new_boxes: Boxes
) -> int:
    """Return how long two speakers have the same words and position; 0 if their faces are at different positions."""
    near = [
        (compute_iou(other, box))
        for box in new_boxes
        if (other := find_box(old_boxes, box.time_s, MAX_BOX_OFFSET_S)) is not None
    ]
    if near and sum(near) / len(near) < MIN_BOX_IOU:
        return 0
    shared = sum(round(BOX_WEIGHT_MS * similarity) for similarity in near)
    for i, j in align(left, right, _pair_cost, _GAP_COST, MAX_OFFSET_S):
        duration_ms = 1 + round(1000 * left[i].duration_s)
        # A disagreement is weaker evidence for the same speaker than the same word.
        shared += duration_ms if normalize(left[i].text) == normalize(right[j].text) else 1 + duration_ms // 4
    return shared


def _filter_by_speaker(hypotheses: Sequence[WordHypothesis], speaker: str) -> list[WordHypothesis]:
    return [hypothesis for hypothesis in hypotheses if hypothesis.speaker == speaker]


def _merge_window(
    before: list[WordHypothesis], new: list[WordHypothesis], links: dict[str, str]
) -> list[WordHypothesis]:
    """Merge new hypotheses into the earlier ones: first within linked speakers, then among the rest.

    The second round finds words that the windows assigned to different speakers, or whose order differs.
    """
    start_s = min((hypothesis.window[0] for hypothesis in new), default=0.0)
    near = _filter_recent(before, start_s)
    pairs = _match_words(near, new, links)
    # Words without a speaker only get one when matched individually.
    renamed = [replace(c, speaker=links.get(c.speaker) or c.speaker) if c.speaker else c for c in new]
    far = [hypothesis for hypothesis in before if hypothesis.end_s < start_s - MAX_TIMING_ERROR_S]
    return sort_hypotheses(far + _combine_pairs(near, renamed, pairs))


def _combine_pairs(
    before: list[WordHypothesis], new: list[WordHypothesis], pairs: Sequence[tuple[int, int]]
) -> list[WordHypothesis]:
    """Return one hypothesis per pair, and all unpaired ones."""
    paired_before, paired_new = {i for i, _ in pairs}, {j for _, j in pairs}
    united = [_select_hypothesis(before[i], new[j]) for i, j in pairs]
    united += [hypothesis for i, hypothesis in enumerate(before) if i not in paired_before]
    return sort_hypotheses(united + [hypothesis for j, hypothesis in enumerate(new) if j not in paired_new])


def _match_words(
    near: list[WordHypothesis], new: list[WordHypothesis], links: dict[str, str]
) -> list[tuple[int, int]]:
    alone, alone_new = list(range(len(near))), list(range(len(new)))
    pairs: list[tuple[int, int]] = []

    def match(left: list[int], right: list[int], cost: PairCost[WordHypothesis]) -> None:
        found = align([near[i] for i in left], [new[j] for j in right], cost, _GAP_COST, MAX_OFFSET_S)
        for i, j in found:
            pairs.append((left[i], right[j]))
            alone.remove(left[i])
            alone_new.remove(right[j])

    # Twice: timing errors may have swapped short words, and an alignment preserves order.
    for speaker, old in [*links.items()] * 2:
        left = [i for i in alone if near[i].speaker == old]
        match(left, [j for j in alone_new if new[j].speaker == speaker], _pair_cost)
    match(list(alone), list(alone_new), _same_word_cost)
    return pairs


def _pair_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    same = _same_word_cost(one, other)
    if same is not None:
        return same
    if _is_fragment_of(one, other) or _is_fragment_of(other, one) or _is_substitution(one, other):
        apart_s = abs(one.start_s - other.start_s) + abs(one.end_s - other.end_s)
        return _DIFFERENT_COST + min(apart_s / MAX_OFFSET_S, 1) / 2
    return None


def _same_word_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    """Return 0 to ``_MAX_SAME_COST`` for the same text at the same time; an end cut by an edge is not compared."""
    if normalize(one.text) != normalize(other.text):
        return None
    starts = 0.0 if _is_cut_at_start(one) or _is_cut_at_start(other) else abs(one.start_s - other.start_s)
    ends = 0.0 if _is_cut_at_end(one) or _is_cut_at_end(other) else abs(one.end_s - other.end_s)
    if max(starts, ends) > MAX_TIMING_ERROR_S or overlap_s(one, other) < -MAX_TIMING_ERROR_S:
        return None
    apart_s = abs(one.start_s - other.start_s) + abs(one.end_s - other.end_s)
    return min(apart_s / (4 * MAX_TIMING_ERROR_S), 1) * _MAX_SAME_COST


def _is_cut_at_start(hypothesis: WordHypothesis) -> bool:
    return hypothesis.start_s <= hypothesis.window[0] + EDGE_MARGIN_S


def _is_cut_at_end(hypothesis: WordHypothesis) -> bool:
    return hypothesis.end_s >= hypothesis.window[1] - EDGE_MARGIN_S


def _is_fragment_of(piece: WordHypothesis, whole: WordHypothesis) -> bool:
    """Return whether ``piece``, cut by its window's edge, may be a part of ``whole``, which crosses that edge."""
    cut_end = (
        _is_cut_at_end(piece)
        and not _is_cut_at_start(whole)
        and abs(piece.start_s - whole.start_s) <= MAX_TIMING_ERROR_S
        and whole.end_s >= piece.window[1] - EDGE_MARGIN_S
        and whole.window[1] > piece.window[1]
    )
    cut_start = (
        _is_cut_at_start(piece)
        and not _is_cut_at_end(whole)
        and abs(piece.end_s - whole.end_s) <= MAX_TIMING_ERROR_S
        and whole.start_s <= piece.window[0] + EDGE_MARGIN_S
        and whole.window[0] < piece.window[0]
    )
    return cut_end or cut_start


def _is_cut(hypothesis: WordHypothesis) -> bool:
    return _is_cut_at_start(hypothesis) or _is_cut_at_end(hypothesis)


def _is_substitution(one: WordHypothesis, other: WordHypothesis) -> bool:
    """Return whether two different words overlap, and both windows contain the time of both words."""
    if not (_is_well_inside(one, other.window) and _is_well_inside(other, one.window)):
        return False
    return overlap_s(one, other) >= MIN_SUBSTITUTION_OVERLAP * min(one.duration_s, other.duration_s) > 0


def _is_well_inside(hypothesis: WordHypothesis, window: tuple[float, float]) -> bool:
    return window[0] + EDGE_MARGIN_S <= hypothesis.start_s and hypothesis.end_s <= window[1] - EDGE_MARGIN_S


def _select_hypothesis(one: WordHypothesis, other: WordHypothesis) -> WordHypothesis:
    """Return the hypothesis to keep of two that are one word."""
    prefers_other = _compute_reliability(other) > _compute_reliability(one)
    if normalize(one.text) != normalize(other.text) and _is_fragment_of(one, other) != _is_fragment_of(
        other, one
    ):
        prefers_other = _is_fragment_of(one, other)
    if one.yields_to_audio != other.yields_to_audio:
        prefers_other = one.yields_to_audio
    keep, leave = (other, one) if prefers_other else (one, other)
    speaker = one.speaker if one.speaker != UNKNOWN_SPEAKER else other.speaker
    rivals = [*keep.alternatives, *leave.alternatives, replace(leave, alternatives=())]
    return replace(keep, speaker=speaker, alternatives=_select_alternatives(rivals, normalize(keep.text)))


def _compute_reliability(hypothesis: WordHypothesis) -> tuple[bool, float]:
    margin_s = min(hypothesis.start_s - hypothesis.window[0], hypothesis.window[1] - hypothesis.end_s)
    return not _is_cut(hypothesis), margin_s


def _select_alternatives(rivals: Sequence[WordHypothesis], winner: str) -> tuple[WordHypothesis, ...]:
    """Return the most confident hypothesis of each text that differs from the winner's."""
    ordered = sorted(
        rivals,
        key=lambda hypothesis: (normalize(hypothesis.text), -hypothesis.confidence, hypothesis.start_s),
    )
    return tuple(
        next(group) for text, group in groupby(ordered, key=lambda c: normalize(c.text)) if text != winner
    )
