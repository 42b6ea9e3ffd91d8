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
from gorggle_server.stream_state import StreamCheckpoint
from gorggle_server.streaming.crop_input import AudioChunk, MouthCropChunk, PreprocessedInput
from gorggle_server.streaming.input_queue import InputQueue
from gorggle_server.streaming.interim_results import PartialTranscript
from gorggle_server.streaming.resume_token import REPLAY_MARGIN_FRAMES, ResumeToken
from gorggle_server.streaming.session import ResumeState
from gorggle_server.types import (
    AUDIO_SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    VIDEO_FRAME_RATE_HZ,
    Event,
    StreamWarning,
    WarningKind,
)

Request = lip_reading_pb2.StreamingRecognizeRequest
MediaIntake = BytePipe | InputQueue[PreprocessedInput]

# What may wait for the decoder: enough to keep it busy, little enough that a fast sender feels its pace.
MAX_INTAKE_BYTES = 64 * 1024
# A live sender that had to wait for so long in all is told that it is too fast; and again only when it had caught up.
BEHIND_S, CAUGHT_UP_S = 2.0, 0.5


@dataclass(frozen=True)
class _Sent:
    """A request of crops or sound: its number, when its media ends, and the sound sent up to and with it."""

    sequence: int
    end_s: float
    samples: int


class MediaReceiver:
    """Moves a stream's media messages into its intake; the first one decides which kind they are.

    ``first_frame`` is the media's frame at which this call's media starts.

    Args:
        first: the first one; None where none came.
        requests: those that follow.
        read_next: waits for the next of them, None at the end.
        point: where the stream is taken up.
        live: the media comes into being while it is sent.
        media_timeout_s: how long there may be heartbeats and no media.
    """

    def __init__(
        self,
        first: Request | None,
        requests: AsyncIterator[Request],
        read_next: Callable[[AsyncIterator[Any]], Awaitable[Any]],
        point: ResumeToken,
        *,
        live: bool,
        media_timeout_s: float,
    ) -> None:
        self.is_elementary = first is not None and first.WhichOneof("payload") in ("mouth_crops", "pcm")
        self.pipe, self.crops_and_sound = (
            BytePipe(MAX_INTAKE_BYTES),
            InputQueue[PreprocessedInput](MAX_INTAKE_BYTES),
        )
        self.bytes_received = 0
        self.warn: Callable[[StreamWarning], None] | None = None
        self._first, self._requests, self._read_next = first, requests, read_next
        self._numbering = _SequenceTracker(point.sequence)
        self._point = point
        self._samples = point.samples
        # The sound starts with a whole frame, and so does the clock of this call's media.
        self.first_frame = -(-point.samples // SAMPLES_PER_FRAME) if self.is_elementary else 0
        self._unacknowledged: deque[_Sent] = deque()
        self._keeps_step = True
        self._pace = _BackpressureMonitor() if live else None
        self._media_timeout_s = media_timeout_s

    @property
    def intake(self) -> MediaIntake:
        """Where this stream's media goes."""
        return self.crops_and_sound if self.is_elementary else self.pipe

    def resumed(self, open_texts: dict[str, PartialTranscript]) -> ResumeState:
        """What the session must know of what came before.

        Raises:
            InvalidRequestError: the token and the requests do not go together.
        """
        state = self._point.state
        if not self.is_elementary:
            # All of it comes again: everything is cut again, from the start.
            state = replace(state, channels=(), heard=())
            if self._point.sequence:
                raise InvalidRequestError("the resume token is one of crops and sound: send these")
        elif any(channel.settled_until < self.first_frame for channel in state.channels):
            raise InvalidRequestError("the resume token contradicts itself: give the last one that came")
        return ResumeState(state, self.first_frame, open_texts)

    # ----------------------------------------------------------------------------------------------- acknowledgement

    def acknowledge(self, event: Event) -> None:
        """Take note of what the session says."""
        if isinstance(event, StreamWarning) and event.kind is WarningKind.LAGGING_MODALITY:
            # Silence was put in the place of sound: its place in the media is no longer told by how much was sent.
            self._keeps_step = False
            self._unacknowledged.clear()
        state: StreamCheckpoint | None = getattr(event, "state", None)
        if state is None:
            return
        sequence, samples = self._point.sequence, self._point.samples
        horizon_s = (state.needed_from - REPLAY_MARGIN_FRAMES) / VIDEO_FRAME_RATE_HZ
        while self._unacknowledged and self._unacknowledged[0].end_s <= horizon_s:
            sent = self._unacknowledged.popleft()
            sequence, samples = sent.sequence, sent.samples
        self._point = ResumeToken(state, sequence, samples)

    @property
    def acknowledged_sequence(self) -> int:
        """Requests up to this number are needed no more."""
        return self._point.sequence

    @property
    def token(self) -> bytes:
        """What the stream is resumed with; empty where requests are not numbered."""
        return self._point.encode() if self._numbering.is_used else b""

    # ------------------------------------------------------------------------------------------------------ the media

    async def run(self) -> None:
        """Feed to the end of the stream."""
        request, media_at = self._first, time.monotonic()
        while request is not None:
            before_s = time.monotonic()
            if request.WhichOneof("payload") == "heartbeat":
                self._check_pause(before_s - media_at)
            elif self._numbering.takes(request):
                await self._put(request)
                media_at = time.monotonic()
            after_s = time.monotonic()
            request = await self._read_next(self._requests)
            if self._pace is not None:
                self._pace.note(after_s - before_s, time.monotonic() - after_s)
                if self._pace.is_news and self.warn is not None:
                    self.warn(self._pace.warning())

    def _check_pause(self, pause_s: float) -> None:
        if pause_s > self._media_timeout_s:
            raise IdleError(
                f"no media came for {self._media_timeout_s:g} s: end the stream, and begin another one later"
            )

    async def _put(self, request: Request) -> None:
        kind = request.WhichOneof("payload")
        if kind == "config":
            raise InvalidRequestError("the configuration came twice: it belongs into the first message alone")
        if kind is None:
            raise InvalidRequestError("a message is empty: send media, mouth_crops or pcm")
        if (kind != "media") != self.is_elementary:
            raise InvalidRequestError(
                f"{kind} came in a stream of {'crops and sound' if self.is_elementary else 'container bytes'}: "
                "a stream carries one or the other"
            )
        size = request.ByteSize()
        self.bytes_received += size
        if kind == "media":
            await self.pipe.write_async(request.media)
        elif kind == "mouth_crops":
            crops = request_decoding.crops_from(request.mouth_crops)
            self._note(request.sequence, crops.times_s[-1] if crops.times_s else 0.0)
            await self.crops_and_sound.put(self._from_first_frame(crops), size)
        else:
            sound = request_decoding.sound_from(request.pcm)
            skipped = max(0, self.first_frame * SAMPLES_PER_FRAME - self._samples)
            self._samples += len(sound.samples)
            self._note(request.sequence, self._samples / AUDIO_SAMPLE_RATE_HZ)
            await self.crops_and_sound.put(AudioChunk(sound.samples[skipped:]), size)

    def _note(self, sequence: int, end_s: float) -> None:
        if self._numbering.is_used and self._keeps_step:
            self._unacknowledged.append(_Sent(sequence, end_s, self._samples))

    def _from_first_frame(self, crops: MouthCropChunk) -> MouthCropChunk:
        """Crops on this call's clock, which starts with its media."""
        if not self.first_frame:
            return crops
        first_s = self.first_frame / VIDEO_FRAME_RATE_HZ
        times_s = [round(time_s - first_s, 9) for time_s in crops.times_s]
        earlier = sum(time_s < 0 for time_s in times_s)
        return MouthCropChunk(crops.face, crops.pixels[earlier:], times_s[earlier:])


class _SequenceTracker:
    """The numbers of requests: all of them bear one, or none."""

    def __init__(self, last: int) -> None:
        self._next = last + 1
        self._must_be_used = last > 0
        self._is_used: bool | None = None

    @property
    def is_used(self) -> bool:
        """Whether requests bear numbers."""
        return bool(self._is_used)

    def takes(self, request: Request) -> bool:
        """Whether a request is the next one; false for one that came before.

        Raises:
            DataLossError: those between are missing.
            InvalidRequestError: some bear numbers and some do not.
        """
        number = request.sequence
        if self._is_used is None:
            self._is_used = number > 0
        if self._is_used != (number > 0) or (self._must_be_used and not number):
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
        self._behind_s = 0.0
        self._is_behind = self.is_news = False

    def note(self, blocked_s: float, waited_s: float) -> None:
        """A request waited so long for room, and then the server so long for the next one."""
        self._behind_s = max(0.0, self._behind_s + blocked_s - waited_s)
        self.is_news = not self._is_behind and self._behind_s >= BEHIND_S
        if self.is_news:
            self._is_behind = True
        elif self._behind_s <= CAUGHT_UP_S:
            self._is_behind = False

    def warning(self) -> StreamWarning:
        """What the caller is told."""
        return StreamWarning(
            WarningKind.FALLING_BEHIND,
            f"the media comes faster than this server reads it, by {self._behind_s:.1f} s so far: results come late",
        )
