"""The curves of activity of one stream, the sound's and each face's: where utterances end, and who speaks in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from gorggle_server.stream_state import StreamCheckpoint
from gorggle_server.streaming.active_speaker import SpeakerTurn, assign_turns
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan
from gorggle_server.streaming.endpointing import EndpointingOptions, FrameSpan
from gorggle_server.streaming.noise_gate import AudioVadGate
from gorggle_server.streaming.stream_buffer import FaceTrack, StreamBuffer
from gorggle_server.types import Event, RecognitionOptions
from gorggle_server.vision.lip_activity import audio_visual_correlation

# Lips that move for so long without any speech in the sound are read all the same: noise may hide the voice.
MIN_VISUAL_ONLY_FRAMES = 20
# Stretches of sound that are remembered, to tell lips that nobody heard.
RECENT_AUDIO_SPANS = 20


class MediaPipeline(Protocol):
    """Turns media into a scene, a little at a time."""

    @property
    def scene(self) -> StreamBuffer:
        """What was seen and heard so far."""
        ...

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        ...

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures."""
        ...

    @property
    def sees_faces(self) -> bool:
        """Whether it sees whole faces with their landmarks, or mouth crops alone."""
        ...

    @property
    def faces_now(self) -> int:
        """Faces in the latest picture."""
        ...

    @property
    def faces_seen(self) -> int:
        """People seen so far."""
        ...

    def steps(self) -> Iterable[Iterable[Event]]:
        """Take in a little media at a time, add it to the scene, and yield what there is to say about it."""
        ...


class UtteranceSegmenter:
    """Cuts the sound and every face's movement as the scene grows.

    Args:
        perception: where the scene comes from.
        options: how to read.
        before: how far the stream was cut already, on the scene's clock.

    Attributes:
        sound: the sound's channel; stays empty where there is no sound, or none is read.
        heard: recent stretches of sound, to tell lips that nobody heard.
    """

    def __init__(
        self, perception: MediaPipeline, options: RecognitionOptions, before: StreamCheckpoint
    ) -> None:
        self._perception, self._scene, self._modality = perception, perception.scene, options.modality
        self.endpointing = EndpointingOptions.from_seconds(options.endpointing)
        self._lip_endpointing = (
            self.endpointing.for_lips() if perception.sees_faces else self.endpointing.for_crops()
        )
        self._states = {channel.person: channel for channel in before.channels}
        sound_endpointing = self.endpointing.for_live_sound() if options.live else self.endpointing
        self.sound = ActivityChannel(sound_endpointing, resumed=self._states.pop(None, None))
        self._listening = AudioVadGate(self._scene)
        self._faces: dict[int, ActivityChannel] = {}
        self.heard = [FrameSpan(*heard) for heard in before.heard]

    @property
    def uses_sound(self) -> bool:
        """Whether sound is there and read."""
        return self._modality.hears and self._perception.has_sound

    @property
    def channels(self) -> list[ActivityChannel]:
        """All curves there are, those that have ended included."""
        return [self.sound, *self._faces.values()]

    @property
    def active_channels(self) -> list[ActivityChannel]:
        """The curves still being cut."""
        channels = ([self.sound] if self.uses_sound else []) + list(self._faces.values())
        return [channel for channel in channels if not channel.closed]

    @property
    def known_until(self) -> int:
        """The frame up to which everything that is read is there."""
        known = []
        if self.uses_sound:
            known.append(self._scene.sound_judged_until)
        if self._modality.sees and self._perception.has_pictures:
            # Of live media the last crops may still be cut more steadily: nobody waits for that.
            known.append(max(self._scene.seen_until, self._scene.glimpsed_until))
        return min(known, default=0)

    def advance(self, *, media_ended: bool) -> Iterator[tuple[ActivityChannel, list[EndedSpan]]]:
        """Take in what the scene has gained: of every curve, the stretches that have ended with it."""
        if self.uses_sound:
            cuts = self._follow_sound(media_ended=media_ended)
            self.heard = [*self.heard, *(cut.stretch for cut in cuts)][-RECENT_AUDIO_SPANS:]
            yield self.sound, cuts
        if self._modality.sees:
            tracks = dict(self._scene.tracks)
            for track in tracks.values():
                channel = self._channel_of(track)
                ended = media_ended or track.ended
                yield channel, channel.process(track.vad_until, track.speaking_in, ended=ended)
            self._faces = {number: channel for number, channel in self._faces.items() if number in tracks}

    def should_decode(self, channel: ActivityChannel, stretch: FrameSpan) -> bool:
        """Whether a stretch is to be read: of lips, where there is sound, only what nobody heard."""
        if channel is self.sound or not self.uses_sound or self._was_unheard(stretch):
            return True
        # What has settled was promised.
        return any(
            utterance.text.stable_words
            for start, utterance in list(channel.open.items())
            if stretch.start <= start < stretch.end
        )

    def turns(self, channel: ActivityChannel, stretch: FrameSpan) -> list[SpeakerTurn]:
        """Who speaks in a stretch of a channel."""
        if channel is not self.sound:
            return [SpeakerTurn(stretch, channel.track)]
        tracks = list(self._scene.tracks.values()) if self._modality.sees else []
        sound = self._scene.sound_speaking_in(stretch)
        agreement = (
            {track.track_id: audio_visual_correlation(track.speaking_in(stretch), sound) for track in tracks}
            if len(tracks) > 1
            else {}
        )
        return assign_turns(stretch, tracks, sound, agreement)

    def _follow_sound(self, *, media_ended: bool) -> list[EndedSpan]:
        if not self._modality.sees or self.sound.closed:
            judged_until = self._scene.sound_judged_until
            return self.sound.process(judged_until, self._scene.sound_speaking_in, ended=media_ended)
        known_until = self._listening.known_until(media_ended=media_ended)
        return self.sound.process(known_until, self._listening.activity_in, ended=media_ended)

    def _channel_of(self, track: FaceTrack) -> ActivityChannel:
        channel = self._faces.get(track.track_id)
        if channel is None:
            known = self._states.pop(track.person, None)
            channel = ActivityChannel(self._lip_endpointing, track.start, track, known)
            self._faces[track.track_id] = channel
        return channel

    def _was_unheard(self, stretch: FrameSpan) -> bool:
        """Whether lips moved for a while and the sound had no speech to it."""
        going_on = self.sound.open_stretch
        speech = [*self.heard, going_on] if going_on is not None else self.heard
        heard = sum(stretch.overlap(other) for other in speech)
        return stretch.frames >= MIN_VISUAL_ONLY_FRAMES and heard < 0.2 * stretch.frames
