"""Utterance segmentation: endpointing of the audio and of every face, and assignment of speakers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gorggle_server.events import StreamCheckpoint
from gorggle_server.media.speech_detector import SPEECH_THRESHOLD
from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.streaming.active_speaker import SpeakerTurn, assign_turns
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan
from gorggle_server.streaming.endpointing import EndpointingOptions, FrameSpan
from gorggle_server.streaming.media_pipeline import MediaPipeline
from gorggle_server.streaming.noise_gate import SPEAKING_THRESHOLD, AudioVadGate
from gorggle_server.streaming.stream_buffer import FaceTrack
from gorggle_server.vision.lip_activity import audio_visual_correlation

# Minimum duration of lip movement without speech in the audio that is decoded anyway: noise may mask the voice.
MIN_VISUAL_ONLY_FRAMES = 20
# Recent spans of speech in the audio that are kept, to detect visual-only speech.
RECENT_AUDIO_SPANS = 20


class UtteranceSegmenter:
    """Segments audio activity and the movement of every face as the buffer grows.

    Args:
        checkpoint: how far the stream was segmented before, on the buffer's clock.

    Attributes:
        audio: the audio's channel; stays empty if audio is absent or not used.
        recent_speech: recent spans of speech in the audio, to detect visual-only speech.
    """

    def __init__(
        self, pipeline: MediaPipeline, options: RecognitionOptions, checkpoint: StreamCheckpoint
    ) -> None:
        self._pipeline, self._buffer, self._modality = pipeline, pipeline.buffer, options.modality
        self._uses_lips = options.model_input.uses_lips
        self.endpointing = EndpointingOptions.from_config(options.endpointing)
        self._lip_endpointing = (
            self.endpointing.for_lips() if pipeline.tracks_faces else self.endpointing.for_crops()
        )
        self._checkpoints = {channel.person: channel for channel in checkpoint.channels}
        audio_endpointing = self.endpointing.for_live_audio() if options.live else self.endpointing
        self.audio = ActivityChannel(audio_endpointing, resume_from=self._checkpoints.pop(None, None))
        self._audio_gate = AudioVadGate(self._buffer)
        self._faces: dict[int, ActivityChannel] = {}
        self.recent_speech = [FrameSpan(*speech) for speech in checkpoint.recent_speech]

    @property
    def uses_audio(self) -> bool:
        """Whether audio is present and used."""
        return self._modality.uses_audio and self._pipeline.has_audio

    @property
    def channels(self) -> list[ActivityChannel]:
        """All channels, those that have ended included."""
        return [self.audio, *self._faces.values()]

    @property
    def active_channels(self) -> list[ActivityChannel]:
        """Channels that have not ended."""
        channels = ([self.audio] if self.uses_audio else []) + list(self._faces.values())
        return [channel for channel in channels if not channel.closed]

    @property
    def available_end(self) -> int:
        """Frame up to which all used modalities are available."""
        ends = []
        if self.uses_audio:
            ends.append(self._buffer.audio_vad_end)
        if self._modality.uses_video and self._pipeline.has_video:
            # Live streams do not wait until preview crops are replaced by final ones.
            ends.append(max(self._buffer.video_end, self._buffer.preview_video_end))
        return min(ends, default=0)

    def advance(self, *, media_ended: bool) -> Iterator[tuple[ActivityChannel, list[EndedSpan]]]:
        """Process new data in the buffer: for each channel, yield the spans that have ended."""
        if self.uses_audio:
            cuts = self._process_audio(media_ended=media_ended)
            self.recent_speech = [*self.recent_speech, *(cut.span for cut in cuts)][-RECENT_AUDIO_SPANS:]
            yield self.audio, cuts
        if self._modality.uses_video:
            tracks = dict(self._buffer.tracks)
            for track in tracks.values():
                channel = self._get_channel(track)
                ended = media_ended or track.ended
                yield channel, channel.process(track.vad_end, track.get_speaking, ended=ended)
            self._faces = {number: channel for number, channel in self._faces.items() if number in tracks}

    def should_decode(self, channel: ActivityChannel, span: FrameSpan) -> bool:
        """Return whether to decode a span.

        Music and noise are not decoded: the audio must contain a voice, or the model reads lips and lips move. Of a face, where
        audio is used, only visual-only speech is decoded.
        """
        if channel is self.audio:
            is_speech = self.contains_voice(span) or (self._uses_lips and self._contains_lip_movement(span))
        elif not self.uses_audio:
            is_speech = True
        else:
            is_speech = self._is_visual_only(span) and (self._uses_lips or self.contains_voice(span))
        if is_speech:
            return True
        # Stable words were promised to the client.
        return any(
            utterance.text.stable_words
            for start, utterance in list(channel.open_utterances.items())
            if span.start <= start < span.end
        )

    def contains_voice(self, span: FrameSpan) -> bool:
        """Return whether the speech detector finds a voice in the audio of a span."""
        return bool(self._buffer.get_speech(span).max(initial=0.0) >= SPEECH_THRESHOLD)

    def _contains_lip_movement(self, span: FrameSpan) -> bool:
        if not self._modality.uses_video:
            return False
        tracks = self._buffer.tracks.values()
        moving = [int(np.count_nonzero(track.get_speaking(span) >= SPEAKING_THRESHOLD)) for track in tracks]
        return any(frames >= self.endpointing.min_speech_frames for frames in moving)

    def get_turns(self, channel: ActivityChannel, span: FrameSpan) -> list[SpeakerTurn]:
        """Return who speaks in a span of a channel."""
        if channel is not self.audio:
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
        if not self._modality.uses_video or self.audio.closed:
            return self.audio.process(
                self._buffer.audio_vad_end, self._buffer.get_audio_vad, ended=media_ended
            )
        available_end = self._audio_gate.get_available_end(media_ended=media_ended)
        return self.audio.process(available_end, self._audio_gate.get_activity, ended=media_ended)

    def _get_channel(self, track: FaceTrack) -> ActivityChannel:
        channel = self._faces.get(track.track_id)
        if channel is None:
            checkpoint = self._checkpoints.pop(track.person, None)
            channel = ActivityChannel(self._lip_endpointing, track.start, track, checkpoint)
            self._faces[track.track_id] = channel
        return channel

    def _is_visual_only(self, span: FrameSpan) -> bool:
        """Return whether the lips moved for a while and the audio has no speech there."""
        open_span = self.audio.endpointer.open_span
        speech = [*self.recent_speech, open_span] if open_span is not None else self.recent_speech
        recent_speech = sum(span.overlap(other) for other in speech)
        return span.frames >= MIN_VISUAL_ONLY_FRAMES and recent_speech < 0.2 * span.frames
