"""The media of one stream on its way to whichever server reads it: numbered, and kept until it is acknowledged.

A source that can be read again (a file, bytes, an array) is read again where a stream is resumed. Of any other one what
was sent is kept, up to a limit, until a server says that it will not be needed again. Nothing is read before its turn.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

from gorggle._protobuf.encode import StreamRequest, heartbeat_message
from gorggle.errors import DataLossError, InvalidSourceError
from gorggle.sources import Media, Messages

# How soon a thread that waits for a live source notices that nobody waits for it any more.
POLL_INTERVAL_S = 1.0


class ReplayBuffer:
    """What was sent and may be needed again.

    Attributes:
        bytes_sent: media bytes handed to gRPC, each counted once.
        failure: why the source could not be read to its end.
    """

    def __init__(self, replay_buffer_bytes: int) -> None:
        self.bytes_sent = 0
        self.failure: Exception | None = None
        self._replay_buffer_bytes = replay_buffer_bytes
        self._kept: deque[StreamRequest] = deque()
        self._kept_bytes = 0
        self._newest = 0
        self._counted = 0
        self._is_ended = False

    def acknowledge(self, sequence: int) -> None:
        """Requests up to this number are needed no more."""
        while self._kept and self._kept[0].sequence <= sequence:
            self._kept_bytes -= self._kept.popleft().ByteSize()

    def check(self, acknowledged: int) -> None:
        """Make sure that everything after a number is still there.

        Raises:
            DataLossError: more had to be kept than was allowed.
        """
        first_kept = self._kept[0].sequence if self._kept else self._newest + 1
        if first_kept > acknowledged + 1:
            raise DataLossError(
                f"requests {acknowledged + 1} to {first_kept - 1} would have to be sent again, and are no longer kept: "
                f"give replay_buffer_bytes above {self._replay_buffer_bytes}, or a source that can be read again"
            )

    def _keep(self, message: StreamRequest) -> None:
        self._newest += 1
        message.sequence = self._newest
        self._kept.append(message)
        self._kept_bytes += message.ByteSize()
        # What was just read is about to be sent: it stays in any case.
        while self._kept_bytes > self._replay_buffer_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popleft().ByteSize()

    def _kept_after(self, sequence: int) -> StreamRequest | None:
        """The request that follows a number, where it has been read."""
        if sequence >= self._newest:
            return None
        return self._kept[sequence - self._newest]

    def _count(self, message: StreamRequest) -> None:
        if message.sequence > self._counted:
            self._counted = message.sequence
            self.bytes_sent += len(message.media)


class SendTurn:
    """One call's turn to send: it ends when the next one's begins."""

    def __init__(self) -> None:
        self.is_over = False
        self._call: Any = None
        self._call_is_known = threading.Event()

    def cancelling(self, call: Any) -> None:
        """Say which call to cancel when the source fails."""
        self._call = call
        self._call_is_known.set()

    def cancel(self) -> None:
        """The source has failed: end the call, so that the receiving side wakes up and raises why."""
        self._call_is_known.wait()
        self._call.cancel()


class MediaSender(ReplayBuffer):
    """Sends one source through as many calls as it takes; gRPC takes the requests of each in a thread of its own.

    Holds nothing of the object that receives the answers, so that one which is dropped can end.
    """

    def __init__(self, media: Media, replay_buffer_bytes: int, heartbeat_interval_s: float) -> None:
        super().__init__(replay_buffer_bytes)
        self._media, self._heartbeat_interval_s = media, heartbeat_interval_s
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._sending = SendTurn()
        self._is_wanted = self._is_closed = False
        self._reader: threading.Thread | None = None
        self._has_begun = False

    def close(self) -> None:
        """Let go of the source, as soon as it does not read."""
        with self._changed:
            self._is_closed = self._sending.is_over = True
            self._changed.notify_all()

    def acknowledge(self, sequence: int) -> None:
        """Requests up to this number are needed no more."""
        with self._changed:
            super().acknowledge(sequence)

    def turn(self) -> SendTurn:
        """The next call's turn to send."""
        with self._changed:
            self._sending.is_over = True
            self._sending = SendTurn()
            self._changed.notify_all()
            return self._sending

    def check(self, acknowledged: int) -> None:
        """Make sure that everything after a number can be sent; see ``Backlog.check``."""
        if self._media.again is None:
            with self._changed:
                super().check(acknowledged)

    def requests(
        self, opening: StreamRequest, acknowledged: int, sending: SendTurn
    ) -> Iterator[StreamRequest]:
        """The configuration, then the media after a request: what one call sends."""
        yield opening
        try:
            messages = (
                self._read_again(acknowledged, sending)
                if self._media.again
                else self._read_on(acknowledged, sending)
            )
            with contextlib.closing(messages):
                for message in messages:
                    self._count(message)
                    yield message
        except Exception as error:
            if not sending.is_over:
                self.failure = error
                sending.cancel()

    # ------------------------------------------------------------------------------- sources that can be read again

    def _read_again(self, acknowledged: int, sending: SendTurn) -> Generator[StreamRequest, None, None]:
        # A file that was given open is shared with the call before: one reads at a time.
        with self._reading:
            messages = to_iterator(
                self._media.again() if self._has_begun and self._media.again else self._media.messages
            )
            self._has_begun = True
        number = 0
        with contextlib.closing(messages):
            while True:
                with self._reading:
                    message = None if sending.is_over else next(messages, None)
                if message is None:
                    return
                number += 1
                if number > acknowledged:
                    message.sequence = number
                    yield message

    # -------------------------------------------------------------------------------------------------- live sources

    def _read_on(self, acknowledged: int, sending: SendTurn) -> Generator[StreamRequest, None, None]:
        number = acknowledged
        while (message := self._following(number, sending)) is not None:
            number = max(number, message.sequence)
            yield message

    def _following(self, number: int, sending: SendTurn) -> StreamRequest | None:
        """The request after a number, or a heartbeat where none comes for a while; None at the end."""
        waited_s = 0.0
        with self._changed:
            while True:
                if sending.is_over:
                    return None
                if self.failure is not None:
                    raise self.failure
                message = self._kept_after(number)
                if message is not None:
                    return message
                if self._is_ended:
                    return None
                if waited_s >= self._heartbeat_interval_s:
                    return heartbeat_message()
                self._want()
                step_s = min(POLL_INTERVAL_S, self._heartbeat_interval_s - waited_s)
                if not self._changed.wait(step_s):
                    waited_s += step_s

    def _want(self) -> None:
        self._is_wanted = True
        self._changed.notify_all()
        if self._reader is None:
            self._reader = threading.Thread(target=self._read, name="gorggle-source", daemon=True)
            self._reader.start()

    def _read(self) -> None:
        """Read the source, one message at a time, each when it is wanted."""
        try:
            messages = to_iterator(self._media.messages)
            with contextlib.closing(messages):
                while self._is_to_read():
                    message = next(messages, None)
                    with self._changed:
                        if message is None:
                            self._is_ended = True
                        else:
                            self._keep(message)
                        self._changed.notify_all()
                    if message is None:
                        return
        except Exception as error:
            with self._changed:
                self.failure = error
                self._changed.notify_all()

    def _is_to_read(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_wanted or self._is_closed)
            self._is_wanted = False
            return not self._is_closed


def to_iterator(messages: Any) -> Messages:
    """Messages that an ordinary program can read.

    Raises:
        InvalidSourceError: they are asynchronous.
    """
    if isinstance(messages, Generator):
        return messages
    raise InvalidSourceError("the source is asynchronous: use AsyncClient, or give an ordinary iterable")
