"""Resumption of streams: retried errors, server choice, backoff and timeout."""

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


def record_start(policy: ResumePolicy, session_id: str = "a" * 32) -> ResumePolicy:
    started = fake_service.started()
    started.started.session_id = session_id
    started.started.heartbeat_interval.FromMilliseconds(2500)
    policy.update(started)
    return policy


def progress(token: bytes, acknowledged: int, final_until_s: float) -> fake_service.Response:
    response = fake_service.progress(final_until_s, final_until_s)
    response.progress.resume_token, response.progress.acknowledged_sequence = token, acknowledged
    response.final_end_offset.CopyFrom(fake_service.duration(final_until_s))
    return response


def test_a_stream_that_never_started_is_not_resumed() -> None:
    assert ResumePolicy(1, 60).record_failure(LOST) is None


def test_a_stream_without_a_session_is_not_resumed() -> None:
    assert record_start(ResumePolicy(1, 60), session_id="").record_failure(LOST) is None


def test_each_server_is_tried_once_if_the_stream_has_not_started() -> None:
    policy = ResumePolicy(3, 60)
    assert [policy.record_failure(LOST) for _ in range(3)] == [0.0, 0.0, None]
    assert policy.server == 2


@pytest.mark.parametrize(
    ("status", "is_retried"),
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
def test_only_transient_errors_are_retried(status: RpcStatus, is_retried: bool) -> None:
    assert (record_start(ResumePolicy(1, 60)).record_failure(status) is not None) == is_retried


def test_backoff_grows_with_jitter_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    longest_policy, shortest_policy = record_start(ResumePolicy(1, 600)), record_start(ResumePolicy(1, 600))
    monkeypatch.setattr(resume.random, "random", lambda: 1.0)
    longest_backoffs = [longest_policy.record_failure(LOST) or 0.0 for _ in range(8)]
    monkeypatch.setattr(resume.random, "random", lambda: 0.0)
    shortest_backoffs = [shortest_policy.record_failure(LOST) or 0.0 for _ in range(8)]
    assert longest_backoffs[:4] == [INITIAL_BACKOFF_S * 2**number for number in range(4)]
    assert longest_backoffs[-1] == MAX_BACKOFF_S
    assert shortest_backoffs == [backoff_s / 2 for backoff_s in longest_backoffs]


def test_the_retry_delay_of_an_overloaded_server_is_the_minimum_backoff() -> None:
    full = RpcStatus(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "full", [("grpc-status-details-bin", retry_details(7.5))]
    )
    backoff_s = record_start(ResumePolicy(1, 60)).record_failure(full)
    assert backoff_s is not None
    assert 7.5 <= backoff_s <= 7.5 * 1.25


def test_all_servers_are_tried_before_any_backoff() -> None:
    policy = record_start(ResumePolicy(3, 60))
    backoffs = [policy.record_failure(LOST) or 0.0 for _ in range(4)]
    assert backoffs[:2] == [0.0, 0.0]
    assert all(backoff_s > 0 for backoff_s in backoffs[2:])
    assert policy.server == 1


def test_resuming_ends_after_the_timeout(clock: Clock) -> None:
    policy = record_start(ResumePolicy(1, 3.0))
    attempts = 0
    while (backoff_s := policy.record_failure(LOST)) is not None:
        clock.now_s += backoff_s
        attempts += 1
    assert 2 <= attempts < 20
    assert clock.now_s <= 3.0


def test_a_started_call_resets_the_timeout(clock: Clock) -> None:
    policy = record_start(ResumePolicy(1, 3.0))
    policy.record_failure(LOST)
    clock.now_s = 100.0
    assert policy.record_failure(LOST) is None
    record_start(policy)
    assert policy.record_failure(LOST) is not None


def test_attempts_without_progress_are_limited() -> None:
    policy = record_start(ResumePolicy(1, 600))
    policy.update(progress(b"t", 0, 1.0))
    backoffs = []
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS + 1):
        backoffs.append(policy.record_failure(LOST))
        policy.build_first_request(fake_service.Request(config=config_pb2.StreamingConfig()))
        record_start(policy)
        policy.update(progress(b"t", 0, 1.0))
    assert None not in backoffs[:-1]
    assert backoffs[-1] is None


def test_the_first_request_of_a_resumed_call_contains_the_resume_state() -> None:
    policy = record_start(ResumePolicy(1, 60))
    policy.update(progress(b"token-1", 3, 1.0))
    policy.update(progress(b"token-2", 7, 2.0))
    interim = fake_service.segment("bin blue at", is_final=False, segment_id="segment-50")
    interim.segment.stable_word_count, interim.segment.revision = 2, 4
    assert policy.is_new(decode_segment(interim.segment))
    first_request = policy.build_first_request(
        fake_service.Request(config=config_pb2.StreamingConfig(interim_results=True))
    )
    assert first_request.config.interim_results
    assert policy.acknowledged == 7
    assert first_request.config.resume == config_pb2.ResumeConfig(
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
    assert policy.metadata() == (("gorggle-session-id", "a" * 32),)


def test_the_first_call_has_no_session() -> None:
    policy = ResumePolicy(1, 60)
    first_request = fake_service.Request(config=config_pb2.StreamingConfig())
    assert policy.build_first_request(first_request) == first_request
    assert policy.metadata() == ()


def test_segments_are_not_new_after_their_final_result() -> None:
    policy = record_start(ResumePolicy(1, 60))
    final = decode_segment(fake_service.segment("bin blue", segment_id="segment-1").segment)
    interim = decode_segment(fake_service.segment("bin", segment_id="segment-1", is_final=False).segment)
    assert policy.is_new(interim)
    assert policy.is_new(final)
    assert not policy.is_new(final)
    assert not policy.is_new(interim)


def test_the_silence_timeout_follows_the_servers_heartbeat_interval() -> None:
    policy = ResumePolicy(1, 60)
    assert policy.silence_timeout_s() is None
    assert record_start(policy).silence_timeout_s() == 7.5


def test_a_draining_server_is_replaced_if_another_is_configured() -> None:
    drain = fake_service.Response(
        server_draining=lip_reading_pb2.ServerDraining(
            deadline=Duration(seconds=10), resume_token=b"t", acknowledged_sequence=5
        )
    )
    multi_server, single_server = record_start(ResumePolicy(2, 60)), record_start(ResumePolicy(1, 60))
    for policy in (multi_server, single_server):
        policy.update(drain)
        assert policy.acknowledged == 5
    assert multi_server.should_switch_server
    assert not single_server.should_switch_server
