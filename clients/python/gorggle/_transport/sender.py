"""Sends the media of one stream: numbers requests and replays unacknowledged ones when the stream is resumed.

A source that can be reopened (a file, bytes, an array) is read again. Of any other source, sent requests are retained, up
to a limit, until the server acknowledges them. Sources are read only as fast as requests are sent.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any

from gorggle._protobuf.encode import StreamRequest, encode_heartbeat
from gorggle.errors import DataLossError, InvalidSourceError
from gorggle.sources import AsyncMessages, Media, Messages

# How soon a thread that waits for a live source notices the end of its call.
POLL_INTERVAL_S = 1.0


class ReplayBuffer:
    """One source, and its sent requests that may have to be sent again.

    Attributes:
        bytes_sent: media bytes handed to gRPC, each counted once.
        source_error: the exception that reading the source raised.
    """

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        self.bytes_sent = 0
        self.source_error: Exception | None = None
        self._media, self._heartbeat_interval_s = media, heartbeat_interval_s
        self._replay_buffer_bytes = replay_buffer_bytes
        self._changed = threading.Condition()
        self._has_started = False
        self._retained: deque[StreamRequest] = deque()
        self._retained_bytes = 0
        self._last_sequence = 0
        self._last_counted = 0
        self._source_ended = False

    def acknowledge(self, sequence: int) -> None:
        """Drop requests up to this sequence number."""
        with self._changed:
            while self._retained and self._retained[0].sequence <= sequence:
                self._retained_bytes -= self._retained.popleft().ByteSize()

    def check_replayable(self, acknowledged: int) -> None:
        """Check that every request after ``acknowledged`` can be sent again.

        Raises:
            DataLossError: the buffer was too small for a source that cannot be read again.
        """
        if self._media.reopen is not None:
            return
        with self._changed:
            first_retained = self._retained[0].sequence if self._retained else self._last_sequence + 1
        if first_retained > acknowledged + 1:
            raise DataLossError(
                f"requests {acknowledged + 1} to {first_retained - 1} must be sent again but were dropped: use "
                f"replay_buffer_bytes above {self._replay_buffer_bytes}, or a source that can be reopened"
            )

    def _open_source(self) -> Messages | AsyncMessages:
        """Return the messages of a source that can be read again, from its start."""
        is_first, self._has_started = not self._has_started, True
        return self._media.messages if is_first or self._media.reopen is None else self._media.reopen()

    def _retain(self, message: StreamRequest) -> None:
        self._last_sequence += 1
        message.sequence = self._last_sequence
        self._retained.append(message)
        self._retained_bytes += message.ByteSize()
        # The newest request is about to be sent, so it always stays.
        while self._retained_bytes > self._replay_buffer_bytes and len(self._retained) > 1:
            self._retained_bytes -= self._retained.popleft().ByteSize()

    def _get_after(self, sequence: int) -> StreamRequest | None:
        """Return the request after a sequence number, if it was read."""
        if sequence >= self._last_sequence:
            return None
        return self._retained[sequence - self._last_sequence]

    def _count_bytes(self, message: StreamRequest) -> None:
        if message.sequence > self._last_counted:
            self._last_counted = message.sequence
            self.bytes_sent += len(message.media)


class SendTurn:
    """The time during which one call sends; it ends when the next call starts its own.

    Attributes:
        call: set once the call has started.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.call: Future[Any] = Future()

    def cancel(self) -> None:
        """Cancel the call after a source error, so that the receiving side wakes up and raises it."""
        self.call.result().cancel()


class MediaSender(ReplayBuffer):
    """Sends one source through successive calls; gRPC iterates over each call's requests in a separate thread.

    Holds no reference to the receiving object, so that a dropped one is garbage-collected.
    """

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        super().__init__(media, replay_buffer_bytes, heartbeat_interval_s)
        self._read_lock = threading.Lock()
        self._turn = SendTurn()
        self._read_requested = self._is_closed = False
        self._reader_thread: threading.Thread | None = None

    def close(self) -> None:
        """Stop sending; the source is closed once its current read returns."""
        with self._changed:
            self._is_closed = self._turn.is_over = True
            self._changed.notify_all()

    def start_turn(self) -> SendTurn:
        """Start the next call's turn and end the current one."""
        with self._changed:
            self._turn.is_over = True
            self._turn = SendTurn()
            self._changed.notify_all()
            return self._turn

    def requests(
        self, first_request: StreamRequest, acknowledged: int, turn: SendTurn
    ) -> Iterator[StreamRequest]:
        """Yield one call's requests: the configuration, then the media after ``acknowledged``."""
        yield first_request
        try:
            messages = (
                self._replay_source(acknowledged, turn)
                if self._media.reopen
                else self._stream_live(acknowledged, turn)
            )
            with contextlib.closing(messages):
                for message in messages:
                    self._count_bytes(message)
                    yield message
        except Exception as error:
            if not turn.is_over:
                self.source_error = error
                turn.cancel()

    # ------------------------------------------------------------------------------- sources that can be read again

    def _replay_source(self, acknowledged: int, turn: SendTurn) -> Generator[StreamRequest, None, None]:
        # The previous call may still be reading the same open file.
        with self._read_lock:
            messages = to_iterator(self._open_source())
        number = 0
        with contextlib.closing(messages):
            while True:
                with self._read_lock:
                    message = None if turn.is_over else next(messages, None)
                if message is None:
                    return
                number += 1
                if number > acknowledged:
                    message.sequence = number
                    yield message

    # -------------------------------------------------------------------------------------------------- live sources

    def _stream_live(self, acknowledged: int, turn: SendTurn) -> Generator[StreamRequest, None, None]:
        number = acknowledged
        while (message := self._next_message(number, turn)) is not None:
            number = max(number, message.sequence)
            yield message

    def _next_message(self, number: int, turn: SendTurn) -> StreamRequest | None:
        """Return the request after a sequence number, a heartbeat after an idle interval, or None at the end."""
        waited_s = 0.0
        with self._changed:
            while True:
                if turn.is_over:
                    return None
                if self.source_error is not None:
                    raise self.source_error
                message = self._get_after(number)
                if message is not None:
                    return message
                if self._source_ended:
                    return None
                if waited_s >= self._heartbeat_interval_s:
                    return encode_heartbeat()
                self._request_read()
                step_s = min(POLL_INTERVAL_S, self._heartbeat_interval_s - waited_s)
                if not self._changed.wait(step_s):
                    waited_s += step_s

    def _request_read(self) -> None:
        self._read_requested = True
        self._changed.notify_all()
        if self._reader_thread is None:
            self._reader_thread = threading.Thread(
                target=self._read_source, name="gorggle-source", daemon=True
            )
            self._reader_thread.start()

    def _read_source(self) -> None:
        """Read the source, one message per request."""
        try:
            messages = to_iterator(self._media.messages)
            with contextlib.closing(messages):
                while self._wait_for_read_request():
                    message = next(messages, None)
                    with self._changed:
                        if message is None:
                            self._source_ended = True
                        else:
                            self._retain(message)
                        self._changed.notify_all()
                    if message is None:
                        return
        except Exception as error:
            with self._changed:
                self.source_error = error
                self._changed.notify_all()

    def _wait_for_read_request(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._read_requested or self._is_closed)
            self._read_requested = False
            return not self._is_closed


def to_iterator(messages: Any) -> Messages:
    """Return messages that can be iterated synchronously.

    Raises:
        InvalidSourceError: the source is asynchronous.
    """
    if isinstance(messages, Generator):
        return messages
    raise InvalidSourceError("the source is asynchronous: use AsyncClient, or a synchronous iterable")
