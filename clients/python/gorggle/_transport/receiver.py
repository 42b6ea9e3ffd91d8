"""State of one stream, from its requests and responses."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from gorggle._protobuf import decode
from gorggle._transport.resume import ResumePolicy
from gorggle._transport.sender import ReplayBuffer
from gorggle.errors import ServerError
from gorggle.events import Activity, Event, Finished, MediaInfo, Started, StreamWarning
from gorggle.results import Segment, Transcript, sort_segments
from gorggle.v1 import lip_reading_pb2


class StreamReceiver:
    """State of a stream, updated by its responses.

    Attributes:
        request_id: identifies the call in the server's log; empty until it started.
        model: name of the model; empty until the call started.
        media_info: properties of the media; None until the server opened it.
        duration_s: duration of the media; 0 until the stream has finished.
        warnings: the server's warnings.
    """

    def __init__(self, file: str, replay_buffer: ReplayBuffer, resume_policy: ResumePolicy) -> None:
        self.file = file
        self.request_id = ""
        self.model = ""
        self.media_info: MediaInfo | None = None
        self.duration_s = 0.0
        self.warnings: list[StreamWarning] = []
        self._replay_buffer, self._resume_policy = replay_buffer, resume_policy
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
        match item:
            case Started():
                self.request_id, self.model = item.request_id, item.model
            case MediaInfo():
                self.media_info = item
            case StreamWarning():
                if item not in self._reported_events:
                    self.warnings.append(item)
            case Finished():
                self.duration_s, self._is_finished = item.duration_s, True
            case Segment():
                return item if self._resume_policy.is_new(item) else None
        return item if self._is_new_event(item) else None

    def _is_new_event(self, item: Event | None) -> bool:
        """Whether an event is new: after a resume, a server may repeat events of the replayed media."""
        if not isinstance(item, MediaInfo | StreamWarning | Activity):
            return True
        if item in self._reported_events:
            return False
        self._reported_events.add(item)
        return True

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

    def _build_transcript(self, segments: Iterable[Segment]) -> Transcript:
        return Transcript(
            file=self.file,
            duration_s=self.duration_s,
            model=self.model,
            segments=sort_segments(segments),
            warnings=tuple(self.warnings),
            request_id=self.request_id,
        )
