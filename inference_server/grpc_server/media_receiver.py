"""Receives a stream's media requests: checks their order, queues their media and tracks which are acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gorggle.v1 import lip_reading_pb2
from gorggle_server.errors import DataLossError, IdleError, InvalidRequestError
from gorggle_server.events import Event, Progress, StreamWarning, WarningKind
from gorggle_server.grpc_server import request_decoding
from gorggle_server.grpc_server.frame_muxer import FrameMuxer
from gorggle_server.grpc_server.pcm_resampler import PcmResampler
from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.streaming.crop_input import AudioChunk, MouthCropChunk, PreprocessedInput
from gorggle_server.streaming.interim_results import PartialTranscript
from gorggle_server.streaming.queues import InputQueue
from gorggle_server.streaming.resume_token import REPLAY_MARGIN_FRAMES, ResumeToken
from gorggle_server.streaming.session import ResumeState

if TYPE_CHECKING:
    from gorggle_server.settings import ServerSettings


Request = lip_reading_pb2.StreamingRecognizeRequest
MediaQueue = BytePipe | InputQueue[PreprocessedInput]

# Enough to keep the decoder busy; small, so that flow control reaches a fast sender soon.
MAX_QUEUED_BYTES = 64 * 1024
# A live sender is warned after it was blocked for this long in total, and again only after it caught up.
WARN_LAG_S, CLEAR_LAG_S = 2.0, 0.5
# Larger messages are resampled on another thread.
MAX_INLINE_SAMPLES = 100_000

_KINDS = {"media": "container bytes", "frame": "frames", "mouth_crops": "mouth crops", "pcm": "PCM"}


@dataclass(frozen=True)
class _SentRequest:
    """A request of crops or audio: its number, the end of its media, and the total of samples received with it."""

    sequence: int
    end_s: float
    total_samples: int


class MediaReceiver:
    """Moves a stream's media messages into its media queue. The first message decides the kind of media.

    Args:
        first_request: the first media message; None if there was none.
        requests: the following messages.
        receive_next: waits for the next one; returns None at the end.
        resume_token: state to resume from.
        options: the stream's settings.
        settings: the server's settings.

    Attributes:
        bytes_received: media bytes received.
        first_frame: frame of the media at which this call's media starts.
        on_warning: called with warnings about the input.
    """

    def __init__(
        self,
        first_request: Request | None,
        requests: AsyncIterator[Request],
        receive_next: Callable[[AsyncIterator[Any]], Awaitable[Any]],
        resume_token: ResumeToken,
        options: RecognitionOptions,
        settings: ServerSettings,
    ) -> None:
        kind = first_request.WhichOneof("payload") if first_request is not None else None
        self.is_preprocessed = kind in ("mouth_crops", "pcm")
        self._muxer = FrameMuxer(uses_audio=options.modality.uses_audio) if kind == "frame" else None
        self._resampler = PcmResampler()
        self.pipe = BytePipe(MAX_QUEUED_BYTES)
        self.preprocessed_queue = InputQueue[PreprocessedInput](MAX_QUEUED_BYTES)
        self.bytes_received = 0
        self.on_warning: Callable[[StreamWarning], None] | None = None
        self._first_request, self._requests, self._receive_next = first_request, requests, receive_next
        self._sequence_tracker = _SequenceTracker(resume_token.sequence)
        self._resume_token = resume_token
        self._resume_samples = self._samples_received = self._samples_queued = resume_token.samples
        self._pcm_samples = 0
        # The audio of a resumed call is cut at the next whole frame, where the clock of its media starts.
        self.first_frame = -(-resume_token.samples // SAMPLES_PER_FRAME) if self.is_preprocessed else 0
        self._unacknowledged: deque[_SentRequest] = deque()
        self._is_in_step = True
        self._backpressure = _BackpressureMonitor() if options.live else None
        self._media_timeout_s = settings.media_timeout_s
        self._max_frame_pixels = settings.max_frame_pixels

    @property
    def media_queue(self) -> MediaQueue:
        """The queue that this stream's media is written to."""
        return self.preprocessed_queue if self.is_preprocessed else self.pipe

    @property
    def has_container(self) -> bool:
        """Whether the media is a container from the client."""
        return not self.is_preprocessed and self._muxer is None

    def create_resume_state(self, open_texts: dict[str, PartialTranscript]) -> ResumeState:
        """Return the state of the session before this call.

        Raises:
            InvalidRequestError: the token does not match the kind of media, or is inconsistent.
        """
        checkpoint = self._resume_token.checkpoint
        if not self.is_preprocessed:
            # The media is sent again from the start, so endpointing starts again too.
            checkpoint = replace(checkpoint, channels=(), recent_speech=())
            if self._resume_token.sequence:
                raise InvalidRequestError(
                    "the resume token belongs to a stream of mouth crops or PCM: send the same kind of media",
                    field="resume.resume_token",
                )
        elif any(channel.committed_end < self.first_frame for channel in checkpoint.channels):
            raise InvalidRequestError(
                "the resume token is inconsistent: send the last one received", field="resume.resume_token"
            )
        return ResumeState(checkpoint, self.first_frame, open_texts)

    # ----------------------------------------------------------------------------------------------- acknowledgement

    def handle_event(self, event: Event) -> None:
        """Update the acknowledged requests from an event of the session."""
        if isinstance(event, StreamWarning) and event.kind is WarningKind.LAGGING_MODALITY:
            # Silence was inserted, so the number of samples no longer gives the position in the media.
            self._is_in_step = False
            self._unacknowledged.clear()
        if not isinstance(event, Progress) or event.checkpoint is None:
            return
        sequence, samples = self._resume_token.sequence, self._resume_token.samples
        horizon_s = (event.checkpoint.needed_start - REPLAY_MARGIN_FRAMES) / FRAME_RATE_HZ
        while self._unacknowledged and self._unacknowledged[0].end_s <= horizon_s:
            sent = self._unacknowledged.popleft()
            sequence, samples = sent.sequence, sent.total_samples
        self._resume_token = ResumeToken(event.checkpoint, sequence, samples)

    @property
    def acknowledged_sequence(self) -> int:
        """Number of the last request that will not be needed again."""
        return self._resume_token.sequence

    @property
    def resume_token(self) -> bytes:
        """Token to resume the stream with; empty if requests are not numbered."""
        return self._resume_token.encode() if self._sequence_tracker.is_used else b""

    # ------------------------------------------------------------------------------------------------------ the media

    async def run(self) -> None:
        """Receive until the end of the stream."""
        request, last_media_at = self._first_request, time.monotonic()
        while request is not None:
            received_at = time.monotonic()
            if request.WhichOneof("payload") == "heartbeat":
                if received_at - last_media_at > self._media_timeout_s:
                    raise IdleError(
                        f"no media for {self._media_timeout_s:g} s: end the stream and start a new one later"
                    )
            elif self._sequence_tracker.accept(request):
                await self._enqueue(request)
                last_media_at = time.monotonic()
            queued_at = time.monotonic()
            request = await self._receive_next(self._requests)
            if self._backpressure is not None:
                self._backpressure.record(queued_at - received_at, time.monotonic() - queued_at)
                if self._backpressure.should_warn and self.on_warning is not None:
                    self.on_warning(self._backpressure.create_warning())
        await self._flush()

    async def _enqueue(self, request: Request) -> None:
        kind = request.WhichOneof("payload")
        if kind == "config":
            raise InvalidRequestError(
                "a second configuration was sent: send it in the first message only", field="config"
            )
        if kind is None:
            raise InvalidRequestError(
                "a message is empty: send media, frame, mouth_crops or pcm", field="payload"
            )
        size = request.ByteSize()
        self.bytes_received += size
        if self.is_preprocessed and kind in ("mouth_crops", "pcm"):
            await self._enqueue_preprocessed(request, size)
        elif self._muxer is not None and kind == "frame":
            frame = request_decoding.decode_video_frame(request.frame, self._max_frame_pixels)
            await self.pipe.write_async(self._muxer.add_frame(frame))
        elif self._muxer is not None and kind == "pcm":
            await self.pipe.write_async(self._muxer.add_audio(request_decoding.decode_pcm(request.pcm)))
        elif kind == "media" and self.has_container:
            await self.pipe.write_async(request.media)
        else:
            first = self._first_request.WhichOneof("payload") if self._first_request is not None else None
            raise InvalidRequestError(
                f"the stream started with {_KINDS[str(first)]} and continued with {_KINDS[str(kind)]}: "
                "send one kind of media, and frames before PCM",
                field=str(kind),
            )

    async def _enqueue_preprocessed(self, request: Request, size: int) -> None:
        if request.WhichOneof("payload") == "mouth_crops":
            crops = request_decoding.decode_mouth_crops(request.mouth_crops)
            self._record_unacknowledged(request.sequence, crops.times_s[-1] if crops.times_s else 0.0)
            await self.preprocessed_queue.put(self._rebase_crops(crops), size)
            return
        pcm = request_decoding.decode_pcm(request.pcm)
        if len(pcm.samples) > MAX_INLINE_SAMPLES:
            audio = await asyncio.to_thread(self._resampler.push, pcm)
        else:
            audio = self._resampler.push(pcm)
        skipped = max(0, self.first_frame * SAMPLES_PER_FRAME - self._samples_queued)
        self._samples_queued += len(audio.samples)
        # Counted on the input: the resampler's output lags a little, and restarts at the boundary when resumed.
        self._pcm_samples += len(pcm.samples)
        self._samples_received = (
            self._resume_samples + self._pcm_samples * SAMPLE_RATE_HZ // pcm.sample_rate_hz
        )
        self._record_unacknowledged(request.sequence, self._samples_received / SAMPLE_RATE_HZ)
        await self.preprocessed_queue.put(AudioChunk(audio.samples[skipped:]), size)

    async def _flush(self) -> None:
        if self._muxer is not None:
            await self.pipe.write_async(self._muxer.flush())
        rest = self._resampler.flush()
        if len(rest.samples):
            await self.preprocessed_queue.put(rest, rest.size_bytes)

    def _record_unacknowledged(self, sequence: int, end_s: float) -> None:
        if self._sequence_tracker.is_used and self._is_in_step:
            self._unacknowledged.append(_SentRequest(sequence, end_s, self._samples_received))

    def _rebase_crops(self, crops: MouthCropChunk) -> MouthCropChunk:
        """Return crops with times relative to the start of this call's media."""
        if not self.first_frame:
            return crops
        first_s = self.first_frame / FRAME_RATE_HZ
        times_s = [round(time_s - first_s, 9) for time_s in crops.times_s]
        earlier = sum(time_s < 0 for time_s in times_s)
        return MouthCropChunk(crops.face, crops.pixels[earlier:], times_s[earlier:])


class _SequenceTracker:
    """Checks the sequence numbers of media requests: all are numbered, or none."""

    def __init__(self, last_sequence: int) -> None:
        self._next = last_sequence + 1
        self._is_required = last_sequence > 0
        self._is_used: bool | None = None

    @property
    def is_used(self) -> bool:
        """Whether requests are numbered."""
        return bool(self._is_used)

    def accept(self, request: Request) -> bool:
        """Return whether a request is the next one; false for one that was received before.

        Raises:
            DataLossError: requests are missing.
            InvalidRequestError: some requests are numbered and some are not.
        """
        number = request.sequence
        if self._is_used is None:
            self._is_used = number > 0
        if number < 0 or self._is_used != (number > 0) or (self._is_required and not number):
            raise InvalidRequestError(
                "some requests are numbered and some are not: number all that carry media", field="sequence"
            )
        if not number:
            return True
        if number > self._next:
            raise DataLossError(
                f"out-of-order request: expected sequence {self._next}, got {number}; "
                "resend the missing requests or start a new stream"
            )
        is_new = number == self._next
        self._next += is_new
        return is_new


class _BackpressureMonitor:
    """Measures how far a live sender is ahead: the time it was blocked, minus the time it sent nothing."""

    def __init__(self) -> None:
        self._lag_s = 0.0
        self._is_lagging = self.should_warn = False

    def record(self, blocked_s: float, waited_s: float) -> None:
        """Record how long a request waited for space, and then the server for the next request."""
        self._lag_s = max(0.0, self._lag_s + blocked_s - waited_s)
        self.should_warn = not self._is_lagging and self._lag_s >= WARN_LAG_S
        if self.should_warn:
            self._is_lagging = True
        elif self._lag_s <= CLEAR_LAG_S:
            self._is_lagging = False

    def create_warning(self) -> StreamWarning:
        """Return the warning for the client."""
        return StreamWarning(
            WarningKind.INPUT_TOO_FAST,
            f"live media arrives faster than the server processes it; the lag is {self._lag_s:.1f} s and growing",
        )
