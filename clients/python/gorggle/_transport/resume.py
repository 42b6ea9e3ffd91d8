"""Resuming of streams after failures: first request, next server, backoff, and when to stop."""

from __future__ import annotations

import random
import time

import grpc

from gorggle._protobuf.encode import StreamRequest, encode_duration, encode_resume_request
from gorggle._transport import status_mapping
from gorggle._transport.channel import Metadata
from gorggle._transport.status_mapping import RpcStatus
from gorggle.results import Segment
from gorggle.v1 import config_pb2, lip_reading_pb2

# Lets a server at capacity release the slot of the call that this one replaces.
SESSION_METADATA = "gorggle-session-id"

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.25, 5.0
# Calls that started and broke without new results: the media itself may crash the server.
MAX_ATTEMPTS_WITHOUT_PROGRESS = 5
# A connection with more missing heartbeats is considered lost.
MAX_MISSED_HEARTBEATS = 3

# Details of broken connections that gRPC does not report as UNAVAILABLE.
_BROKEN_CONNECTION_PREFIXES = ("Received RST_STREAM", "Stream removed")


class ResumePolicy:
    """State of a session that may have to be resumed.

    Args:
        server_count: number of servers.
        timeout_s: time limit for resuming; 0 disables it.
        first_server: index of the first server to use.

    Attributes:
        server: index of the server to call.
        acknowledged: sequence number of the last request that need not be sent again.
        final_end_s: time up to which every segment was received.
        should_switch_server: the server is draining and another one is configured.
    """

    def __init__(self, server_count: int, timeout_s: float, first_server: int = 0) -> None:
        self.server = first_server
        self.acknowledged = 0
        self.final_end_s = 0.0
        self.heartbeat_interval_s = 0.0
        self.should_switch_server = False
        self._server_count, self._timeout_s = server_count, timeout_s
        self._session_id = ""
        self._resume_token = b""
        self._final_segment_ids: set[str] = set()
        self._open_segments: dict[str, Segment] = {}
        self._call_started = False  # the current call
        self._made_progress = False  # the current call brought new results
        self._attempts_without_progress = 0
        self._failures = 0  # since a call last started
        self._failing_since: float | None = None

    def update(self, message: lip_reading_pb2.StreamingRecognizeResponse) -> None:
        """Update the session from a response."""
        match message.WhichOneof("event"):
            case "started":
                self._session_id = message.started.session_id
                self.heartbeat_interval_s = message.started.heartbeat_interval.ToMicroseconds() / 1e6
                self._call_started = True
                self._failures, self._failing_since = 0, None
            case "progress":
                self._record_acknowledgement(message.progress)
            case "server_draining":
                self._record_acknowledgement(message.server_draining)
                self.should_switch_server = self._server_count > 1 and self._can_resume
        final_end_s = message.final_end_offset.ToMicroseconds() / 1e6
        if final_end_s > self.final_end_s:
            self.final_end_s = final_end_s
            self._record_progress()

    def is_new(self, segment: Segment) -> bool:
        """Whether a segment was not received before, from any server."""
        if segment.segment_id in self._final_segment_ids and segment.segment_id:
            return False
        if segment.is_final:
            self._open_segments.pop(segment.segment_id, None)
            if self._session_id:
                self._final_segment_ids.add(segment.segment_id)
                self._record_progress()
        elif segment.segment_id:
            self._open_segments[segment.segment_id] = segment
        return True

    def _record_acknowledgement(
        self, event: lip_reading_pb2.Progress | lip_reading_pb2.ServerDraining
    ) -> None:
        if event.resume_token:
            self._resume_token, self.acknowledged = event.resume_token, event.acknowledged_sequence

    def _record_progress(self) -> None:
        self._made_progress = True
        self._attempts_without_progress = 0

    @property
    def _can_resume(self) -> bool:
        return bool(self._session_id) and self._timeout_s > 0

    def silence_timeout_s(self) -> float | None:
        """Return how long a server may send nothing; None without a limit."""
        return MAX_MISSED_HEARTBEATS * self.heartbeat_interval_s or None

    def build_first_request(self, first_request: StreamRequest) -> StreamRequest:
        """Return the first request of the next call."""
        self.should_switch_server = self._call_started = self._made_progress = False
        if not self._session_id:
            return first_request
        segments = [
            config_pb2.OpenSegment(
                segment_id=segment.segment_id,
                revision=segment.revision,
                stable_text=segment.stable_text,
                stable_end_offset=encode_duration(_estimate_stable_end_s(segment)),
            )
            for segment in self._open_segments.values()
        ]
        return encode_resume_request(first_request, self._session_id, self._resume_token, segments)

    def metadata(self) -> Metadata:
        """Return metadata of the next call, besides the credentials."""
        return ((SESSION_METADATA, self._session_id),) if self._session_id else ()

    def next_server(self) -> None:
        """Use the next server."""
        self.server = (self.server + 1) % self._server_count

    def record_failure(self, status: RpcStatus, *, was_silent: bool = False) -> float | None:
        """Record a failed call and return the backoff before the call to the next server; None to stop.

        Args:
            status: status of the call.
            was_silent: the call was cancelled after missing heartbeats.
        """
        is_opening = not self._session_id
        if is_opening and (self._failures + 1 >= self._server_count or not _is_retryable(status)):
            return None
        if not is_opening and not (self._can_resume and (was_silent or _is_retryable(status))):
            return None
        if self._call_started and not self._made_progress:
            self._attempts_without_progress += 1
        self._call_started = False
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._failures += 1
        self.next_server()
        backoff_s = self._compute_backoff_s(status)
        if self._attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS or (
            not is_opening and now + backoff_s - self._failing_since > self._timeout_s
        ):
            return None
        return backoff_s

    def _compute_backoff_s(self, status: RpcStatus) -> float:
        if self._failures < self._server_count:
            return 0.0  # another server was not tried yet
        rounds = (self._failures - self._server_count) // self._server_count
        backoff_s = min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2.0**rounds)
        requested_s = status_mapping.parse_details(status).retry_after_s or 0.0
        return (
            max(requested_s, backoff_s) * (1 + 0.25 * random.random())
            if requested_s
            else backoff_s * (0.5 + random.random() / 2)
        )


def _is_retryable(status: RpcStatus) -> bool:
    """Whether the server or the connection failed, or the server is temporarily at capacity."""
    if status.code is grpc.StatusCode.UNAVAILABLE:
        return True
    if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return status_mapping.parse_details(status).retry_after_s is not None
    return status.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and (
        (status.details or "").startswith(_BROKEN_CONNECTION_PREFIXES)
    )


def _estimate_stable_end_s(segment: Segment) -> float:
    """Return the end of the stable words; approximate without word timestamps."""
    if segment.words and segment.stable_words:
        return segment.words[min(segment.stable_words, len(segment.words)) - 1].end_s
    share = segment.stable_words / max(1, len(segment.text.split()))
    return segment.start_s + share * (segment.end_s - segment.start_s)
