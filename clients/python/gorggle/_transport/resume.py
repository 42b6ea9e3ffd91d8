"""How a stream outlives its server and its connection: what to resume with, where, after which pause, and when not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import grpc

from gorggle._protobuf.encode import StreamRequest, encode_duration, encode_resume_request
from gorggle._transport import status_mapping
from gorggle._transport.status_mapping import RpcStatus
from gorggle.results import Segment
from gorggle.v1 import config_pb2, lip_reading_pb2

# Names the session for servers that are full: they free the place of the call that this one replaces.
SESSION_METADATA = "gorggle-session-id"

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.25, 5.0
# Calls that began and were cut off without anything new in them: the media itself may be what breaks them.
MAX_ATTEMPTS_WITHOUT_PROGRESS = 5
# So many heartbeats may be missing before a connection is given up.
MAX_MISSED_HEARTBEATS = 3

# How gRPC says that a connection broke under a call, where it does not say UNAVAILABLE.
_BROKEN_CONNECTION_PREFIXES = ("Received RST_STREAM", "Stream removed")


class ResumePolicy:
    """What is known of a session that may have to be resumed.

    Args:
        server_count: how many addresses there are.
        timeout_s: how long to go on trying; 0: not at all.
        first_server: the number of the address to begin with.
        clock: seconds that never go back.
        random_fraction: gives a number from 0 to 1, so that clients that were cut off together do not come back together.
    """

    def __init__(
        self,
        server_count: int,
        timeout_s: float,
        *,
        first_server: int = 0,
        clock: Callable[[], float] = time.monotonic,
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self.server = first_server
        self.acknowledged = 0
        self.final_until_s = 0.0
        self.heartbeat_interval_s = 0.0
        self.should_switch_server = False
        self._server_count, self._timeout_s, self._clock, self._random_fraction = (
            server_count,
            timeout_s,
            clock,
            random_fraction,
        )
        self._session_id = ""
        self._resume_token = b""
        self._final_segment_ids: set[str] = set()
        self._open_segments: dict[str, Segment] = {}
        self._call_started = False  # the call at hand
        self._made_progress = False  # the call at hand brought something new
        self._attempts_without_progress = 0
        self._failures = 0  # since a call last began
        self._failing_since: float | None = None

    # -------------------------------------------------------------------------------------------------- what comes in

    def update(self, message: lip_reading_pb2.StreamingRecognizeResponse) -> None:
        """Take note of what a message says about the session."""
        match message.WhichOneof("event"):
            case "started":
                self._record_start(message.started)
            case "progress":
                self._record_acknowledgement(
                    message.progress.resume_token, message.progress.acknowledged_sequence
                )
            case "server_draining":
                self._record_acknowledgement(
                    message.server_draining.resume_token, message.server_draining.acknowledged_sequence
                )
                self.should_switch_server = self._server_count > 1 and self._can_resume
        final_end_s = message.final_end_offset.ToMicroseconds() / 1e6
        if final_end_s > self.final_until_s:
            self.final_until_s = final_end_s
            self._record_progress()

    def is_new(self, segment: Segment) -> bool:
        """Whether a segment says anything that was not said before, by whichever server."""
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

    def _record_start(self, started: lip_reading_pb2.StreamStarted) -> None:
        self._session_id = started.session_id
        self.heartbeat_interval_s = started.heartbeat_interval.ToMicroseconds() / 1e6
        self._call_started = True
        self._failures, self._failing_since = 0, None

    def _record_acknowledgement(self, token: bytes, acknowledged: int) -> None:
        if token:
            self._resume_token, self.acknowledged = token, acknowledged

    def _record_progress(self) -> None:
        self._made_progress = True
        self._attempts_without_progress = 0

    @property
    def _can_resume(self) -> bool:
        return bool(self._session_id) and self._timeout_s > 0

    # ------------------------------------------------------------------------------------------------ what comes next

    def silence_timeout_s(self) -> float | None:
        """How long a server may be silent before it is given up; None: for ever."""
        return MAX_MISSED_HEARTBEATS * self.heartbeat_interval_s or None

    def build_first_request(self, first_request: StreamRequest) -> StreamRequest:
        """The first request of the next call."""
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

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with the next call, over and above the credentials."""
        return ((SESSION_METADATA, self._session_id),) if self._session_id else ()

    def next_server(self) -> None:
        """Go on with the next server."""
        self.server = (self.server + 1) % self._server_count

    def record_failure(self, status: RpcStatus, *, was_silent: bool = False) -> float | None:
        """How long to wait before the next call, which goes to the next server; None: there is none.

        Args:
            status: how the call ended.
            was_silent: it was given up, because nothing came for too long.
        """
        is_opening = not self._session_id
        if is_opening and (self._failures + 1 >= self._server_count or not _is_retryable(status)):
            return None
        if not is_opening and not (self._can_resume and (was_silent or _is_retryable(status))):
            return None
        if self._call_started and not self._made_progress:
            self._attempts_without_progress += 1
        self._call_started = False
        now = self._clock()
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._failures += 1
        self.next_server()
        pause_s = self._compute_backoff_s(status)
        if self._attempts_without_progress >= MAX_ATTEMPTS_WITHOUT_PROGRESS or (
            not is_opening and now + pause_s - self._failing_since > self._timeout_s
        ):
            return None
        return pause_s

    def _compute_backoff_s(self, status: RpcStatus) -> float:
        if self._failures < self._server_count:
            return 0.0  # there is a server that was not asked yet
        rounds = (self._failures - self._server_count) // self._server_count
        backoff_s = min(MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2.0**rounds)
        asked_s = status_mapping.get_retry_delay_s(status) or 0.0
        return (
            max(asked_s, backoff_s) * (1 + 0.25 * self._random_fraction())
            if asked_s
            else backoff_s * (0.5 + self._random_fraction() / 2)
        )


def _is_retryable(status: RpcStatus) -> bool:
    """Whether the server or the connection is what failed, or the server is full for the moment."""
    if status.code is grpc.StatusCode.UNAVAILABLE:
        return True
    if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return status_mapping.get_retry_delay_s(status) is not None
    return status.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and (
        (status.details or "").startswith(_BROKEN_CONNECTION_PREFIXES)
    )


def _estimate_stable_end_s(segment: Segment) -> float:
    """When the stable words end; roughly, where the times of words were not asked for."""
    if segment.words and segment.stable_words:
        return segment.words[min(segment.stable_words, len(segment.words)) - 1].end_s
    share = segment.stable_words / max(1, len(segment.text.split()))
    return segment.start_s + share * (segment.end_s - segment.start_s)
