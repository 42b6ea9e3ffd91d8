"""State of one stream, from its requests and responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from gorggle._protobuf import decode
from gorggle._protobuf.encode import StreamRequest
from gorggle._transport.calls import Deadline, StreamCall
from gorggle._transport.resume import ResumePolicy
from gorggle._transport.sender import ReplayBuffer
from gorggle._transport.status_mapping import RpcStatus
from gorggle.errors import ServerError
from gorggle.events import Activity, Event, Finished, Interrupted, MediaInfo, Started, StreamWarning
from gorggle.results import Segment, Transcript, sort_segments
from gorggle.v1 import lip_reading_pb2


class StreamReceiver:
    """State of a stream, updated by its responses.

    Attributes:
        request_id: identifies the call in the server's log; empty until it started.
        model: name of the model; empty until the call started.
        audio_model: name of the second model, which recognizes the audio; empty: none.
        media_info: properties of the media; None until the server opened it.
        duration_s: duration of the media; 0 until the stream has finished.
        warnings: the server's warnings.
    """

    def __init__(self, call: StreamCall, replay_buffer: ReplayBuffer) -> None:
        self.file = call.media.name
        self.request_id = ""
        self.model = self.audio_model = ""
        self.media_info: MediaInfo | None = None
        self.duration_s = 0.0
        self.warnings: list[StreamWarning] = []
        self._stream_call, self._replay_buffer = call, replay_buffer
        self._resume_policy = ResumePolicy(call.server_count, call.resume_timeout_s, call.first_server)
        self._deadline = Deadline(call.timeout_s)
        self._call: Any = None
        self._reported_events: set[Event] = set()
        self._is_finished = False

    @property
    def bytes_sent(self) -> int:
        """Media bytes handed to gRPC so far."""
        return self._replay_buffer.bytes_sent

    def _handle_message(self, message: lip_reading_pb2.StreamingRecognizeResponse) -> Segment | Event | None:
        """Process a response; return its segment or event, or None if it was reported before."""
        self._resume_policy.update(message)
        self._replay_buffer.acknowledge(self._resume_policy.acknowledged)
        item = decode.decode_response(message)
        # After a resume, a server may repeat events of the replayed media.
        if isinstance(item, MediaInfo | StreamWarning | Activity):
            if item in self._reported_events:
                return None
            self._reported_events.add(item)
        match item:
            case Started():
                self.request_id, self.model = item.request_id, item.model
                self.audio_model = item.audio_model
            case MediaInfo():
                self.media_info = item
            case StreamWarning():
                self.warnings.append(item)
            case Finished():
                self.duration_s, self._is_finished = item.duration_s, True
            case Segment():
                return item if self._resume_policy.is_new(item) else None
        return item

    def _check_finished(self) -> None:
        """Check, at the end of the responses, that the stream has finished.

        Raises:
            ServerError: it has not.
        """
        if not self._is_finished:
            raise ServerError(
                "the server ended the stream before all media was processed",
                code=grpc.StatusCode.OK,
                request_id=self.request_id,
            )

    def _open_call(self, *messages: Iterator[StreamRequest]) -> None:
        policy = self._resume_policy
        self._call = self._stream_call.start(
            policy.server, policy.metadata(), self._deadline.remaining_s(), *messages
        )

    def _plan_resume(
        self, status: RpcStatus, *, was_silent: bool, is_closed: bool
    ) -> tuple[Exception, Interrupted]:
        """Return the error of a lost call, and the event with the backoff before the next call.

        Raises:
            Exception: that error, if the stream cannot be resumed.
        """
        source_error = self._replay_buffer.source_error
        failure = source_error or self._stream_call.map_error(
            status, self.request_id, self._resume_policy.server
        )
        if source_error is not None or is_closed:
            raise failure from None
        backoff_s = self._resume_policy.record_failure(status, was_silent=was_silent)
        if backoff_s is None or self._deadline.expires_within(backoff_s):
            raise failure from None
        reason = "the server stopped responding" if was_silent else str(failure)
        return failure, Interrupted(reason, backoff_s, self._resume_policy.final_end_s)

    def _build_transcript(self, segments: Iterable[Segment]) -> Transcript:
        return Transcript(
            file=self.file,
            duration_s=self.duration_s,
            model=self.model,
            segments=sort_segments(segments),
            warnings=tuple(self.warnings),
            request_id=self.request_id,
            audio_model=self.audio_model,
        )
