"""Checkpoints and resume tokens: the state needed to continue a stream after an interruption.

A container cannot be decoded from its middle: it is sent and decoded again from the start, and segments that are already
final are not recognized again (``StreamCheckpoint.final_end``). Mouth crops and audio continue from the last
unacknowledged request: ``REPLAY_MARGIN_FRAMES`` before the first frame still needed. That is longer than the memory of
every filter, so the activity signals are the same, and each signal is segmented from where it was committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from gorggle_server.errors import InvalidRequestError
from gorggle_server.events import StreamCheckpoint
from gorggle_server.input_format import SAMPLE_RATE_HZ

# The longest memories are the noise gate's audio levels and lip activity, 5 s each (``noise_gate``), preceded by the
# background noise estimate, 2.5 s (``media.vad``).
REPLAY_MARGIN_FRAMES = 200

MAX_TOKEN_BYTES = 64 * 1024
# Samples in a year: larger numbers are forged.
_MAX_COUNT = 366 * 24 * 3600 * SAMPLE_RATE_HZ


@dataclass(frozen=True)
class ResumeToken:
    """Position at which a stream is resumed.

    Attributes:
        checkpoint: the stream at that moment.
        sequence: the last request that need not be sent again; 0: send the media from its start.
        samples: audio samples in the requests up to that one.
    """

    checkpoint: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    sequence: int = 0
    samples: int = 0

    def encode(self) -> bytes:
        """Serialize the token; clients treat it as opaque."""
        return _MESSAGE.dump_json(_Message(1, self))

    @classmethod
    def decode(cls, token: bytes) -> ResumeToken:
        """Parse a token; an empty one is the start.

        Raises:
            InvalidRequestError: this server did not issue it.
        """
        if not token:
            return cls()
        if len(token) > MAX_TOKEN_BYTES:
            raise _create_error(f"has {len(token)} bytes; the limit is {MAX_TOKEN_BYTES}")
        try:
            decoded = _MESSAGE.validate_json(token, strict=True).token
        except ValidationError:
            raise _create_error("cannot be parsed, or was issued by another version of the server") from None
        if not all(0 <= number <= _MAX_COUNT for number in _iterate_numbers(astuple(decoded))):
            raise _create_error("holds a number out of range")
        return decoded


@dataclass(frozen=True)
class _Message:
    version: Literal[1]
    token: ResumeToken


_MESSAGE = TypeAdapter(_Message)


def _iterate_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, tuple):
        for item in value:
            yield from _iterate_numbers(item)
    elif value is not None:
        yield value


def _create_error(problem: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the resume token {problem}: send the last token received, or none and the media from its start"
    )
