"""A stream at one moment: how far it is cut into utterances, who has spoken, and what was sent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelCheckpoint:
    """One curve of activity: how far it is cut.

    Attributes:
        person: whose mouth it is; None for the sound.
        committed_end: the frame to go on cutting from; everything before is settled.
        continues_previous: whether an utterance that was too long was cut there, so that speech goes on across it.
    """

    person: int | None
    committed_end: int
    continues_previous: bool = False


@dataclass(frozen=True)
class StreamCheckpoint:
    """A stream at one moment. Frames are counted from the start of the media, at 25 Hz.

    Attributes:
        final_end: every segment that begins before is final and sent.
        needed_start: nothing before will be looked at again, but for the lead.
        channels: the curves being cut; the sound's first, where there is sound.
        recent_speech: begin and end of recent stretches of sound, which tell lips that nobody heard.
        speakers: the people who have spoken, in the order of their names.
        last_speech_end: when somebody spoke last.
        segment_count: final segments sent.
        has_utterances: whether any utterance was found, with words or without.
    """

    final_end: int = 0
    needed_start: int = 0
    channels: tuple[ChannelCheckpoint, ...] = ()
    recent_speech: tuple[tuple[int, int], ...] = ()
    speakers: tuple[int, ...] = ()
    last_speech_end: int = 0
    segment_count: int = 0
    has_utterances: bool = False

    def shift(self, frames: int) -> StreamCheckpoint:
        """The same stream on a clock that starts ``frames`` later."""
        return dataclasses.replace(
            self,
            final_end=self.final_end - frames,
            needed_start=self.needed_start - frames,
            last_speech_end=self.last_speech_end - frames,
            channels=tuple(
                dataclasses.replace(channel, committed_end=channel.committed_end - frames)
                for channel in self.channels
            ),
            recent_speech=tuple((start - frames, end - frames) for start, end in self.recent_speech),
        )
