"""One stream as it goes: what was sent, and what the answers add up to."""

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
    """What a stream's answers have told so far.

    Attributes:
        request_id: the call's name in the server's log; empty until it began.
        model: the model that reads; empty until the call began.
        media_info: what the media is; None until the server opened it.
        duration_s: length of the media; 0 until the stream is over.
        warnings: what the server wants known.
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
        """Take in one answer, and give what it holds; None for what was told before."""
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
        """Whether an event was not told before, by the server that read the same media."""
        if not isinstance(item, MediaInfo | StreamWarning | Activity):
            return True
        if item in self._reported_events:
            return False
        self._reported_events.add(item)
        return True

    def _check_finished(self) -> None:
        """Make sure, at the end of the answers, that they were all.

        Raises:
            ServerError: the last one is missing.
        """
        if not self._is_finished:
            raise ServerError(
                "the server ended the stream before it had read all of it",
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
