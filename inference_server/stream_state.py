"""A stream at one moment: how far it is cut into utterances, who has spoken, and what was sent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelCheckpoint:
    """One curve of activity: how far it is cut.

    Attributes:
        person: whose mouth it is; None for the sound.
        settled_until: the frame to go on cutting from; everything before is settled.
        is_going_on: whether an utterance that was too long was cut there, so that speech goes on across it.
    """

    person: int | None
    settled_until: int
    is_going_on: bool = False


@dataclass(frozen=True)
class StreamCheckpoint:
    """A stream at one moment. Frames are counted from the start of the media, at 25 Hz.

    Attributes:
        final_until: every segment that begins before is final and sent.
        needed_from: nothing before will be looked at again, but for the lead.
        channels: the curves being cut; the sound's first, where there is sound.
        heard: begin and end of recent stretches of sound, which tell lips that nobody heard.
        people: the people who have spoken, in the order of their names.
        spoke_until: when somebody spoke last.
        segments: final segments sent.
        utterances: whether any utterance was found, with words or without.
    """

    final_until: int = 0
    needed_from: int = 0
    channels: tuple[ChannelCheckpoint, ...] = ()
    heard: tuple[tuple[int, int], ...] = ()
    people: tuple[int, ...] = ()
    spoke_until: int = 0
    segments: int = 0
    utterances: bool = False

    def moved(self, frames: int) -> StreamCheckpoint:
        """The same stream on a clock that starts ``frames`` later."""
        return dataclasses.replace(
            self,
            final_until=self.final_until - frames,
            needed_from=self.needed_from - frames,
            spoke_until=self.spoke_until - frames,
            channels=tuple(
                dataclasses.replace(channel, settled_until=channel.settled_until - frames)
                for channel in self.channels
            ),
            heard=tuple((start - frames, end - frames) for start, end in self.heard),
        )
