"""Reading utterances before they have ended: for interim results, and so that final ones are there the sooner."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput, frames_to_seconds
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.streaming.active_speaker import SpeakerTurn
from gorggle_server.streaming.activity_channel import ActivityChannel, OpenUtterance, SpeculativeResult
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.interim_text import (
    STABLE_MARGIN_S,
    STABLE_MARGIN_TURN_S,
    InterimRateLimiter,
    StableTextTracker,
)
from gorggle_server.streaming.segment_builder import (
    apply_output_options,
    get_time_bounds,
    interpolate_word_timestamps,
    shift_span,
    to_media_time,
)
from gorggle_server.streaming.stream_buffer import FaceTrack
from gorggle_server.types import Hypothesis, Modality, RecognitionOptions, Segment

# So much of the silence after speech is read with it where its end is foretold: the sooner it is read, and no words are
# in the rest.
SPECULATION_DELAY_FRAMES = 3


@dataclass(frozen=True)
class PartialTranscript:
    """What another server had sent of an utterance: its last revision, the settled words, and when they end."""

    revision: int
    stable_text: str
    stable_end_s: float


class InterimDecoder:
    """Reads the utterances of one stream while they go on.

    Args:
        options: how to read.
        backend: who reads.
        create_input: makes a window of a stretch and a face.
        emitter: how results leave.
        first_frame: the media's frame at which the scene's clock starts.
        partial_transcripts: utterances that another server had begun to send, by their segment ids.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        backend: InferenceBackend,
        create_input: Callable[[FrameSpan, FaceTrack | None], InferenceInput],
        emitter: EventEmitter,
        first_frame: int,
        partial_transcripts: Mapping[str, PartialTranscript],
    ) -> None:
        self._options, self._backend, self._create_input, self._emitter = (
            options,
            backend,
            create_input,
            emitter,
        )
        self._first_frame, self._partial_transcripts = first_frame, dict(partial_transcripts)
        self._decoding_options = DecodingOptions(1, options.length_penalty, 0, word_timestamps=True)
        self._rate_limiter = InterimRateLimiter()

    # ------------------------------------------------------------------------------------------------ interim results

    def submit(
        self,
        channel: ActivityChannel,
        span: FrameSpan,
        get_turns: Callable[[FrameSpan], list[SpeakerTurn]],
        *,
        several_faces: bool,
    ) -> None:
        """Have the last turn of an open stretch read, if it is time to."""
        if self._is_decoded_speculatively(channel) or not self._is_due(channel, span):
            return  # of a pause there is no more to say than its foretold end will
        turn = get_turns(span)[-1]
        start = turn.span.start
        with self._emitter.lock:
            utterance = channel.open_utterances.get(start)
        utterance = utterance or self._open_utterance(channel, start)
        utterance.submitted_end, utterance.submitted_at = turn.span.end, time.monotonic()
        window = self._create_input(turn.span, turn.track)
        guard_s = STABLE_MARGIN_TURN_S if several_faces else STABLE_MARGIN_S
        utterance.result = self._backend.submit(
            self._options.model, window, self._decoding_options, interim=True
        )
        utterance.result.add_done_callback(
            functools.partial(self._emit_result, channel, utterance, turn, guard_s, window.modality)
        )

    def _is_due(self, channel: ActivityChannel, span: FrameSpan) -> bool:
        """Whether so much was said since the last reading that another one is worth it; one at a time."""
        with self._emitter.lock:
            going_on = [item for item in channel.open_utterances.items() if item[0] >= span.start]
        if not going_on:
            return self._rate_limiter.is_due(span.frames, 0, 0.0)
        start, latest = max(going_on, key=lambda item: item[0])
        if latest.result is not None and not latest.result.done():
            return False
        since_s = time.monotonic() - latest.submitted_at
        return self._rate_limiter.is_due(span.end - start, latest.submitted_end - start, since_s)

    def _open_utterance(self, channel: ActivityChannel, start: int) -> OpenUtterance:
        segment_id = channel.create_segment_id(start + self._first_frame)
        known = self._partial_transcripts.pop(segment_id, None)
        begin_s = frames_to_seconds(start + self._first_frame)
        if known is None:
            utterance = OpenUtterance(segment_id, StableTextTracker())
        else:
            text = StableTextTracker(
                interpolate_word_timestamps(known.stable_text, begin_s, known.stable_end_s)
            )
            utterance = OpenUtterance(segment_id, text, known.revision)
        with self._emitter.lock:
            channel.open_utterances[start] = utterance
        return utterance

    def _emit_result(
        self,
        channel: ActivityChannel,
        utterance: OpenUtterance,
        turn: SpeakerTurn,
        guard_s: float,
        modality: Modality,
        done: Future[list[Hypothesis]],
    ) -> None:
        self._rate_limiter.record_latency(time.monotonic() - utterance.submitted_at)
        if done.cancelled() or done.exception() is not None:
            return  # the final result will come, or raise
        stretch = shift_span(turn.span, self._first_frame)
        with self._emitter.lock:
            found = next((reading for reading in done.result() if reading.text), None)
            if found is None or channel.open_utterances.get(turn.span.start) is not utterance:
                return  # nothing was said yet, or the utterance has ended meanwhile
            best = utterance.text.update(
                to_media_time(found, stretch), frames_to_seconds(stretch.end) - guard_s
            )
            utterance.revision += 1
            start_s, end_s = get_time_bounds(best, stretch)
            self._emitter.emit(
                Segment(
                    segment_id=utterance.segment_id,
                    revision=utterance.revision,
                    is_final=False,
                    stable_words=utterance.text.stable_words,
                    start_s=start_s,
                    end_s=end_s,
                    best=apply_output_options(best, word_timestamps=self._options.word_timestamps),
                    speaker_id=self._emitter.get_speaker_id(turn.track),
                    face_boxes=tuple(turn.track.boxes[-1:])
                    if turn.track and self._options.face_boxes
                    else (),
                    modality=modality,
                )
            )

    # ------------------------------------------------------------------------------------------------- the end of one

    def close_utterance(self, channel: ActivityChannel, start: int) -> OpenUtterance | None:
        """The utterance that began at ``start`` is over: no more of it will be sent from here."""
        with self._emitter.lock:
            utterance = channel.open_utterances.pop(start, None)
        if utterance is None:
            segment_id = channel.create_segment_id(start + self._first_frame)
            return self._open_utterance(channel, start) if segment_id in self._partial_transcripts else None
        if utterance.result is not None:
            utterance.result.cancel()
        return utterance

    def retract_before(self, channel: ActivityChannel, before: int) -> None:
        """Say of what was begun before a frame and is none after all that it is over: without text, but for what had settled."""
        with self._emitter.lock:
            for start in [start for start in channel.open_utterances if start < before]:
                utterance = channel.open_utterances.pop(start)
                if utterance.result is not None:
                    utterance.result.cancel()
                if not utterance.revision:
                    continue
                stretch = FrameSpan(start + self._first_frame, utterance.submitted_end + self._first_frame)
                best = (
                    utterance.text.finalize(Hypothesis("", 0.0))
                    if utterance.text.stable_words
                    else Hypothesis("", 0.0)
                )
                start_s, end_s = get_time_bounds(best, stretch)
                self._emitter.emit(
                    Segment(
                        segment_id=utterance.segment_id,
                        revision=utterance.revision + 1,
                        is_final=True,
                        stable_words=utterance.text.stable_words,
                        start_s=start_s,
                        end_s=end_s,
                        best=apply_output_options(best, word_timestamps=self._options.word_timestamps),
                        speaker_id=self._emitter.get_speaker_id(channel.track),
                        modality=self._options.modality,
                    )
                )

    # ------------------------------------------------------------------------------------------------------ foresight

    def decode_speculatively(
        self,
        channel: ActivityChannel,
        available_end: int,
        decoding_options: DecodingOptions,
        get_turns: Callable[[FrameSpan], list[SpeakerTurn]],
    ) -> None:
        """While somebody pauses, read what will be the utterance if nobody goes on.

        A pause of half a second ends an utterance, and it is read without what is silent: it can be read while the
        pause is waited for. It is final work: mostly it is the final reading, and somebody waits for it.
        """
        going_on = channel.open_span
        if going_on is None:
            return
        end = _get_speculative_end(channel)
        if end > min(available_end, channel.available_end) or end <= going_on.start:
            return
        stretch = FrameSpan(going_on.start, end)
        if channel.speculative is not None:
            if channel.speculative.span == stretch:
                return
            channel.speculative.result.cancel()
        found = get_turns(stretch)
        if len(found) > 1:
            return
        track = found[0].track
        reading = self._backend.submit(
            self._options.model, self._create_input(stretch, track), decoding_options
        )
        channel.speculative = SpeculativeResult(stretch, track, reading)
        # It need not wait for readings of less.
        for utterance in list(channel.open_utterances.values()):
            if utterance.result is not None:
                utterance.result.cancel()

    def _is_decoded_speculatively(self, channel: ActivityChannel) -> bool:
        """Whether all that was said so far is being read as if it had ended, or was."""
        known = channel.speculative
        return known is not None and known.span.end == _get_speculative_end(channel)

    def take_speculative_result(
        self, channel: ActivityChannel, turn: SpeakerTurn
    ) -> Future[list[Hypothesis]] | None:
        """The reading of a turn that was foretold, if it was; what was foretold and has not come is given up."""
        known, channel.speculative = channel.speculative, None
        if known is None:
            return None
        more_silence = turn.span.end - known.span.end
        is_same = (
            known.span.start == turn.span.start
            and 0 <= more_silence <= max(0, channel.options.margin_frames - SPECULATION_DELAY_FRAMES)
            and known.track is turn.track
        )
        if is_same and not known.result.cancelled():
            return known.result
        known.result.cancel()
        return None

    def stop(self, channels: Iterable[ActivityChannel]) -> None:
        """Give up everything that waits for the device."""
        for channel in channels:
            for utterance in list(channel.open_utterances.values()):
                if utterance.result is not None:
                    utterance.result.cancel()
            if channel.speculative is not None:
                channel.speculative.result.cancel()


def _get_speculative_end(channel: ActivityChannel) -> int:
    """The end of the open stretch, if nobody goes on."""
    return channel.last_active_frame + 1 + min(SPECULATION_DELAY_FRAMES, channel.options.margin_frames)
