"""Recognition session: one stream from media to segments.

A session runs on its own thread. It segments the buffer into utterances, has them decoded and emits the results. Media
processing continues while earlier utterances are decoded; segments are emitted in the order in which their utterances ended.
Segment ids are derived from the first frame and the person, so another server that processes the same media assigns the same.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.errors import NoFaceError
from gorggle_server.events import (
    Activity,
    ActivityKind,
    ChannelCheckpoint,
    Event,
    Finished,
    Progress,
    StreamCheckpoint,
    StreamWarning,
    WarningKind,
)
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.input_format import FRAME_RATE_HZ, MIN_FACE_WIDTH_PX, frames_to_seconds
from gorggle_server.recognition_options import AudioInput, Modality, RecognitionOptions
from gorggle_server.streaming.active_speaker import SpeakerTurn
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.final_results import FinalDecoder, FinishedUtterance
from gorggle_server.streaming.interim_results import InterimDecoder, PartialTranscript
from gorggle_server.streaming.media_pipeline import MediaPipeline
from gorggle_server.streaming.segment_builder import find_earliest
from gorggle_server.streaming.segmenter import UtteranceSegmenter
from gorggle_server.streaming.stream_buffer import FaceTrack

_log = logging.getLogger(__name__)

PROGRESS_INTERVAL_FRAMES = FRAME_RATE_HZ
# Audio below this RMS level (of 32 768) counts as silent: −60 dBFS.
SILENCE_RMS = 33.0


@dataclass(frozen=True)
class ResumeState:
    """Where to continue a session that another server began.

    Attributes:
        checkpoint: the stream at that moment, on the media's clock.
        first_frame: the media's frame at which the buffer's clock starts.
        partial_transcripts: interim results sent for open utterances, by segment id.
    """

    checkpoint: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    first_frame: int = 0
    partial_transcripts: Mapping[str, PartialTranscript] = field(default_factory=dict)


class RecognitionSession:
    """Recognizes one stream."""

    def __init__(
        self,
        pipeline: MediaPipeline,
        options: RecognitionOptions,
        submit: SubmitFunction,
        emit: Callable[[Event], None],
        wait_for_capacity: Callable[[], None] = lambda: None,
        resume_state: ResumeState | None = None,
    ) -> None:
        """Prepare the session.

        ``emit`` receives the events; it is called from this thread and from the scheduler's, never concurrently.
        ``wait_for_capacity`` blocks while the reader of the events lags. ``resume_state`` describes the earlier part of the
        stream on another server.
        """
        resume_state = resume_state or ResumeState()
        self._pipeline, self._buffer = pipeline, pipeline.buffer
        self._options = options
        self._wait_for_capacity = wait_for_capacity
        # Word timestamps decide which words are stable, whether or not the caller requested them.
        word_times = options.word_timestamps or options.interim_results
        self._decoding_options = DecodingOptions(
            options.beam_size, options.length_penalty, options.max_alternatives, word_times, options.languages
        )
        self._first_frame = resume_state.first_frame
        before = resume_state.checkpoint.shift(self._first_frame)
        self._segmenter = UtteranceSegmenter(pipeline, options, before)
        self._ended_spans: list[
            tuple[ActivityChannel, EndedSpan]
        ] = []  # ended, but their video is not complete yet
        self._emitter = EventEmitter(emit, before.speakers)
        self._has_found_speech = before.has_utterances
        self._resumed_end = self._final_end = before.final_end
        self._last_speech_end = before.last_speech_end
        self._snapshot: tuple[dict[ActivityChannel, ChannelCheckpoint], int] = ({}, 0)
        self._next_progress = PROGRESS_INTERVAL_FRAMES
        self._stopped = self._has_warned_of_lips = False
        self._has_warned_of_vocabulary = before.has_utterances
        self._final_decoder = FinalDecoder(
            options, submit, self._decoding_options, self._emitter, self._first_frame, before.segment_count
        )
        self._interim_decoder = InterimDecoder(
            options,
            submit,
            self._create_input,
            self._emitter,
            self._first_frame,
            resume_state.partial_transcripts,
        )

    def run(self) -> None:
        """Process the media to its end; the last event emitted is ``Finished``.

        Raises:
            GorggleError: the media cannot be decoded, or has no face in video-only mode.
        """
        steps = self._pipeline.steps()
        try:
            for events in steps:
                for event in events:
                    self._emitter.emit(event)
                self._advance(media_ended=False)
                self._report_progress()
                self._wait_for_capacity()
                if self._stopped:
                    return
                if self._check_silence_timeout():
                    break
            self._advance(media_ended=True)
            self._report_missing_input()
            self._final_decoder.wait()
            self._emitter.emit(
                Finished(
                    self._to_media_s(self._get_received_end()),
                    self._final_decoder.segment_count,
                    self._pipeline.total_faces,
                )
            )
        finally:
            steps.close()
            self._cancel_pending()

    def stop(self) -> None:
        """Cancel the session: the caller has disconnected. ``run`` returns after the current step."""
        self._stopped = True
        self._cancel_pending()

    def _advance(self, *, media_ended: bool) -> None:
        """Segment new media and submit the utterances that have ended."""
        for channel, cuts in self._segmenter.advance(media_ended=media_ended):
            for cut in cuts:
                self._report_activity(channel, cut.span)
                self._ended_spans.append((channel, cut))
            if not cuts:
                self._report_activity(channel, None)
        self._submit_ended_spans(media_ended=media_ended)
        self._warn_of_unused_lips()
        if not media_ended:
            self._decode_open_utterances()
        self._snapshot_state()
        self._buffer.discard_before(self._get_needed_start())

    def _submit_ended_spans(self, *, media_ended: bool) -> None:
        """Submit the ended spans whose video and audio are complete."""
        still_waiting = []
        # Waiting a little makes speaker assignment more reliable; live streams cannot wait.
        delay_frames = 0 if self._options.live else self._segmenter.endpointing.margin_frames
        for channel, cut in self._ended_spans:
            if not media_ended and self._segmenter.available_end < cut.span.end + delay_frames:
                still_waiting.append((channel, cut))
                continue
            if self._segmenter.should_decode(channel, cut.span):
                for turn in self._segmenter.get_turns(channel, cut.span):
                    self._submit(channel, cut, turn)
            self._interim_decoder.retract_before(channel, cut.span.end)
        self._ended_spans = still_waiting

    def _warn_of_unused_lips(self) -> None:
        """Report once that video was requested, and sent, to a model that does not read lips."""
        if self._has_warned_of_lips or self._options.modality is not Modality.AUDIO_VISUAL:
            return
        if self._options.model_input.uses_lips or not self._buffer.video_end:
            return
        self._has_warned_of_lips = True
        self._emitter.emit(
            StreamWarning(
                WarningKind.LIPS_NOT_USED,
                f"the model {self._options.model} does not read lips: words come from audio, faces only tell who speaks",
            )
        )

    def _warn_of_closed_vocabulary(self) -> None:
        """Report once that words may be wrong because only a model with a closed vocabulary recognizes them."""
        if self._has_warned_of_vocabulary or self._options.has_open_vocabulary:
            return
        self._has_warned_of_vocabulary = True
        others = ", ".join(self._options.open_vocabulary_models)
        reads_lips_only = self._options.modality is Modality.VIDEO_ONLY
        kind = "models that read any words from lips" if reads_lips_only else "models for any words"
        self._emitter.emit(
            StreamWarning(
                WarningKind.CLOSED_VOCABULARY,
                f"the model {self._options.model} recognizes only the words that it was trained on: other speech gives wrong "
                f"words; {kind}: {others or 'none on this server'}",
            )
        )

    def _get_received_end(self) -> int:
        return max(self._buffer.video_end, self._buffer.audio_end)

    def _get_needed_start(self) -> int:
        """Return the frame before which nothing is needed any more."""
        # Lips may begin to move before speech in audio that has not arrived yet: keep another half margin.
        slack = 2 * self._segmenter.endpointing.margin_frames
        needed = [cut.span.start for _, cut in self._ended_spans]
        needed += [channel.endpointer.committed_end - slack for channel in self._segmenter.active_channels]
        return find_earliest(needed, self._segmenter.available_end)

    def _check_silence_timeout(self) -> bool:
        """Return whether the silence timeout has expired; emit a warning if so."""
        limit_s = self._options.silence_timeout_s
        if not limit_s or self._ended_spans or self._final_decoder.pending:
            return False
        has_open_span = [
            channel.endpointer.open_span is not None for channel in self._segmenter.active_channels
        ]
        if (
            any(has_open_span)
            or frames_to_seconds(self._segmenter.available_end - self._last_speech_end) < limit_s
        ):
            return False
        text = f"no speech for {limit_s:g} s: the stream is closed, as requested"
        self._emitter.emit(StreamWarning(WarningKind.SILENCE_TIMEOUT, text))
        return True

    def _submit(self, channel: ActivityChannel, ended: EndedSpan, turn: SpeakerTurn) -> None:
        self._has_found_speech = True
        open_span = self._interim_decoder.close_utterance(channel, turn.span.start)
        speculative = self._interim_decoder.take_speculative_result(channel, turn)
        if turn.span.start < self._resumed_end:
            return  # it was sent before this session was resumed
        window = self._create_input(turn.span, turn.track)
        if not self._options.audio_model or window.waveform is None:
            self._warn_of_closed_vocabulary()
        utterance = FinishedUtterance(channel, ended, turn, open_span, speculative)
        self._final_decoder.submit(utterance, window)

    def _decode_open_utterances(self) -> None:
        """Decode open utterances, for interim results and to have final results sooner."""
        available_end = self._segmenter.available_end
        for channel in self._segmenter.active_channels:
            open_span = channel.endpointer.open_span
            if open_span is None or open_span.start < self._resumed_end:
                continue
            span = FrameSpan(open_span.start, min(open_span.end, available_end))
            if span.frames <= 0 or not self._segmenter.should_decode(channel, span):
                continue
            get_turns = functools.partial(self._segmenter.get_turns, channel)
            if self._options.live:
                self._interim_decoder.decode_speculatively(
                    channel, available_end, self._decoding_options, get_turns
                )
            if self._options.interim_results:
                several_faces = channel is self._segmenter.audio and len(self._buffer.tracks) > 1
                self._interim_decoder.submit(channel, span, get_turns, several_faces=several_faces)

    def _create_input(self, span: FrameSpan, track: FaceTrack | None) -> InferenceInput:
        model_input = self._options.model_input
        crops = track.get_crops(span) if track is not None and model_input.uses_lips else None
        if not self._segmenter.uses_audio:
            return InferenceInput(crops, None)
        audio = self._buffer.get_audio(span)
        if model_input.audio is AudioInput.WAVEFORM:
            return InferenceInput(crops, None, audio)
        has_second_model = self._options.audio_model and self._segmenter.contains_voice(span)
        if crops is not None and float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) < SILENCE_RMS:
            return InferenceInput(crops, None)
        features = audio_features(audio)[: span.frames]
        return InferenceInput(crops, features, audio if has_second_model else None)

    def _cancel_pending(self) -> None:
        self._final_decoder.stop()
        self._interim_decoder.stop(self._segmenter.channels)

    def _report_activity(self, channel: ActivityChannel, ended: FrameSpan | None) -> None:
        span = ended or channel.endpointer.open_span
        if span is not None:
            self._last_speech_end = max(self._last_speech_end, span.end)
        if not self._options.activity_events or span is None or span.start < self._resumed_end:
            return
        if not channel.has_reported_begin and not self._segmenter.should_decode(channel, span):
            return
        speaker = self._emitter.get_speaker_id(channel.track)
        margin = self._segmenter.endpointing.margin_frames
        if not channel.has_reported_begin:
            channel.has_reported_begin = True
            begin_s = self._to_media_s(min(span.start + margin, span.end))
            self._emitter.emit(Activity(ActivityKind.SPEECH_BEGIN, begin_s, speaker))
        if ended is not None:
            channel.has_reported_begin = False
            end_s = self._to_media_s(max(span.start, span.end - margin))
            self._emitter.emit(Activity(ActivityKind.SPEECH_END, end_s, speaker))

    def _report_progress(self) -> None:
        received = self._get_received_end()
        if received >= self._next_progress:
            self._next_progress = received + PROGRESS_INTERVAL_FRAMES
            with self._emitter.lock:
                state = self._create_checkpoint()
                processed_s = frames_to_seconds(state.final_end)
                received_s = max(self._to_media_s(received), processed_s)
                self._emitter.emit(Progress(received_s, processed_s, self._pipeline.faces_in_view, state))

    def _snapshot_state(self) -> None:
        """Record how far the media is segmented; pending utterances are added when a checkpoint is created."""
        states = {channel: channel.checkpoint for channel in self._segmenter.active_channels}
        for channel, cut in reversed(self._ended_spans):
            states[channel] = channel.create_checkpoint_at(cut)
        with self._emitter.lock:
            self._snapshot = states, self._segmenter.available_end

    def _create_checkpoint(self) -> StreamCheckpoint:
        """Return the current state of the stream on the media's clock."""
        stock, available_end = self._snapshot
        states = dict(stock)
        pending = self._final_decoder.pending
        for utterance in reversed(pending):
            states[utterance.channel] = utterance.channel.create_checkpoint_at(utterance.ended)
        settled = [state.committed_end for state in states.values()]
        # A channel's first pending utterance may be one of several turns, of which the others are sent.
        final = [state.committed_end for channel, state in stock.items()]
        final += [utterance.turn.span.start for utterance in pending]
        self._final_end = max(self._final_end, find_earliest(final, available_end))
        return StreamCheckpoint(
            final_end=self._final_end,
            needed_start=find_earliest(settled, available_end),
            channels=tuple(states.values()),
            recent_speech=tuple((speech.start, speech.end) for speech in self._segmenter.recent_speech),
            speakers=self._emitter.speakers,
            last_speech_end=self._last_speech_end,
            segment_count=self._final_decoder.segment_count,
            has_utterances=self._has_found_speech,
        ).shift(-self._first_frame)

    def _to_media_s(self, frame: int) -> float:
        """Return the time of a frame on the media's clock."""
        return frames_to_seconds(frame + self._first_frame)

    def _report_missing_input(self) -> None:
        """At the end, report why there may be no words."""
        pipeline = self._pipeline
        has_no_face = not pipeline.total_faces and not self._emitter.speakers
        if self._options.modality is Modality.VIDEO_ONLY and has_no_face:
            raise NoFaceError(
                f"no face was found in {self._to_media_s(self._get_received_end()):.1f} s of video: lip reading "
                f"needs a face that is turned to the camera and at least about {MIN_FACE_WIDTH_PX} pixels wide"
            )
        uses_lips = self._options.model_input.uses_lips
        if self._options.modality is Modality.AUDIO_VISUAL and has_no_face and uses_lips:
            reason = "no face was found" if pipeline.has_video else "the media has no video"
            self._emitter.emit(StreamWarning(WarningKind.NO_FACE, f"{reason}: recognizing from audio only"))
        if not self._has_found_speech:
            source = "audio or lip movement" if self._segmenter.uses_audio else "lip movement"
            source = source if uses_lips else "audio"
            self._emitter.emit(StreamWarning(WarningKind.NO_SPEECH, f"no speech was found in {source}"))
