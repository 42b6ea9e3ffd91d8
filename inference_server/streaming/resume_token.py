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
# the background noise, 2.5 s (``media.vad``).
REPLAY_MARGIN_FRAMES = 200

VERSION = 1
MAX_TOKEN_BYTES = 64 * 1024
# Frames of a year, and samples of it: beyond them a number is forged.
_MAX_COUNT = 366 * 24 * 3600 * 16_000


@dataclass(frozen=True)
class ResumeToken:
    """Where a stream is taken up.

    Attributes:
        checkpoint: the stream at that moment.
        sequence: the last request that need not be sent again; 0: the media comes from its start.
        samples: sound that was in the requests up to there.
    """

    checkpoint: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    sequence: int = 0
    samples: int = 0

    def encode(self) -> bytes:
        """Write the point for the client to keep."""
        state = self.checkpoint
        content = {
            "version": VERSION,
            "sequence": self.sequence,
            "samples": self.samples,
            "final_until": state.final_end,
            "needed_from": state.needed_start,
            "channels": [
                [
                    -1 if channel.person is None else channel.person,
                    channel.committed_end,
                    int(channel.continues_previous),
                ]
                for channel in state.channels
            ],
            "heard": state.recent_speech,
            "people": state.speakers,
            "spoke_until": state.last_speech_end,
            "segments": state.segment_count,
            "utterances": int(state.has_utterances),
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
            raise _create_error(f"has {len(token)} bytes")
        try:
            content = json.loads(token)
            if content["version"] != VERSION:
                raise _create_error("was written by another version of the server")
            return _parse_token(content)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _create_error("cannot be read") from None


def _parse_token(content: Any) -> ResumeToken:
    channels = tuple(
        ChannelCheckpoint(
            None if person == -1 else _parse_count(person),
            _parse_count(settled_until),
            bool(_parse_count(is_going_on)),
        )
        for person, settled_until, is_going_on in content["channels"]
    )
    state = StreamCheckpoint(
        final_end=_parse_count(content["final_until"]),
        needed_start=_parse_count(content["needed_from"]),
        channels=channels,
        recent_speech=tuple((_parse_count(start), _parse_count(end)) for start, end in content["heard"]),
        speakers=tuple(_parse_count(person) for person in content["people"]),
        last_speech_end=_parse_count(content["spoke_until"]),
        segment_count=_parse_count(content["segments"]),
        has_utterances=bool(_parse_count(content["utterances"])),
    )
    return ResumeToken(state, _parse_count(content["sequence"]), _parse_count(content["samples"]))


def _parse_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(value)
    return int(value)


def _create_error(problem: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the resume token {problem}: give the last one that came, or none and the media from its start"
    )
