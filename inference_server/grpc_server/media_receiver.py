"""A stream's requests on their way to its session: in order, each once; and which of them are needed no more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from gorggle.v1 import lip_reading_pb2
from gorggle_server.errors import DataLossError, IdleError, InvalidRequestError
from gorggle_server.grpc_server import request_decoding
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.streaming.crop_input import AudioChunk, MouthCropChunk, PreprocessedInput
from gorggle_server.streaming.interim_results import PartialTranscript
from gorggle_server.streaming.queues import InputQueue
from gorggle_server.streaming.resume_token import REPLAY_MARGIN_FRAMES, ResumeToken
from gorggle_server.streaming.session import ResumeState
from gorggle_server.timebase import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gorggle_server.types import Event, StreamCheckpoint, StreamWarning, WarningKind

Request = lip_reading_pb2.StreamingRecognizeRequest
MediaQueue = BytePipe | InputQueue[PreprocessedInput]

# What may wait for the decoder: enough to keep it busy, little enough that a fast sender feels its pace.
MAX_QUEUED_BYTES = 64 * 1024
# A live sender that had to wait for so long in all is told that it is too fast; and again only when it had caught up.
WARN_LAG_S, CLEAR_LAG_S = 2.0, 0.5


@dataclass(frozen=True)
class _SentRequest:
    """A request of crops or sound: its number, when its media ends, and the sound sent up to and with it."""

    sequence: int
    end_s: float
    total_samples: int


class MediaReceiver:
    """Moves a stream's media messages into its intake; the first one decides which kind they are.

    ``first_frame`` is the media's frame at which this call's media starts.

    Args:
        first_request: the first one; None where none came.
        requests: those that follow.
        receive_next: waits for the next of them, None at the end.
        resume_token: where the stream is taken up.
        live: the media comes into being while it is sent.
        media_timeout_s: how long there may be heartbeats and no media.
    """

    def __init__(
        self,
        first_request: Request | None,
        requests: AsyncIterator[Request],
        receive_next: Callable[[AsyncIterator[Any]], Awaitable[Any]],
        resume_token: ResumeToken,
        *,
        live: bool,
        media_timeout_s: float,
    ) -> None:
        self.is_preprocessed = first_request is not None and first_request.WhichOneof("payload") in (
            "mouth_crops",
            "pcm",
        )
        self.pipe, self.preprocessed_queue = (
            BytePipe(MAX_QUEUED_BYTES),
            InputQueue[PreprocessedInput](MAX_QUEUED_BYTES),
        )
        self.bytes_received = 0
        self.on_warning: Callable[[StreamWarning], None] | None = None
        self._first_request, self._requests, self._receive_next = first_request, requests, receive_next
        self._sequence_tracker = _SequenceTracker(resume_token.sequence)
        self._resume_token = resume_token
        self._samples_received = resume_token.samples
        # The sound starts with a whole frame, and so does the clock of this call's media.
        self.first_frame = -(-resume_token.samples // SAMPLES_PER_FRAME) if self.is_preprocessed else 0
        self._unacknowledged: deque[_SentRequest] = deque()
        self._is_in_step = True
        self._backpressure = _BackpressureMonitor() if live else None
        self._media_timeout_s = media_timeout_s

    @property
    def media_queue(self) -> MediaQueue:
        """Where this stream's media goes."""
        return self.preprocessed_queue if self.is_preprocessed else self.pipe

    def create_resume_state(self, open_texts: dict[str, PartialTranscript]) -> ResumeState:
        """What the session must know of what came before.

        Raises:
            InvalidRequestError: the token and the requests do not go together.
        """
        state = self._resume_token.checkpoint
        if not self.is_preprocessed:
            # All of it comes again: everything is cut again, from the start.
            state = replace(state, channels=(), recent_speech=())
            if self._resume_token.sequence:
                raise InvalidRequestError("the resume token is one of crops and sound: send these")
        elif any(channel.committed_end < self.first_frame for channel in state.channels):
            raise InvalidRequestError("the resume token contradicts itself: give the last one that came")
        return ResumeState(state, self.first_frame, open_texts)

    # ----------------------------------------------------------------------------------------------- acknowledgement

    def handle_event(self, event: Event) -> None:
        """Take note of what the session says."""
        if isinstance(event, StreamWarning) and event.kind is WarningKind.LAGGING_MODALITY:
            # Silence was put in the place of sound: its place in the media is no longer told by how much was sent.
            self._is_in_step = False
            self._unacknowledged.clear()
        state: StreamCheckpoint | None = getattr(event, "state", None)
        if state is None:
            return
        sequence, samples = self._resume_token.sequence, self._resume_token.samples
        horizon_s = (state.needed_start - REPLAY_MARGIN_FRAMES) / FRAME_RATE_HZ
        while self._unacknowledged and self._unacknowledged[0].end_s <= horizon_s:
            sent = self._unacknowledged.popleft()
            sequence, samples = sent.sequence, sent.total_samples
        self._resume_token = ResumeToken(state, sequence, samples)

    @property
    def acknowledged_sequence(self) -> int:
        """Requests up to this number are needed no more."""
        return self._resume_token.sequence

    @property
    def resume_token(self) -> bytes:
        """What the stream is resumed with; empty where requests are not numbered."""
        return self._resume_token.encode() if self._sequence_tracker.is_used else b""

    # ------------------------------------------------------------------------------------------------------ the media

    async def run(self) -> None:
        """Feed to the end of the stream."""
        request, media_at = self._first_request, time.monotonic()
        while request is not None:
            before_s = time.monotonic()
            if request.WhichOneof("payload") == "heartbeat":
                self._check_media_timeout(before_s - media_at)
            elif self._sequence_tracker.accept(request):
                await self._enqueue(request)
                media_at = time.monotonic()
            after_s = time.monotonic()
            request = await self._receive_next(self._requests)
            if self._backpressure is not None:
                self._backpressure.record(after_s - before_s, time.monotonic() - after_s)
                if self._backpressure.should_warn and self.on_warning is not None:
                    self.on_warning(self._backpressure.create_warning())

    def _check_media_timeout(self, idle_s: float) -> None:
        if idle_s > self._media_timeout_s:
            raise IdleError(
                f"no media came for {self._media_timeout_s:g} s: end the stream, and begin another one later"
            )

    async def _enqueue(self, request: Request) -> None:
        kind = request.WhichOneof("payload")
        if kind == "config":
            raise InvalidRequestError("the configuration came twice: it belongs into the first message alone")
        if kind is None:
            raise InvalidRequestError("a message is empty: send media, mouth_crops or pcm")
        if (kind != "media") != self.is_preprocessed:
            raise InvalidRequestError(
                f"{kind} came in a stream of {'crops and sound' if self.is_preprocessed else 'container bytes'}: "
                "a stream carries one or the other"
            )
        size = request.ByteSize()
        self.bytes_received += size
        if kind == "media":
            await self.pipe.write_async(request.media)
        elif kind == "mouth_crops":
            crops = request_decoding.decode_mouth_crops(request.mouth_crops)
            self._record_unacknowledged(request.sequence, crops.times_s[-1] if crops.times_s else 0.0)
            await self.preprocessed_queue.put(self._rebase_crops(crops), size)
        else:
            sound = request_decoding.decode_pcm(request.pcm)
            skipped = max(0, self.first_frame * SAMPLES_PER_FRAME - self._samples_received)
            self._samples_received += len(sound.samples)
            self._record_unacknowledged(request.sequence, self._samples_received / SAMPLE_RATE_HZ)
            await self.preprocessed_queue.put(AudioChunk(sound.samples[skipped:]), size)

    def _record_unacknowledged(self, sequence: int, end_s: float) -> None:
        if self._sequence_tracker.is_used and self._is_in_step:
            self._unacknowledged.append(_SentRequest(sequence, end_s, self._samples_received))

    def _rebase_crops(self, crops: MouthCropChunk) -> MouthCropChunk:
        """Crops on this call's clock, which starts with its media."""
        if not self.first_frame:
            return crops
        first_s = self.first_frame / FRAME_RATE_HZ
        times_s = [round(time_s - first_s, 9) for time_s in crops.times_s]
        earlier = sum(time_s < 0 for time_s in times_s)
        return MouthCropChunk(crops.face, crops.pixels[earlier:], times_s[earlier:])


class _SequenceTracker:
    """The numbers of requests: all of them bear one, or none."""

    def __init__(self, last_sequence: int) -> None:
        self._next = last_sequence + 1
        self._is_required = last_sequence > 0
        self._is_used: bool | None = None

    @property
    def is_used(self) -> bool:
        """Whether requests bear numbers."""
        return bool(self._is_used)

    def accept(self, request: Request) -> bool:
        """Whether a request is the next one; false for one that came before.

        Raises:
            DataLossError: those between are missing.
            InvalidRequestError: some bear numbers and some do not.
        """
        number = request.sequence
        if self._is_used is None:
            self._is_used = number > 0
        if self._is_used != (number > 0) or (self._is_required and not number):
            raise InvalidRequestError(
                "some requests are numbered and some are not: number all that bring media"
            )
        if not number:
            return True
        if number > self._next:
            raise DataLossError(
                f"request {number} came where {self._next} was to come: send what lies between, or begin anew"
            )
        is_new = number == self._next
        self._next += is_new
        return is_new


class _BackpressureMonitor:
    """How far a live sender is ahead: for how long it had to wait, less what it did not send anything."""

    def __init__(self) -> None:
        self._lag_s = 0.0
        self._is_lagging = self.should_warn = False

    def record(self, blocked_s: float, waited_s: float) -> None:
        """A request waited so long for room, and then the server so long for the next one."""
        self._lag_s = max(0.0, self._lag_s + blocked_s - waited_s)
        self.should_warn = not self._is_lagging and self._lag_s >= WARN_LAG_S
        if self.should_warn:
            self._is_lagging = True
        elif self._lag_s <= CLEAR_LAG_S:
            self._is_lagging = False

    def create_warning(self) -> StreamWarning:
        """What the caller is told."""
        return StreamWarning(
            WarningKind.FALLING_BEHIND,
            f"the media comes faster than this server reads it, by {self._lag_s:.1f} s so far: results come late",
        )
