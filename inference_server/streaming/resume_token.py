"""Where a stream can be taken up again: all that a server must know of the media before a point, to go on from there.

A container cannot be read from the middle: it is sent again from its start, perceived again, and what is final already
is not read again (``StreamCheckpoint.final_until``). Crops and sound go on from the last request that was not acknowledged:
``REPLAY_MARGIN_FRAMES`` before anything that is still wanted, which is longer than the memory of everything that judges them, so
that the curves of activity are the same; and each curve is cut on from where it had settled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from gorggle_server.errors import InvalidRequestError
from gorggle_server.stream_state import ChannelCheckpoint, StreamCheckpoint

# The longest memories are the sound's levels and the lips' last movement, 5 s each (``listening``), and before these
# the background noise, 2.5 s (``media.audio``).
REPLAY_MARGIN_FRAMES = 200

VERSION = 1
MAX_TOKEN_BYTES = 64 * 1024
# Frames of a year, and samples of it: beyond them a number is forged.
_MOST = 366 * 24 * 3600 * 16_000


@dataclass(frozen=True)
class ResumeToken:
    """Where a stream is taken up.

    Attributes:
        state: the stream at that moment.
        sequence: the last request that need not be sent again; 0: the media comes from its start.
        samples: sound that was in the requests up to there.
    """

    state: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    sequence: int = 0
    samples: int = 0

    def encode(self) -> bytes:
        """Write the point for the client to keep."""
        state = self.state
        content = {
            "version": VERSION,
            "sequence": self.sequence,
            "samples": self.samples,
            "final_until": state.final_until,
            "needed_from": state.needed_from,
            "channels": [
                [
                    -1 if channel.person is None else channel.person,
                    channel.settled_until,
                    int(channel.is_going_on),
                ]
                for channel in state.channels
            ],
            "heard": state.heard,
            "people": state.people,
            "spoke_until": state.spoke_until,
            "segments": state.segments,
            "utterances": int(state.utterances),
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, token: bytes) -> ResumeToken:
        """Read a token; an empty one is the start.

        Raises:
            InvalidRequestError: it is none of ours.
        """
        if not token:
            return cls()
        if len(token) > MAX_TOKEN_BYTES:
            raise _no_token(f"has {len(token)} bytes")
        try:
            content = json.loads(token)
            if content["version"] != VERSION:
                raise _no_token("was written by another version of the server")
            return _point_of(content)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _no_token("cannot be read") from None


def _point_of(content: Any) -> ResumeToken:
    channels = tuple(
        ChannelCheckpoint(
            None if person == -1 else _count(person), _count(settled_until), bool(_count(is_going_on))
        )
        for person, settled_until, is_going_on in content["channels"]
    )
    state = StreamCheckpoint(
        final_until=_count(content["final_until"]),
        needed_from=_count(content["needed_from"]),
        channels=channels,
        heard=tuple((_count(start), _count(end)) for start, end in content["heard"]),
        people=tuple(_count(person) for person in content["people"]),
        spoke_until=_count(content["spoke_until"]),
        segments=_count(content["segments"]),
        utterances=bool(_count(content["utterances"])),
    )
    return ResumeToken(state, _count(content["sequence"]), _count(content["samples"]))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ValueError(value)
    return int(value)


def _no_token(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the resume token {what}: give the last one that came, or none and the media from its start"
    )
