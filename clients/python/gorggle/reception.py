"""One stream as it goes: what was sent, and what the answers add up to."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from gorggle import responses
from gorggle.errors import ServerError
from gorggle.events import Event, Finished, MediaInfo, Started, StreamWarning
from gorggle.requests import StreamRequest
from gorggle.results import Segment, Transcript, in_order
from gorggle.v1 import lip_reading_pb2


class Feed:
    """The requests of one stream, and how their sending goes.

    Holds nothing of the object that receives the answers, so that one which is dropped can end.

    Attributes:
        bytes_sent: media bytes handed to gRPC.
        failure: why the source could not be read to its end.
    """

    def __init__(self, opening: StreamRequest) -> None:
        self.opening = opening
        self.bytes_sent = 0
        self.failure: Exception | None = None


class Reception:
    """What a stream's answers have told so far.

    Attributes:
        request_id: the call's name in the server's log; empty until it began.
        model: the model that reads; empty until the call began.
        media_info: what the media is; None until the server opened it.
        duration_s: length of the media; 0 until the stream is over.
        warnings: what the server wants known.
    """

    def __init__(self, file: str, feed: Feed) -> None:
        self.file = file
        self.request_id = ""
        self.model = ""
        self.media_info: MediaInfo | None = None
        self.duration_s = 0.0
        self.warnings: list[StreamWarning] = []
        self._sent = feed
        self._is_finished = False

    @property
    def bytes_sent(self) -> int:
        """Media bytes handed to gRPC so far."""
        return self._sent.bytes_sent

    def _take(self, message: lip_reading_pb2.StreamingRecognizeResponse) -> Segment | Event | None:
        """Take in one answer, and give what it holds."""
        item = responses.received(message)
        match item:
            case Started():
                self.request_id, self.model = item.request_id, item.model
            case MediaInfo():
                self.media_info = item
            case StreamWarning():
                self.warnings.append(item)
            case Finished():
                self.duration_s, self._is_finished = item.duration_s, True
        return item

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

    def _transcript(self, segments: Iterable[Segment]) -> Transcript:
        return Transcript(
            file=self.file,
            duration_s=self.duration_s,
            model=self.model,
            segments=in_order(segments),
            warnings=tuple(self.warnings),
            request_id=self.request_id,
        )
