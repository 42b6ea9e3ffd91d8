"""One stream from media to segments: watches the scene grow, cuts it into utterances, has them read, says the words.

Runs on a thread of its own. Perceiving goes on while the device reads earlier utterances; segments leave in the order
in which their utterances ended. Segments are named for the frame at which they begin and for whose they are, so that
whoever reads the same media again gives them the same names.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

import numpy as np

from gorggle_server.errors import NoFaceError
from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput, frames_to_seconds
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.media.audio import audio_features
from gorggle_server.stream_state import ChannelCheckpoint, StreamCheckpoint
from gorggle_server.streaming.active_speaker import SpeakerTurn
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.final_results import FinalDecoder, FinishedUtterance
from gorggle_server.streaming.interim_results import InterimDecoder, PartialTranscript
from gorggle_server.streaming.segment_builder import (
    create_speech_begin,
    create_speech_end,
    find_earliest,
    shift_span,
)
from gorggle_server.streaming.segmenter import MediaPipeline, UtteranceSegmenter
from gorggle_server.streaming.stream_buffer import FaceTrack
from gorggle_server.types import (
    VIDEO_FRAME_RATE_HZ,
    Event,
    Finished,
    Modality,
    Progress,
    RecognitionOptions,
    StreamWarning,
    WarningKind,
)

_log = logging.getLogger(__name__)

PROGRESS_INTERVAL_FRAMES = VIDEO_FRAME_RATE_HZ
# Below this level (of 32 768) the sound counts as silent: −60 dBFS.
SILENCE_RMS = 33.0


@dataclass(frozen=True)
class ResumeState:
    """Where a session goes on that another server began.

    Attributes:
        checkpoint: the stream as it was, on the media's clock.
        first_frame: the media's frame at which the scene's clock starts.
        partial_transcripts: what was sent of utterances that had not ended, by segment id.
    """

    checkpoint: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    first_frame: int = 0
    partial_transcripts: Mapping[str, PartialTranscript] = field(default_factory=dict)


class RecognitionSession:
    """Reads one stream."""

    def __init__(
        self,
        pipeline: MediaPipeline,
        options: RecognitionOptions,
        backend: InferenceBackend,
        emit: Callable[[Event], None],
        wait_for_capacity: Callable[[], None] = lambda: None,
        resume_state: ResumeState | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            pipeline: where the scene comes from.
            options: how to read.
            backend: who reads the windows.
            emit: takes the events; called from this thread and from the backend's, never from both at once.
            wait_for_capacity: blocks while the events' reader lags.
            resume_state: what was read before, elsewhere; None: nothing.
        """
        resume_state = resume_state or ResumeState()
        self._pipeline, self._buffer = pipeline, pipeline.buffer
        self._options, self._backend = options, backend
        self._wait_for_capacity = wait_for_capacity
        # The times of words tell which of them have settled, whether the caller wants them or not.
        word_times = options.word_timestamps or options.interim_results
        self._decoding_options = DecodingOptions(
            options.beam_size, options.length_penalty, options.max_alternatives, word_times
        )
        self._first_frame = resume_state.first_frame
        before = resume_state.checkpoint.shift(self._first_frame)
        self._segmenter = UtteranceSegmenter(pipeline, options, before)
        self._ended_spans: list[
            tuple[ActivityChannel, EndedSpan]
        ] = []  # ended, but their pictures are not all there yet
        self._emitter = EventEmitter(emit, before.speakers)
        self._has_found_speech = before.has_utterances
        self._resumed_end = self._final_end = before.final_end
        self._last_speech_end = before.last_speech_end
        self._snapshot: tuple[dict[ActivityChannel, ChannelCheckpoint], int] = ({}, 0)
        self._next_progress = PROGRESS_INTERVAL_FRAMES
        self._stopped = False
        self._final_decoder = FinalDecoder(
            options, backend, self._decoding_options, self._emitter, self._first_frame, before.segment_count
        )
        self._interim_decoder = InterimDecoder(
            options,
            backend,
            self._create_input,
            self._emitter,
            self._first_frame,
            resume_state.partial_transcripts,
        )

    def run(self) -> None:
        """Read to the end of the media; events leave through ``emit``, the last one is ``Finished``.

        Raises:
            GorggleError: the media cannot be read, or holds no face where only lips are to be read.
        """
        steps = iter(self._pipeline.steps())
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
            if isinstance(steps, Generator):
                steps.close()
            self._cancel_pending()

    def stop(self) -> None:
        """Give up: the caller has gone. ``run`` returns after the step at hand."""
        self._stopped = True
        self._cancel_pending()

    # ------------------------------------------------------------------------------------------- cutting utterances

    def _advance(self, *, media_ended: bool) -> None:
        """Cut what has come in since the last time, and hand ended utterances to the device."""
        for channel, cuts in self._segmenter.advance(media_ended=media_ended):
            for cut in cuts:
                self._report_activity(channel, cut.span)
                self._ended_spans.append((channel, cut))
            if not cuts:
                self._report_activity(channel, None)
        self._submit_ended_spans(media_ended=media_ended)
        if not media_ended:
            self._decode_open_utterances()
        self._snapshot_state()
        self._buffer.discard_before(self._get_needed_start())

    def _submit_ended_spans(self, *, media_ended: bool) -> None:
        """Submit the ended stretches whose pictures and sound are all there."""
        still_waiting = []
        # A little later it is surer whose lips moved; live, that takes too long.
        later = 0 if self._options.live else self._segmenter.endpointing.margin_frames
        for channel, cut in self._ended_spans:
            if not media_ended and self._segmenter.available_end < cut.span.end + later:
                still_waiting.append((channel, cut))
                continue
            if self._segmenter.should_decode(channel, cut.span):
                for turn in self._segmenter.get_turns(channel, cut.span):
                    self._submit(channel, cut, turn)
            self._interim_decoder.retract_before(channel, cut.span.end)
        self._ended_spans = still_waiting

    def _get_received_end(self) -> int:
        return max(self._buffer.video_end, self._buffer.audio_end)

    def _get_needed_start(self) -> int:
        """The frame before which no utterance will want anything."""
        # Lips may begin to move before a sound that is not there yet: keep half an utterance's margin more.
        slack = 2 * self._segmenter.endpointing.margin_frames
        needed = [cut.span.start for _, cut in self._ended_spans]
        needed += [channel.committed_end - slack for channel in self._segmenter.active_channels]
        return find_earliest(needed, self._segmenter.available_end)

    def _check_silence_timeout(self) -> bool:
        """Whether nobody has spoken for so long that the stream shall end; says so."""
        limit_s = self._options.silence_timeout_s
        if not limit_s or self._ended_spans or self._final_decoder.pending:
            return False
        going_on = [channel.open_span is not None for channel in self._segmenter.active_channels]
        if (
            any(going_on)
            or frames_to_seconds(self._segmenter.available_end - self._last_speech_end) < limit_s
        ):
            return False
        text = f"nobody has spoken for {limit_s:g} s: the stream ends, as was asked for"
        self._emitter.emit(StreamWarning(WarningKind.SILENCE_TIMEOUT, text))
        return True

    # ------------------------------------------------------------------------------------------------------ reading

    def _submit(self, channel: ActivityChannel, ended: EndedSpan, turn: SpeakerTurn) -> None:
        self._has_found_speech = True
        going_on = self._interim_decoder.close_utterance(channel, turn.span.start)
        foretold = self._interim_decoder.take_speculative_result(channel, turn)
        if turn.span.start < self._resumed_end:
            return  # it was read and sent before this session was taken up
        utterance = FinishedUtterance(channel, ended, turn, going_on, foretold)
        self._final_decoder.submit(utterance, self._create_input(turn.span, turn.track))

    def _decode_open_utterances(self) -> None:
        """Have open utterances read, for interim results and to have the final ones sooner."""
        known_until = self._segmenter.available_end
        for channel in self._segmenter.active_channels:
            going_on = channel.open_span
            if going_on is None or going_on.start < self._resumed_end:
                continue
            stretch = FrameSpan(going_on.start, min(going_on.end, known_until))
            if stretch.frames <= 0 or not self._segmenter.should_decode(channel, stretch):
                continue
            turns_in = functools.partial(self._segmenter.get_turns, channel)
            if self._options.live:
                self._interim_decoder.decode_speculatively(
                    channel, known_until, self._decoding_options, turns_in
                )
            if self._options.interim_results:
                several = channel is self._segmenter.sound and len(self._buffer.tracks) > 1
                self._interim_decoder.submit(channel, stretch, turns_in, several_faces=several)

    def _create_input(self, span: FrameSpan, track: FaceTrack | None) -> InferenceInput:
        crops = track.get_crops(span) if track is not None else None
        if not self._segmenter.uses_audio:
            return InferenceInput(crops, None)
        sound = self._buffer.get_audio(span)
        if crops is not None and float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) < SILENCE_RMS:
            return InferenceInput(crops, None)
        return InferenceInput(crops, audio_features(sound)[: span.frames])

    def _cancel_pending(self) -> None:
        self._final_decoder.stop()
        self._interim_decoder.stop(self._segmenter.channels)

    # ------------------------------------------------------------------------------------------------- what is told

    def _report_activity(self, channel: ActivityChannel, ended: FrameSpan | None) -> None:
        stretch = ended or channel.open_span
        if stretch is not None:
            self._last_speech_end = max(self._last_speech_end, stretch.end)
        if not self._options.activity_events or stretch is None or stretch.start < self._resumed_end:
            return
        if not channel.has_reported_begin and not self._segmenter.should_decode(channel, stretch):
            return
        told, speaker = shift_span(stretch, self._first_frame), self._emitter.get_speaker_id(channel.track)
        margin = self._segmenter.endpointing.margin_frames
        if not channel.has_reported_begin:
            channel.has_reported_begin = True
            self._emitter.emit(create_speech_begin(told, margin, speaker))
        if ended is not None:
            channel.has_reported_begin = False
            self._emitter.emit(create_speech_end(told, margin, speaker))

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
        """Note how far the media is cut; utterances that are being read are added when it is told."""
        states = {channel: channel.checkpoint for channel in self._segmenter.active_channels}
        for channel, cut in reversed(self._ended_spans):
            states[channel] = channel.create_checkpoint_at(cut)
        with self._emitter.lock:
            self._snapshot = states, self._segmenter.available_end

    def _create_checkpoint(self) -> StreamCheckpoint:
        """The stream as it is now, on the media's clock."""
        stock, known_until = self._snapshot
        states = dict(stock)
        pending = self._final_decoder.pending
        for utterance in reversed(pending):
            states[utterance.channel] = utterance.channel.create_checkpoint_at(utterance.ended)
        settled = [state.committed_end for state in states.values()]
        # A channel's first utterance may be one of several turns, of which the others are sent.
        final = [state.committed_end for channel, state in stock.items()]
        final += [utterance.turn.span.start for utterance in pending]
        self._final_end = max(self._final_end, find_earliest(final, known_until))
        return StreamCheckpoint(
            final_end=self._final_end,
            needed_start=find_earliest(settled, known_until),
            channels=tuple(states.values()),
            recent_speech=tuple((heard.start, heard.end) for heard in self._segmenter.heard),
            speakers=self._emitter.speakers,
            last_speech_end=self._last_speech_end,
            segment_count=self._final_decoder.segment_count,
            has_utterances=self._has_found_speech,
        ).shift(-self._first_frame)

    def _to_media_s(self, frame: int) -> float:
        """A frame's time on the media's clock."""
        return frames_to_seconds(frame + self._first_frame)

    def _report_missing_input(self) -> None:
        """At the end: an answer without words must say why."""
        perception = self._pipeline
        sees_nobody = not perception.total_faces and not self._emitter.speakers
        if self._options.modality is Modality.VIDEO_ONLY and sees_nobody:
            raise NoFaceError(
                f"no face was found in {self._to_media_s(self._get_received_end()):.1f} s of video: lips can be read where a face "
                "is turned to the camera and at least about 80 pixels wide"
            )
        if self._options.modality is Modality.AUDIO_VISUAL and sees_nobody:
            what = "no face was found" if perception.has_video else "there are no pictures"
            self._emitter.emit(
                StreamWarning(WarningKind.NO_FACE, f"{what}: the words are read from the sound alone")
            )
        if not self._has_found_speech:
            where = "the lips" if not self._segmenter.uses_audio else "the sound and the lips"
            self._emitter.emit(
                StreamWarning(WarningKind.NO_SPEECH, f"nobody speaks: no speech was found in {where}")
            )
