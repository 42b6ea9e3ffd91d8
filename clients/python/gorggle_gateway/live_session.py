"""One live session: relays a client's media to an inference server, and results to the client.

A session survives the loss of its client's connection, for a time, and of its server: unprocessed media is retained and
replayed to the next server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import gorggle
from gorggle import AsyncClient, Segment
from gorggle.events import Event, Interrupted, Progress, Started
from gorggle_gateway import protocol
from gorggle_gateway.ebml import MatroskaError
from gorggle_gateway.event_log import EventLog
from gorggle_gateway.media_buffer import RetainedMedia
from gorggle_gateway.protocol import MediaChunk, SessionError, Start
from gorggle_gateway.settings import GatewaySettings
from gorggle_gateway.speaker_identity import SpeakerIdentities

_log = logging.getLogger(__name__)

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.25, 3.0
# Segments that end this close to the resume point may come from either server.
OVERLAP_TOLERANCE_S = 0.2
# How long final segments are compared with those of the next server; far longer than an utterance.
FINAL_HISTORY_S = 60.0
# Errors that may not occur again in a retry.
TRANSIENT_ERRORS = (
    gorggle.UnavailableError,
    gorggle.OverloadedError,
    gorggle.DeadlineError,
    gorggle.CallCancelledError,
    # Raised by the SDK, whose replay buffer is disabled here; this session replays the media itself.
    gorggle.DataLossError,
)


class LiveSession:
    """One session.

    Attributes:
        name, key: a client sends them to resume the session.
        owner: the client's token name or address.
        events: events for the client.
        received: sequence number of the last chunk received.
        is_over: all events were added.
    """

    def __init__(self, start: Start, owner: str, client: AsyncClient, settings: GatewaySettings) -> None:
        self.name, self.key = secrets.token_hex(8), secrets.token_urlsafe(24)
        self.owner = owner
        self.events = EventLog()
        self.received = 0
        self.is_over = False
        self._start, self._client, self._settings = start, client, settings
        self._retained_media = RetainedMedia(settings.max_retained_bytes) if start.media == "webm" else None
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._total_bytes = 0
        self._media_ended = False
        self._changed = asyncio.Condition()
        self._processed_s = 0.0
        self._offset_s = 0.0
        self._generation = 0
        self._speakers = SpeakerIdentities()
        self._is_recovering = False
        # Time up to which every segment was final when the last server was lost.
        self._resume_point_s = 0.0
        self._half_sample = b""
        # Recent final segments, with the generation of their server.
        self._recent_finals: list[tuple[int, Segment]] = []

    # ---------------------------------------------------------------------------------------------------- client side

    async def add_media(self, chunk: MediaChunk) -> None:
        """Add the next chunk of media; waits while enough is pending.

        Raises:
            SessionError: invalid media, or a limit is exceeded.
        """
        if chunk.sequence <= self.received or self._media_ended or self.is_over:
            return
        if chunk.sequence != self.received + 1:
            raise SessionError(
                "out_of_order",
                f"chunk {chunk.sequence} follows {self.received}: expected {self.received + 1}",
            )
        self._total_bytes += len(chunk.media)
        if self._total_bytes > self._settings.max_session_bytes:
            raise SessionError(
                "too_long", f"more than {self._settings.max_session_bytes} bytes: start another session"
            )
        try:
            elements = (
                self._align_samples(chunk.media)
                if self._retained_media is None
                else self._retained_media.add(chunk.media)
            )
        except MatroskaError as error:
            raise SessionError("invalid_media", str(error)) from error
        async with self._changed:
            for element in elements:
                self._pending.append(element)
                self._pending_bytes += len(element)
            self.received = chunk.sequence
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._pending_bytes <= self._settings.max_waiting_bytes or self.is_over
            )

    async def finish_media(self) -> None:
        """Mark the end of the client's media."""
        async with self._changed:
            self._media_ended = True
            self._changed.notify_all()

    def _align_samples(self, media: bytes) -> list[bytes]:
        """Return whole 16-bit samples; an odd byte is kept for the next chunk."""
        media = self._half_sample + media
        even = len(media) // 2 * 2
        self._half_sample = media[even:]
        return [media[:even]] if even else []

    # ---------------------------------------------------------------------------------------------------- server side

    async def run(self) -> None:
        """Transcribe until the end of the media; every failure is reported to the client."""
        message: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(self._settings.max_session_s):
                await self._run_with_retries()
        except TimeoutError:
            text = f"a session lasts at most {self._settings.max_session_s:g} s"
            message = protocol.build_error_message("too_long", text)
        except SessionError as error:
            message = protocol.build_error_message(error.code, str(error))
        except gorggle.GorggleError as error:
            _log.warning("session %s ended: %s", self.name, error)
            message = protocol.error_to_message(error)
        except Exception:  # at the session's border: its client must get an error
            _log.exception("session %s failed", self.name)
            message = protocol.build_error_message("internal", "internal error")
        finally:
            await self._end(message)

    async def fail(self, error: SessionError) -> None:
        """End the session because of a client error."""
        await self._end(protocol.build_error_message(error.code, str(error)))

    async def _end(self, message: dict[str, Any] | None) -> None:
        if message is not None and not self.is_over:
            with contextlib.suppress(SessionError):
                self.events.add(message)
        self.is_over = True
        self.events.close()
        async with self._changed:
            self._changed.notify_all()

    async def _run_with_retries(self) -> None:
        lost_since: float | None = None
        for attempt in itertools.count():
            started = time.monotonic()
            try:
                await self._transcribe_once()
            except TRANSIENT_ERRORS as error:
                now = time.monotonic()
                # A server that worked for a while counts as a new loss.
                if lost_since is None or now - started > self._settings.max_recover_s:
                    lost_since = now
                if self._retained_media is None or now - lost_since > self._settings.max_recover_s:
                    raise
                await self._handle_server_loss(error, attempt)
            else:
                return

    async def _transcribe_once(self) -> None:
        self._generation += 1
        async with contextlib.aclosing(self._iter_media()) as media:
            stream = self._client.transcribe(
                media,
                modality=self._start.modality,
                model=self._start.model or None,
                interim_results=self._start.interim,
                face_boxes=self._start.face_boxes,
                activity_events=True,
                start_offset_s=self._offset_s,
                live=True,
                # A recording is retained here from a key frame; the SDK would retain it from its start.
                replay_buffer_bytes=0
                if self._retained_media is not None
                else self._settings.max_retained_bytes,
                on_event=self._publish_event,
            )
            async with stream:
                async for segment in stream:
                    self._publish_recovered()
                    self._publish_segment(segment)

    async def _iter_media(self) -> AsyncGenerator[Any]:
        """Yield the pending media as the SDK's chunks."""
        idle_s = self._settings.max_idle_s
        while True:
            async with self._changed:
                try:
                    async with asyncio.timeout(idle_s):
                        await self._changed.wait_for(
                            lambda: self._pending or self._media_ended or self.is_over
                        )
                except TimeoutError:
                    raise SessionError("idle", f"no media was received for {idle_s:g} s") from None
                if not self._pending:
                    return
                element = self._pending.popleft()
                self._pending_bytes -= len(element)
                self._changed.notify_all()
            yield element if self._retained_media is not None else gorggle.AudioChunk(element)

    async def _handle_server_loss(self, error: gorggle.GorggleError, attempt: int) -> None:
        """Tell the client, wait for a backoff, and queue the unprocessed media again."""
        assert self._retained_media is not None, "audio-only streams are resumed by the SDK"
        _log.warning("session %s lost its server: %s", self.name, error)
        self._publish_recovering(str(error))
        backoff_s = getattr(error, "retry_after_s", None) or min(
            MAX_BACKOFF_S, INITIAL_BACKOFF_S * 2 ** min(attempt, 5)
        )
        await asyncio.sleep(backoff_s * (0.75 + random.random() / 2))
        async with self._changed:
            self._offset_s, replayed = self._retained_media.replay_from(self._processed_s)
            self._pending = deque(replayed)
            self._pending_bytes = sum(map(len, replayed))
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------------------------- events

    def _publish_event(self, event: Event) -> None:
        match event:
            case Interrupted():
                self._publish_recovering(event.reason)
                return
            case Started():
                self._publish_recovered()
                if self._generation > 1:
                    return
            case Progress():
                self._publish_recovered()
                self._processed_s = max(self._processed_s, event.processed_s + self._offset_s)
                if self._retained_media is not None:
                    self._retained_media.discard_before(self._processed_s)
        message = protocol.event_to_message(event, self._offset_s)
        if message is not None and "speaker" in message:
            message["speaker"] = self._speakers.lookup(message["speaker"], self._generation)
        if message is not None:
            self.events.add(message)

    def _publish_segment(self, segment: Segment) -> None:
        if self._generation > 1 and self._is_duplicate(segment):
            return
        if segment.is_final:
            self._recent_finals = [
                known for known in self._recent_finals if known[1].end_s > segment.start_s - FINAL_HISTORY_S
            ]
            self._recent_finals.append((self._generation, segment))
        speaker = self._speakers.resolve(segment, self._generation)
        self.events.add(protocol.segment_to_message(segment, self._generation, speaker))

    def _is_duplicate(self, segment: Segment) -> bool:
        """Whether a previous server finished this segment: the next one starts before the unprocessed media."""
        if segment.end_s <= self._resume_point_s + OVERLAP_TOLERANCE_S:
            return True
        return any(
            generation < self._generation and _is_same_utterance(segment, known)
            for generation, known in self._recent_finals
        )

    def _publish_recovering(self, reason: str) -> None:
        self._resume_point_s = self._processed_s
        if not self._is_recovering:
            self._is_recovering = True
            self.events.add({"type": "recovering", "reason": reason})

    def _publish_recovered(self) -> None:
        if self._is_recovering:
            self._is_recovering = False
            self.events.add({"type": "recovered"})


def _is_same_utterance(segment: Segment, reference: Segment) -> bool:
    """Whether two segments are one utterance: they overlap, with the same speaker or text."""
    overlap_s = min(segment.end_s, reference.end_s) - max(segment.start_s, reference.start_s)
    shorter_s = min(segment.end_s - segment.start_s, reference.end_s - reference.start_s)
    is_alike = segment.speaker == reference.speaker or segment.text == reference.text
    return is_alike and overlap_s > shorter_s / 2
