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
    def buffer(self) -> StreamBuffer:
        """What was seen and heard so far."""
        ...

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        ...

    @property
    def has_video(self) -> bool:
        """Whether there are pictures."""
        ...

    @property
    def tracks_faces(self) -> bool:
        """Whether it sees whole faces with their landmarks, or mouth crops alone."""
        ...

    @property
    def faces_in_view(self) -> int:
        """Faces in the latest picture."""
        ...

    @property
    def total_faces(self) -> int:
        """People seen so far."""
        ...

    def steps(self) -> Iterable[Iterable[Event]]:
        """Take in a little media at a time, add it to the scene, and yield what there is to say about it."""
        ...


class UtteranceSegmenter:
    """Cuts the sound and every face's movement as the scene grows.

    Args:
        pipeline: where the scene comes from.
        options: how to read.
        checkpoint: how far the stream was cut already, on the scene's clock.

    Attributes:
        sound: the sound's channel; stays empty where there is no sound, or none is read.
        heard: recent stretches of sound, to tell lips that nobody heard.
    """

    def __init__(
        self, pipeline: MediaPipeline, options: RecognitionOptions, checkpoint: StreamCheckpoint
    ) -> None:
        self._pipeline, self._buffer, self._modality = pipeline, pipeline.buffer, options.modality
        self.endpointing = EndpointingOptions.from_config(options.endpointing)
        self._lip_endpointing = (
            self.endpointing.for_lips() if pipeline.tracks_faces else self.endpointing.for_crops()
        )
        self._checkpoints = {channel.person: channel for channel in checkpoint.channels}
        sound_endpointing = self.endpointing.for_live_audio() if options.live else self.endpointing
        self.sound = ActivityChannel(sound_endpointing, resume_from=self._checkpoints.pop(None, None))
        self._audio_gate = AudioVadGate(self._buffer)
        self._faces: dict[int, ActivityChannel] = {}
        self.heard = [FrameSpan(*heard) for heard in checkpoint.recent_speech]

    @property
    def uses_audio(self) -> bool:
        """Whether sound is there and read."""
        return self._modality.uses_audio and self._pipeline.has_audio

    @property
    def channels(self) -> list[ActivityChannel]:
        """All curves there are, those that have ended included."""
        return [self.sound, *self._faces.values()]

    @property
    def active_channels(self) -> list[ActivityChannel]:
        """The curves still being cut."""
        channels = ([self.sound] if self.uses_audio else []) + list(self._faces.values())
        return [channel for channel in channels if not channel.closed]

    @property
    def available_end(self) -> int:
        """The frame up to which everything that is read is there."""
        known = []
        if self.uses_audio:
            known.append(self._buffer.audio_vad_end)
        if self._modality.uses_video and self._pipeline.has_video:
            # Of live media the last crops may still be cut more steadily: nobody waits for that.
            known.append(max(self._buffer.video_end, self._buffer.preview_video_end))
        return min(known, default=0)

    def advance(self, *, media_ended: bool) -> Iterator[tuple[ActivityChannel, list[EndedSpan]]]:
        """Take in what the scene has gained: of every curve, the stretches that have ended with it."""
        if self.uses_audio:
            cuts = self._process_audio(media_ended=media_ended)
            self.heard = [*self.heard, *(cut.span for cut in cuts)][-RECENT_AUDIO_SPANS:]
            yield self.sound, cuts
        if self._modality.uses_video:
            tracks = dict(self._buffer.tracks)
            for track in tracks.values():
                channel = self._get_channel(track)
                ended = media_ended or track.ended
                yield channel, channel.process(track.vad_end, track.get_speaking, ended=ended)
            self._faces = {number: channel for number, channel in self._faces.items() if number in tracks}

    def should_decode(self, channel: ActivityChannel, span: FrameSpan) -> bool:
        """Whether a stretch is to be read: of lips, where there is sound, only what nobody heard."""
        if channel is self.sound or not self.uses_audio or self._is_visual_only(span):
            return True
        # What has settled was promised.
        return any(
            utterance.text.stable_words
            for start, utterance in list(channel.open_utterances.items())
            if span.start <= start < span.end
        )

    def get_turns(self, channel: ActivityChannel, span: FrameSpan) -> list[SpeakerTurn]:
        """Who speaks in a stretch of a channel."""
        if channel is not self.sound:
            return [SpeakerTurn(span, channel.track)]
        tracks = list(self._buffer.tracks.values()) if self._modality.uses_video else []
        audio = self._buffer.get_audio_vad(span)
        agreement = (
            {track.track_id: audio_visual_correlation(track.get_speaking(span), audio) for track in tracks}
            if len(tracks) > 1
            else {}
        )
        return assign_turns(span, tracks, audio, agreement)

    def _process_audio(self, *, media_ended: bool) -> list[EndedSpan]:
        if not self._modality.uses_video or self.sound.closed:
            judged_until = self._buffer.audio_vad_end
            return self.sound.process(judged_until, self._buffer.get_audio_vad, ended=media_ended)
        known_until = self._audio_gate.get_available_end(media_ended=media_ended)
        return self.sound.process(known_until, self._audio_gate.get_activity, ended=media_ended)

    def _get_channel(self, track: FaceTrack) -> ActivityChannel:
        channel = self._faces.get(track.track_id)
        if channel is None:
            known = self._checkpoints.pop(track.person, None)
            channel = ActivityChannel(self._lip_endpointing, track.start, track, known)
            self._faces[track.track_id] = channel
        return channel

    def _is_visual_only(self, span: FrameSpan) -> bool:
        """Whether lips moved for a while and the sound had no speech to it."""
        going_on = self.sound.open_span
        speech = [*self.heard, going_on] if going_on is not None else self.heard
        recent_speech = sum(span.overlap(other) for other in speech)
        return span.frames >= MIN_VISUAL_ONLY_FRAMES and recent_speech < 0.2 * span.frames
