"""Endpointing: utterances are segmented from voice activity probabilities."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.recognition_options import EndpointingConfig
from gorggle_server.streaming.endpointing import Endpointer, EndpointingOptions, FrameSpan

OPTIONS = EndpointingOptions.from_config(EndpointingConfig())
curves = st.lists(st.floats(0, 1), max_size=700)


def find_spans(
    curve: list[float], options: EndpointingOptions = OPTIONS, chunk_size: int = 1
) -> list[FrameSpan]:
    endpointer = Endpointer(options)
    found = []
    for start in range(0, len(curve), chunk_size):
        found += endpointer.push(curve[start : start + chunk_size])
    return found + endpointer.flush()


def test_one_second_without_lip_movement_ends_an_utterance() -> None:
    """Smoothing over half a second leaves 13 quiet frames out of 25, and fewer if landmarks jitter."""
    curve = [0.9] * 60 + [0.5, 0.7, 0.4] + [0.01] * 8 + [0.9] * 60
    assert len(find_spans(curve)) == 1
    first, second = find_spans(curve, OPTIONS.for_lips())
    assert first.end <= second.start


def test_speech_between_pauses_is_one_span_with_margins() -> None:
    assert find_spans([0.0] * 30 + [1.0] * 40 + [0.0] * 30) == [FrameSpan(24, 76)]


def test_a_pause_ends_an_utterance_and_a_short_silence_does_not() -> None:
    talk, rest, pause = [1.0] * 20, [0.0] * 8, [0.0] * 20
    assert len(find_spans(talk + rest + talk)) == 1
    assert len(find_spans(talk + pause + talk)) == 2


def test_a_click_is_not_speech() -> None:
    assert find_spans([0.0] * 30 + [1.0] * 3 + [0.0] * 30) == []


def test_flush_returns_an_open_utterance() -> None:
    assert find_spans([0.0] * 10 + [1.0] * 30) == [FrameSpan(4, 40)]


def test_long_speech_is_cut_where_it_is_quietest() -> None:
    curve = [1.0] * 480 + [0.4] + [1.0] * 300
    first, second = find_spans(curve)
    assert first == FrameSpan(0, 480)
    assert second == FrameSpan(480, 781)


def test_an_open_span_is_available_before_its_end() -> None:
    endpointer = Endpointer(OPTIONS)
    endpointer.push([0.0] * 20 + [1.0] * 4)
    assert endpointer.open_span is None
    endpointer.push([1.0])
    assert endpointer.open_span == FrameSpan(14, 25)


@given(curves, st.integers(1, 50))
def test_spans_do_not_overlap_and_contain_all_sustained_speech(curve: list[float], chunk_size: int) -> None:
    found = find_spans(curve, chunk_size=chunk_size)
    assert found == find_spans(curve, chunk_size=max(1, len(curve)))
    for span in found:
        assert 0 <= span.start < span.end <= len(curve)
        assert span.frames <= OPTIONS.max_frames
    for before, after in itertools.pairwise(found):
        assert before.end <= after.start
    covered = {frame for span in found for frame in range(span.start, span.end)}
    run = 0
    for frame, value in enumerate(curve):
        run = run + 1 if value >= OPTIONS.begin_threshold else 0
        if run >= OPTIONS.min_speech_frames:
            assert set(range(frame - run + 1, frame + 1)) <= covered


@given(curves)
def test_no_span_begins_before_the_committed_end(curve: list[float]) -> None:
    endpointer = Endpointer(OPTIONS)
    previous_end = 0
    for value in curve:
        for span in endpointer.push([value]):
            assert span.start >= previous_end
        assert endpointer.committed_end >= previous_end
        previous_end = endpointer.committed_end


def test_endpoint_silence_and_threshold_are_configurable() -> None:
    curve = [0.45] * 30 + [0.0] * 20 + [0.45] * 30 + [0.0] * 80
    assert find_spans(curve) == []
    assert len(find_spans(curve, EndpointingOptions.from_config(EndpointingConfig(threshold=0.3)))) == 2
    assert (
        len(
            find_spans(
                curve,
                EndpointingOptions.from_config(EndpointingConfig(threshold=0.3, endpoint_silence_s=1.0)),
            )
        )
        == 1
    )


def test_default_durations_convert_to_the_expected_frames() -> None:
    assert EndpointingOptions(0.5, 0.35, 5, 11, 500) == OPTIONS


@pytest.mark.parametrize(("frames", "live_frames"), [(11, 9), (25, 23), (5, 4), (3, 3)])
def test_the_live_endpoint_silence_compensates_for_smoothing(frames: int, live_frames: int) -> None:
    assert (
        replace(OPTIONS, endpoint_silence_frames=frames).for_live_audio().endpoint_silence_frames
        == live_frames
    )
