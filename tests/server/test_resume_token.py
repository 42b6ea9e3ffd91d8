"""A resumed stream is segmented as if it had never been interrupted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.errors import InvalidRequestError
from gorggle_server.events import ChannelCheckpoint, StreamCheckpoint
from gorggle_server.media.vad import SpeechLevelEstimator, levels_to_probability
from gorggle_server.recognition_options import EndpointingConfig
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan
from gorggle_server.streaming.endpointing import EndpointingOptions, FrameSpan
from gorggle_server.streaming.noise_gate import AudioVadGate
from gorggle_server.streaming.resume_token import MAX_TOKEN_BYTES, REPLAY_MARGIN_FRAMES, ResumeToken
from gorggle_server.streaming.stream_buffer import StreamBuffer
from gorggle_server.vision.lip_activity import CropVoiceActivityDetector

OPTIONS = EndpointingOptions.from_config(EndpointingConfig(max_utterance_s=2.4))

STATE = StreamCheckpoint(
    final_end=400,
    needed_start=380,
    channels=(ChannelCheckpoint(None, 400), ChannelCheckpoint(3, 380, continues_previous=True)),
    recent_speech=((100, 180), (300, 370)),
    speakers=(3, 1),
    last_speech_end=390,
    segment_count=4,
    has_utterances=True,
)


def test_a_token_round_trips() -> None:
    point = ResumeToken(STATE, sequence=17, samples=123_456)
    assert ResumeToken.decode(point.encode()) == point
    assert ResumeToken.decode(b"") == ResumeToken()


def test_a_token_is_small() -> None:
    many = dataclasses.replace(STATE, speakers=tuple(range(1000)), recent_speech=((300_000, 300_100),) * 20)
    assert len(ResumeToken(many, 10**6, 10**9).encode()) < MAX_TOKEN_BYTES / 8


def test_a_stream_can_be_moved_to_another_clock_and_back() -> None:
    assert STATE.shift(200).channels[0].committed_end == 200
    assert STATE.shift(200).shift(-200) == STATE


@pytest.mark.parametrize(
    "token",
    [
        b"x",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        ResumeToken(STATE).encode().replace(b"400", b"-40"),
        ResumeToken(STATE).encode().replace(b"400", b"4e2"),
        ResumeToken(STATE).encode().replace(b"400", b"true"),
        ResumeToken(STATE).encode().replace(b"400", b"9" * 40),
        ResumeToken(STATE).encode().replace(b"[[100,180]", b"[[100]"),
        b"[" * (MAX_TOKEN_BYTES - 1),
    ],
)
def test_an_invalid_token_is_refused(token: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the resume token"):
        ResumeToken.decode(token)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_as_token(token: bytes) -> None:
    if token:
        with pytest.raises(InvalidRequestError):
            ResumeToken.decode(token)


# ------------------------------------------------------------------------------------------------ segmentation continues


def find_spans(
    channel: ActivityChannel, curve: np.ndarray, until: int, *, ended: bool = False
) -> list[EndedSpan]:
    return channel.process(until, lambda span: curve[span.start : span.end], ended=ended)


# Silence, weak speech, speech: of lengths around the limits that matter.
RUNS = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.9]), st.integers(1, 40)), min_size=1, max_size=25)


@settings(max_examples=400, deadline=None)
@given(runs=RUNS, at=st.floats(0, 1))
def test_a_resumed_signal_is_segmented_equally_from_any_point(
    runs: list[tuple[float, int]], at: float
) -> None:
    curve = np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])
    until = int(at * len(curve))
    whole = ActivityChannel(OPTIONS)
    before = find_spans(whole, curve, until)
    state = whole.checkpoint
    after = [cut.span for cut in find_spans(whole, curve, len(curve), ended=True)]
    again = ActivityChannel(OPTIONS, resume_from=state)
    resumed = [cut.span for cut in find_spans(again, curve, len(curve), ended=True)]
    assert resumed == after
    assert all(cut.span.end <= state.committed_end for cut in before)


@settings(max_examples=200, deadline=None)
@given(runs=RUNS)
def test_an_utterance_that_has_ended_is_found_again_from_its_beginning(runs: list[tuple[float, int]]) -> None:
    curve = np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])
    whole = ActivityChannel(OPTIONS)
    cuts = find_spans(whole, curve, len(curve), ended=True)
    for number, cut in enumerate(cuts):
        again = ActivityChannel(OPTIONS, resume_from=whole.create_checkpoint_at(cut))
        found = find_spans(again, curve, len(curve), ended=True)
        assert [other.span for other in found] == [other.span for other in cuts[number:]]


def test_continuous_speech_is_resumed_from_its_last_cut() -> None:
    curve = np.full(300, 0.9, np.float32)
    curve[::7] = 0.4
    whole = ActivityChannel(OPTIONS)
    find_spans(whole, curve, 200)
    state = whole.checkpoint
    assert state.continues_previous
    after = find_spans(whole, curve, 300, ended=True)
    again = find_spans(ActivityChannel(OPTIONS, resume_from=state), curve, 300, ended=True)
    assert [cut.span for cut in again] == [cut.span for cut in after]


def test_segment_ids_contain_start_frame_and_person() -> None:
    assert ActivityChannel(OPTIONS).create_segment_id(25) == "segment-25"
    assert FrameSpan(0, 1).frames == 1


# --------------------------------------------------------------------------------------------- what judges forgets


def test_activity_detectors_have_no_memory_beyond_the_replay_margin() -> None:
    rng = np.random.default_rng(5)
    frames, start = 800, 300
    loudness = np.repeat(rng.choice([30.0, 400.0, 4000.0], frames // 20), 20 * 640)
    audio = (rng.normal(size=frames * 640) * loudness).clip(-32768, 32767).astype(np.int16)
    crops = rng.integers(0, 256, (frames, 96, 96), np.uint8)

    def scene_from(first: int) -> StreamBuffer:
        scene = StreamBuffer()
        scene.add_audio(audio[first * 640 :])
        meter, lips = SpeechLevelEstimator(), CropVoiceActivityDetector()
        scene.add_audio_vad(levels_to_probability(meter.push(audio[first * 640 :])))
        track = scene.begin_track(1, 0)
        for frame, crop in enumerate(crops[first:]):
            track.add_crop(frame, crop)
            # Lips that rest and move by turns, as far as the crops are alike.
            still = crop if (first + frame) % 200 < 60 else crops[0]
            track.speaking.extend(lips.push(frame, still))
        scene.video_end = frames - first
        return scene

    def heard(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scene = scene_from(first)
        listening, wanted = AudioVadGate(scene), FrameSpan(0, frames - first - 20)
        listening.get_available_end(media_ended=True)
        track = scene.tracks[1]
        return (
            scene.get_audio_vad(wanted),
            track.get_speaking(wanted),
            listening.get_activity(wanted),
        )

    for whole, part in zip(heard(0), heard(start), strict=True):
        assert np.array_equal(whole[start + REPLAY_MARGIN_FRAMES :], part[REPLAY_MARGIN_FRAMES:])
        assert len(part) > REPLAY_MARGIN_FRAMES + 200
