"""Resume tokens: a resumed stream is segmented like an uninterrupted one."""

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
    token = ResumeToken(STATE, sequence=17, samples=123_456)
    assert ResumeToken.decode(token.encode()) == token
    assert ResumeToken.decode(b"") == ResumeToken()


def test_a_token_with_many_speakers_is_small() -> None:
    many = dataclasses.replace(STATE, speakers=tuple(range(1000)), recent_speech=((300_000, 300_100),) * 20)
    assert len(ResumeToken(many, 10**6, 10**9).encode()) < MAX_TOKEN_BYTES / 8


def test_shifting_a_checkpoint_is_reversible() -> None:
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
def test_an_invalid_token_is_rejected(token: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the resume token"):
        ResumeToken.decode(token)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_rejected_as_a_token(token: bytes) -> None:
    if token:
        with pytest.raises(InvalidRequestError):
            ResumeToken.decode(token)


# ------------------------------------------------------------------------------------------------ resumed segmentation


def find_spans(
    channel: ActivityChannel, curve: np.ndarray, end: int, *, ended: bool = False
) -> list[EndedSpan]:
    return channel.process(end, lambda span: curve[span.start : span.end], ended=ended)


# Runs of silence, weak speech and speech, with lengths around the endpointing limits.
ACTIVITY_RUNS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.9]), st.integers(1, 40)), min_size=1, max_size=25
)


@settings(max_examples=400, deadline=None)
@given(runs=ACTIVITY_RUNS, position=st.floats(0, 1))
def test_segmentation_is_unchanged_after_resuming_at_any_frame(
    runs: list[tuple[float, int]], position: float
) -> None:
    curve = np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])
    resume_frame = int(position * len(curve))
    uninterrupted = ActivityChannel(OPTIONS)
    before = find_spans(uninterrupted, curve, resume_frame)
    state = uninterrupted.checkpoint
    after = [cut.span for cut in find_spans(uninterrupted, curve, len(curve), ended=True)]
    channel = ActivityChannel(OPTIONS, resume_from=state)
    resumed = [cut.span for cut in find_spans(channel, curve, len(curve), ended=True)]
    assert resumed == after
    assert all(cut.span.end <= state.committed_end for cut in before)


@settings(max_examples=200, deadline=None)
@given(runs=ACTIVITY_RUNS)
def test_an_utterance_is_segmented_again_when_resumed_at_its_start(runs: list[tuple[float, int]]) -> None:
    curve = np.concatenate([np.full(frames, value, np.float32) for value, frames in runs])
    uninterrupted = ActivityChannel(OPTIONS)
    ended_spans = find_spans(uninterrupted, curve, len(curve), ended=True)
    for number, cut in enumerate(ended_spans):
        channel = ActivityChannel(OPTIONS, resume_from=uninterrupted.create_checkpoint_at(cut))
        found = find_spans(channel, curve, len(curve), ended=True)
        assert [other.span for other in found] == [other.span for other in ended_spans[number:]]


def test_continuous_speech_resumes_at_its_last_split() -> None:
    curve = np.full(300, 0.9, np.float32)
    curve[::7] = 0.4
    uninterrupted = ActivityChannel(OPTIONS)
    find_spans(uninterrupted, curve, 200)
    state = uninterrupted.checkpoint
    assert state.continues_previous
    after = find_spans(uninterrupted, curve, 300, ended=True)
    resumed = find_spans(ActivityChannel(OPTIONS, resume_from=state), curve, 300, ended=True)
    assert [cut.span for cut in resumed] == [cut.span for cut in after]


def test_segment_ids_contain_the_start_frame() -> None:
    assert ActivityChannel(OPTIONS).create_segment_id(25) == "segment-25"
    assert FrameSpan(0, 1).frames == 1


# --------------------------------------------------------------------------------------------- replay margin


def test_activity_detectors_depend_only_on_the_replay_margin() -> None:
    rng = np.random.default_rng(5)
    frames, start = 800, 300
    loudness = np.repeat(rng.choice([30.0, 400.0, 4000.0], frames // 20), 20 * 640)
    audio = (rng.normal(size=frames * 640) * loudness).clip(-32768, 32767).astype(np.int16)
    crops = rng.integers(0, 256, (frames, 96, 96), np.uint8)

    def fill_buffer(first: int) -> StreamBuffer:
        buffer = StreamBuffer()
        buffer.add_audio(audio[first * 640 :])
        level_estimator, lip_detector = SpeechLevelEstimator(), CropVoiceActivityDetector()
        buffer.add_audio_vad(levels_to_probability(level_estimator.push(audio[first * 640 :])))
        track = buffer.begin_track(1, 0)
        for frame, crop in enumerate(crops[first:]):
            track.add_crop(frame, crop)
            # Alternate between moving lips (varying crops) and resting lips (one constant crop).
            lip_crop = crop if (first + frame) % 200 < 60 else crops[0]
            track.speaking.extend(lip_detector.push(frame, lip_crop))
        buffer.video_end = frames - first
        return buffer

    def detect_activity(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        buffer = fill_buffer(first)
        gate, span = AudioVadGate(buffer), FrameSpan(0, frames - first - 20)
        gate.get_available_end(media_ended=True)
        track = buffer.tracks[1]
        return (
            buffer.get_audio_vad(span),
            track.get_speaking(span),
            gate.get_activity(span),
        )

    for complete, resumed in zip(detect_activity(0), detect_activity(start), strict=True):
        assert np.array_equal(complete[start + REPLAY_MARGIN_FRAMES :], resumed[REPLAY_MARGIN_FRAMES:])
        assert len(resumed) > REPLAY_MARGIN_FRAMES + 200
