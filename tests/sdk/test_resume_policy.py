"""When and where a stream is resumed, after which backoff, and when resuming stops."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gorggle._protobuf.decode import decode_segment
from gorggle._transport import resume
from gorggle._transport.resume import (
    INITIAL_BACKOFF_S,
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    MAX_BACKOFF_S,
    ResumePolicy,
)
from gorggle._transport.status_mapping import RpcStatus
from gorggle.v1 import config_pb2, lip_reading_pb2
from tests.sdk import fake_service
from tests.sdk.test_call_failures import retry_details

LOST = RpcStatus(grpc.StatusCode.UNAVAILABLE, "connection reset", None)


class Clock:
    now_s = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test advances."""
    clock = Clock()
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock.now_s)
    return clock


def began(recovery: ResumePolicy, session_id: str = "a" * 32) -> ResumePolicy:
    started = fake_service.started()
    started.started.session_id = session_id
    started.started.heartbeat_interval.FromMilliseconds(2500)
    recovery.update(started)
    return recovery


def progress(token: bytes, acknowledged: int, final_until_s: float) -> fake_service.Response:
    answer = fake_service.progress(final_until_s, final_until_s)
    answer.progress.resume_token, answer.progress.acknowledged_sequence = token, acknowledged
    answer.final_end_offset.CopyFrom(fake_service.duration(final_until_s))
    return answer


def test_a_stream_that_never_started_is_not_resumed() -> None:
    assert ResumePolicy(1, 60).record_failure(LOST) is None


def test_a_stream_without_a_session_is_not_resumed() -> None:
    assert began(ResumePolicy(1, 60), session_id="").record_failure(LOST) is None


def test_each_server_is_tried_once_before_a_stream_starts() -> None:
    recovery = ResumePolicy(3, 60)
    assert [recovery.record_failure(LOST) for _ in range(3)] == [0.0, 0.0, None]
    assert recovery.server == 2


@pytest.mark.parametrize(
    ("status", "is_taken_up"),
    [
        (LOST, True),
        (
            RpcStatus(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "full", [("grpc-status-details-bin", retry_details(2))]
            ),
            True,
        ),
        (RpcStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max", None), False),
        (RpcStatus(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", None), True),
        (RpcStatus(grpc.StatusCode.INTERNAL, "internal error; the server's log has more", None), False),
        (RpcStatus(grpc.StatusCode.INVALID_ARGUMENT, "no video", None), False),
        (RpcStatus(grpc.StatusCode.ABORTED, "another call carries this session on", None), False),
        (RpcStatus(grpc.StatusCode.DATA_LOSS, "a gap", None), False),
        (RpcStatus(grpc.StatusCode.DEADLINE_EXCEEDED, "late", None), False),
    ],
)
def test_only_transient_errors_are_retried(status: RpcStatus, is_taken_up: bool) -> None:
    assert (began(ResumePolicy(1, 60)).record_failure(status) is not None) == is_taken_up


def test_backoff_grows_with_jitter_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    most, least = began(ResumePolicy(1, 600)), began(ResumePolicy(1, 600))
    monkeypatch.setattr(resume.random, "random", lambda: 1.0)
    longest = [most.record_failure(LOST) or 0.0 for _ in range(8)]
    monkeypatch.setattr(resume.random, "random", lambda: 0.0)
    shortest = [least.record_failure(LOST) or 0.0 for _ in range(8)]
    assert longest[:4] == [INITIAL_BACKOFF_S * 2**number for number in range(4)]
    assert longest[-1] == MAX_BACKOFF_S
    assert shortest == [pause_s / 2 for pause_s in longest]


def test_an_overloaded_server_sets_the_backoff() -> None:
    full = RpcStatus(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "full", [("grpc-status-details-bin", retry_details(7.5))]
    )
    pause_s = began(ResumePolicy(1, 60)).record_failure(full)
    assert pause_s is not None
    assert 7.5 <= pause_s <= 7.5 * 1.25


def test_all_servers_are_tried_before_any_backoff() -> None:
    recovery = began(ResumePolicy(3, 60))
    pauses = [recovery.record_failure(LOST) or 0.0 for _ in range(4)]
    assert pauses[:2] == [0.0, 0.0]
    assert all(pause_s > 0 for pause_s in pauses[2:])
    assert recovery.server == 1


def test_resuming_ends_after_the_timeout(clock: Clock) -> None:
    recovery = began(ResumePolicy(1, 3.0))
    attempts = 0
    while (pause_s := recovery.record_failure(LOST)) is not None:
        clock.now_s += pause_s
        attempts += 1
    assert 2 <= attempts < 20
    assert clock.now_s <= 3.0


def test_a_started_call_resets_the_timeout(clock: Clock) -> None:
    recovery = began(ResumePolicy(1, 3.0))
    recovery.record_failure(LOST)
    clock.now_s = 100.0
    assert recovery.record_failure(LOST) is None
    began(recovery)
    assert recovery.record_failure(LOST) is not None


def test_a_stream_that_breaks_every_server_is_not_resumed_indefinitely() -> None:
    recovery = began(ResumePolicy(1, 600))
    recovery.update(progress(b"t", 0, 1.0))
    pauses = []
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS + 1):
        pauses.append(recovery.record_failure(LOST))
        recovery.build_first_request(fake_service.Request(config=config_pb2.StreamingConfig()))
        began(recovery)
        recovery.update(progress(b"t", 0, 1.0))
    assert None not in pauses[:-1]
    assert pauses[-1] is None


def test_the_next_call_sends_the_resume_state() -> None:
    recovery = began(ResumePolicy(1, 60))
    recovery.update(progress(b"token-1", 3, 1.0))
    recovery.update(progress(b"token-2", 7, 2.0))
    interim = fake_service.segment("bin blue at", is_final=False, segment_id="segment-50")
    interim.segment.stable_word_count, interim.segment.revision = 2, 4
    assert recovery.is_new(decode_segment(interim.segment))
    opening = recovery.build_first_request(
        fake_service.Request(config=config_pb2.StreamingConfig(interim_results=True))
    )
    assert opening.config.interim_results
    assert recovery.acknowledged == 7
    assert opening.config.resume == config_pb2.ResumeConfig(
        session_id="a" * 32,
        resume_token=b"token-2",
        open_segments=[
            config_pb2.OpenSegment(
                segment_id="segment-50",
                revision=4,
                stable_text="bin blue",
                stable_end_offset=Duration(seconds=1, nanos=573_333_000),
            )
        ],
    )
    assert recovery.metadata() == (("gorggle-session-id", "a" * 32),)


def test_a_first_call_has_no_session() -> None:
    recovery = ResumePolicy(1, 60)
    opening = fake_service.Request(config=config_pb2.StreamingConfig())
    assert recovery.build_first_request(opening) == opening
    assert recovery.metadata() == ()


def test_final_segments_are_not_repeated() -> None:
    recovery = began(ResumePolicy(1, 60))
    final = decode_segment(fake_service.segment("bin blue", segment_id="segment-1").segment)
    interim = decode_segment(fake_service.segment("bin", segment_id="segment-1", is_final=False).segment)
    assert recovery.is_new(interim)
    assert recovery.is_new(final)
    assert not recovery.is_new(final)
    assert not recovery.is_new(interim)


def test_the_silence_timeout_follows_the_servers_heartbeat_interval() -> None:
    recovery = ResumePolicy(1, 60)
    assert recovery.silence_timeout_s() is None
    assert began(recovery).silence_timeout_s() == 7.5


def test_a_draining_server_is_left_if_there_is_another() -> None:
    drain = fake_service.Response(
        server_draining=lip_reading_pb2.ServerDraining(
            deadline=Duration(seconds=10), resume_token=b"t", acknowledged_sequence=5
        )
    )
    several, one = began(ResumePolicy(2, 60)), began(ResumePolicy(1, 60))
    for recovery in (several, one):
        recovery.update(drain)
        assert recovery.acknowledged == 5
    assert several.should_switch_server
    assert not one.should_switch_server
