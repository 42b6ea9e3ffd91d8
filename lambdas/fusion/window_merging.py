"""Windows of a long video put together: what two of them read in their overlap becomes one, nothing gets lost.

Words of the overlap are aligned in time. Three kinds of pairs are one word:

- the same text at the same time, give or take what word times jitter;
- a word that a window's border cut, and the word that the other window holds where the cut piece would go on;
- two texts at one time, well inside both windows: the readings differ.

The one that lies further from its own window's border is kept, since models read the middle of a window best. A
different text of the other is kept as an alternative. Words without a partner stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from gorggle_lambdas.fusion.alignment import PairCost, align, overlap_s
from gorggle_lambdas.fusion.assignment import max_weight_matching
from gorggle_lambdas.fusion.face_tracks import (
    BOX_WEIGHT_MS,
    MAX_BOX_OFFSET_S,
    MIN_BOX_IOU,
    compute_iou,
    find_box,
)
from gorggle_lambdas.fusion.text_normalization import normalize
from gorggle_lambdas.fusion.types import UNKNOWN_SPEAKER, FaceBox, Window
from gorggle_lambdas.fusion.word_hypotheses import WordHypothesis, extract_hypotheses, sort_hypotheses

# Two readings of one word differ by so much at either end: ±80 ms each (99.9 % of the embedded model's words are
# within 100 ms), and a little more.
MAX_TIMING_ERROR_S = 0.2
# A word that ends so near to its window's border may have been cut there.
EDGE_MARGIN_S = 0.15
# Two different words at one time overlap for this share of the shorter.
MIN_SUBSTITUTION_OVERLAP = 0.5
# Starts of two readings of one word lie at most so far apart; only a cut word comes near it.
MAX_OFFSET_S = 3.0

Boxes = tuple[FaceBox, ...]

_GAP_COST = 1.0
_MAX_SAME_COST = 0.9
_DIFFERENT_COST = 1.2


@dataclass(frozen=True, slots=True)
class LocalFace:
    """A face as one window names it."""

    window: int
    label: str

    @property
    def key(self) -> str:
        """Its name in the whole media: "window-2/face-1"."""
        return f"window-{self.window + 1}/{self.label}"


@dataclass(frozen=True, slots=True)
class WindowedFace:
    """One face through one or several windows; ``key`` is that of its first."""

    key: str
    local_faces: tuple[LocalFace, ...]
    boxes: tuple[FaceBox, ...]


@dataclass(frozen=True, slots=True)
class MergedTranscript:
    """All windows as one reading; ``faces`` is empty for sound."""

    hypotheses: tuple[WordHypothesis, ...]
    faces: tuple[WindowedFace, ...] = ()


def merge_audio_windows(windows: Sequence[Window]) -> MergedTranscript:
    """Put windows of sound together; a speaker's label means the same in all of them."""
    claims: list[WordHypothesis] = []
    for window in _sort_windows(windows):
        new = extract_hypotheses(window)
        claims = _merge_window(claims, new, {claim.speaker: claim.speaker for claim in new})
    return MergedTranscript(tuple(claims))


def merge_lip_windows(windows: Sequence[Window]) -> MergedTranscript:
    """Put windows of lip reading together, and faces where two windows read the same words from their lips."""
    claims: list[WordHypothesis] = []
    members: dict[str, list[LocalFace]] = {}
    boxes: dict[str, Boxes] = {}
    for index, window in enumerate(_sort_windows(windows)):
        new = extract_hypotheses(window, LocalFace(index, "").key)
        shown = _collect_boxes(window, index)
        known = {
            key: some
            for key, some in boxes.items()
            if some and some[-1].time_s >= window.start_s - MAX_BOX_OFFSET_S
        }
        links = _link_speakers(_filter_recent(claims, window.start_s), new, known, shown)
        claims = _merge_window(claims, new, links)
        for label in sorted({segment.speaker for segment in window.segments} - {UNKNOWN_SPEAKER}):
            local = LocalFace(index, label)
            key = links.get(local.key) or local.key
            members.setdefault(key, []).append(local)
            boxes[key] = tuple(sorted({*boxes.get(key, ()), *shown[local.key]}, key=_get_box_order))
    faces = [
        WindowedFace(
            key,
            tuple(sorted(local, key=lambda face: (face.window, face.label))),
            boxes[key],
        )
        for key, local in members.items()
    ]
    return MergedTranscript(tuple(claims), tuple(faces))


def _collect_boxes(window: Window, index: int) -> dict[str, Boxes]:
    """Where each of a window's faces was, by its key."""
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
    """Put two readings of the same sound together as if they were two windows, whoever they say speaks."""
    near, new = list(first), list(second)
    pairs = align(near, new, _pair_cost, _GAP_COST, MAX_OFFSET_S)
    return _combine_pairs(near, new, pairs)


def _sort_windows(windows: Sequence[Window]) -> list[Window]:
    return sorted(windows, key=lambda window: (window.start_s, window.end_s))


def _filter_recent(claims: Sequence[WordHypothesis], start_s: float) -> list[WordHypothesis]:
    return [claim for claim in claims if claim.end_s >= start_s - MAX_TIMING_ERROR_S]


def _link_speakers(
    before: Sequence[WordHypothesis],
    new: Sequence[WordHypothesis],
    known: Mapping[str, Boxes],
    shown: Mapping[str, Boxes],
) -> dict[str, str]:
    """For each new speaker the one before who is the same: by the words of the overlap, and by where the faces are."""
    old_speakers = list(dict.fromkeys([*(claim.speaker for claim in before), *known]))
    new_speakers = list(dict.fromkeys([*(claim.speaker for claim in new), *shown]))
    weights = [
        [
            _compute_evidence_ms(
                _filter_by_speaker(before, old),
                _filter_by_speaker(new, speaker),
                known.get(old, ()),
                shown.get(speaker, ()),
            )
            for speaker in new_speakers
        ]
        for old in old_speakers
    ]
    return {new_speakers[column]: old_speakers[row] for row, column in max_weight_matching(weights)}


def _compute_evidence_ms(
    left: Sequence[WordHypothesis], right: Sequence[WordHypothesis], known: Boxes, shown: Boxes
) -> int:
    """For how long two speakers say the same and are in the same place; 0 if they are seen in different places."""
    near = [
        (compute_iou(other, box))
        for box in shown
        if (other := find_box(known, box.time_s, MAX_BOX_OFFSET_S)) is not None
    ]
    if near and sum(near) / len(near) < MIN_BOX_IOU:
        return 0
    shared = sum(round(BOX_WEIGHT_MS * alike) for alike in near)
    for i, j in align(left, right, _pair_cost, _GAP_COST, MAX_OFFSET_S):
        lasts_ms = 1 + round(1000 * left[i].duration_s)
        # Two readings of one place say less about who it is than the same word does.
        shared += lasts_ms if normalize(left[i].text) == normalize(right[j].text) else 1 + lasts_ms // 4
    return shared


def _filter_by_speaker(claims: Sequence[WordHypothesis], speaker: str) -> list[WordHypothesis]:
    return [claim for claim in claims if claim.speaker == speaker]


def _merge_window(
    before: list[WordHypothesis], new: list[WordHypothesis], links: dict[str, str]
) -> list[WordHypothesis]:
    """Merge new claims into those before: first linked speakers with each other, then whoever is left.

    The second round catches words that the two windows gave to different speakers, or whose order jitter changed.
    """
    start_s = min((claim.window[0] for claim in new), default=0.0)
    near = _filter_recent(before, start_s)
    pairs = _match_words(near, new, links)
    # Words of nobody stay nobody's unless they are matched one by one.
    renamed = [replace(c, speaker=links.get(c.speaker) or c.speaker) if c.speaker else c for c in new]
    far = [claim for claim in before if claim.end_s < start_s - MAX_TIMING_ERROR_S]
    return sort_hypotheses(far + _combine_pairs(near, renamed, pairs))


def _combine_pairs(
    before: list[WordHypothesis], new: list[WordHypothesis], pairs: Sequence[tuple[int, int]]
) -> list[WordHypothesis]:
    """The pairs as one claim each, and all claims without a partner."""
    paired_before, paired_new = {i for i, _ in pairs}, {j for _, j in pairs}
    united = [_select_hypothesis(before[i], new[j]) for i, j in pairs]
    united += [claim for i, claim in enumerate(before) if i not in paired_before]
    return sort_hypotheses(united + [claim for j, claim in enumerate(new) if j not in paired_new])


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

    # Twice: jitter may have changed the order of short words, and an alignment keeps to the order.
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
    """0 to ``_MAX_SAME_COST`` for the same text at the same time; an end that a border cut is not looked at."""
    if normalize(one.text) != normalize(other.text):
        return None
    starts = 0.0 if _is_cut_at_start(one) or _is_cut_at_start(other) else abs(one.start_s - other.start_s)
    ends = 0.0 if _is_cut_at_end(one) or _is_cut_at_end(other) else abs(one.end_s - other.end_s)
    if max(starts, ends) > MAX_TIMING_ERROR_S or overlap_s(one, other) < -MAX_TIMING_ERROR_S:
        return None
    apart_s = abs(one.start_s - other.start_s) + abs(one.end_s - other.end_s)
    return min(apart_s / (4 * MAX_TIMING_ERROR_S), 1) * _MAX_SAME_COST


def _is_cut_at_start(claim: WordHypothesis) -> bool:
    return claim.start_s <= claim.window[0] + EDGE_MARGIN_S


def _is_cut_at_end(claim: WordHypothesis) -> bool:
    return claim.end_s >= claim.window[1] - EDGE_MARGIN_S


def _is_fragment_of(piece: WordHypothesis, whole: WordHypothesis) -> bool:
    """Whether ``piece``, cut by its window's border, may be what is left of ``whole``, which crosses that border."""
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


def _is_cut(claim: WordHypothesis) -> bool:
    return _is_cut_at_start(claim) or _is_cut_at_end(claim)


def _is_substitution(one: WordHypothesis, other: WordHypothesis) -> bool:
    """Whether two different words claim one place, and each window should have seen the other's word whole."""
    if not (_is_well_inside(one, other.window) and _is_well_inside(other, one.window)):
        return False
    return overlap_s(one, other) >= MIN_SUBSTITUTION_OVERLAP * min(one.duration_s, other.duration_s) > 0


def _is_well_inside(claim: WordHypothesis, window: tuple[float, float]) -> bool:
    return window[0] + EDGE_MARGIN_S <= claim.start_s and claim.end_s <= window[1] - EDGE_MARGIN_S


def _select_hypothesis(one: WordHypothesis, other: WordHypothesis) -> WordHypothesis:
    """The claim to keep of two that are one word."""
    prefers_other = _compute_reliability(other) > _compute_reliability(one)
    if normalize(one.text) != normalize(other.text) and _is_fragment_of(one, other) != _is_fragment_of(
        other, one
    ):
        prefers_other = _is_fragment_of(one, other)
    keep, leave = (other, one) if prefers_other else (one, other)
    speaker = one.speaker if one.speaker != UNKNOWN_SPEAKER else other.speaker
    rivals = [*keep.alternatives, *leave.alternatives, replace(leave, alternatives=())]
    return replace(keep, speaker=speaker, alternatives=_select_alternatives(rivals, normalize(keep.text)))


def _compute_reliability(claim: WordHypothesis) -> tuple[bool, float]:
    margin_s = min(claim.start_s - claim.window[0], claim.window[1] - claim.end_s)
    return not _is_cut(claim), margin_s


def _select_alternatives(rivals: Sequence[WordHypothesis], winner: str) -> tuple[WordHypothesis, ...]:
    """One claim for each text that differs from the winner's, the surest."""
    ordered = sorted(rivals, key=lambda claim: (normalize(claim.text), -claim.confidence, claim.start_s))
    return tuple(
        next(group) for text, group in groupby(ordered, key=lambda c: normalize(c.text)) if text != winner
    )
