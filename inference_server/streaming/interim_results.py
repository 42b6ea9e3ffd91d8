"""Decode utterances before they have ended: for interim results, and to have final results sooner."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from gorggle_server.events import FaceBox, Hypothesis
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.input_format import frames_to_seconds
from gorggle_server.recognition_options import Modality, RecognitionOptions
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
    create_segment,
    interpolate_word_timestamps,
    shift_span,
    to_media_time,
)
from gorggle_server.streaming.stream_buffer import FaceTrack

# Silence after the speech that is included in a speculative decoding: short, to start it early; the rest holds no
# words.
SPECULATION_DELAY_FRAMES = 3


@dataclass(frozen=True)
class PartialTranscript:
    """Interim state of an utterance sent by another server: last revision, stable words, and their end."""

    revision: int
    stable_text: str
    stable_end_s: float


class InterimDecoder:
    """Decodes the ongoing utterances of one stream.

    Args:
        create_input: creates the inference input of a span and a face.
        first_frame: the media's frame at which the buffer's clock starts.
        partial_transcripts: utterances that another server had begun to send, by segment id.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        submit: SubmitFunction,
        create_input: Callable[[FrameSpan, FaceTrack | None], InferenceInput],
        emitter: EventEmitter,
        first_frame: int,
        partial_transcripts: Mapping[str, PartialTranscript],
    ) -> None:
        self._options, self._submit = options, submit
        self._create_input, self._emitter = create_input, emitter
        self._first_frame, self._partial_transcripts = first_frame, dict(partial_transcripts)
        self._decoding_options = DecodingOptions(
            1, options.length_penalty, 0, word_timestamps=True, languages=options.languages
        )
        self._rate_limiter = InterimRateLimiter()

    def submit(
        self,
        channel: ActivityChannel,
        span: FrameSpan,
        get_turns: Callable[[FrameSpan], list[SpeakerTurn]],
        *,
        several_faces: bool,
    ) -> None:
        """Decode the last turn of an open span if that is due."""
        if self._is_decoded_speculatively(channel) or not self._is_due(channel, span):
            return  # the speculative result will cover it
        turn = get_turns(span)[-1]
        start = turn.span.start
        with self._emitter.lock:
            utterance = channel.open_utterances.get(start)
        utterance = utterance or self._open_utterance(channel, start)
        utterance.submitted_end, utterance.submitted_at = turn.span.end, time.monotonic()
        window = self._create_input(turn.span, turn.track)
        margin_s = STABLE_MARGIN_TURN_S if several_faces else STABLE_MARGIN_S
        utterance.result = self._submit(window, self._decoding_options, interim=True)
        utterance.result.add_done_callback(
            functools.partial(self._emit_result, channel, utterance, turn, margin_s, window.modality)
        )

    def _is_due(self, channel: ActivityChannel, span: FrameSpan) -> bool:
        """Return whether enough new speech has arrived for another decoding; one runs at a time."""
        with self._emitter.lock:
            utterances = [item for item in channel.open_utterances.items() if item[0] >= span.start]
        if not utterances:
            return self._rate_limiter.is_due(span.frames, 0, 0.0)
        start, latest = max(utterances, key=lambda item: item[0])
        if latest.result is not None and not latest.result.done():
            return False
        elapsed_s = time.monotonic() - latest.submitted_at
        return self._rate_limiter.is_due(span.end - start, latest.submitted_end - start, elapsed_s)

    def _open_utterance(self, channel: ActivityChannel, start: int) -> OpenUtterance:
        segment_id = channel.create_segment_id(start + self._first_frame)
        partial = self._partial_transcripts.pop(segment_id, None)
        utterance = OpenUtterance(segment_id, StableTextTracker())
        if partial is not None:
            begin_s = frames_to_seconds(start + self._first_frame)
            words = interpolate_word_timestamps(partial.stable_text, begin_s, partial.stable_end_s)
            utterance = OpenUtterance(segment_id, StableTextTracker(words), partial.revision)
        with self._emitter.lock:
            channel.open_utterances[start] = utterance
        return utterance

    def _emit_result(
        self,
        channel: ActivityChannel,
        utterance: OpenUtterance,
        turn: SpeakerTurn,
        margin_s: float,
        modality: Modality,
        done: Future[list[Hypothesis]],
    ) -> None:
        self._rate_limiter.record_latency(time.monotonic() - utterance.submitted_at)
        if done.cancelled() or done.exception() is not None:
            return  # the final result follows, or raises
        span = shift_span(turn.span, self._first_frame)
        with self._emitter.lock:
            hypothesis = next((hypothesis for hypothesis in done.result() if hypothesis.text), None)
            if hypothesis is None or channel.open_utterances.get(turn.span.start) is not utterance:
                return  # no words yet, or the utterance has ended
            best = utterance.text.update(
                to_media_time(hypothesis, span), frames_to_seconds(span.end) - margin_s
            )
            boxes = tuple(turn.track.boxes[-1:]) if turn.track and self._options.face_boxes else ()
            self._emit_segment(utterance, best, span, turn.track, modality, is_final=False, face_boxes=boxes)

    def _emit_segment(
        self,
        utterance: OpenUtterance,
        hypothesis: Hypothesis,
        span: FrameSpan,
        track: FaceTrack | None,
        modality: Modality,
        *,
        is_final: bool,
        face_boxes: tuple[FaceBox, ...] = (),
    ) -> None:
        utterance.revision += 1
        segment = create_segment(
            [hypothesis],
            span,
            word_timestamps=self._options.word_timestamps,
            segment_id=utterance.segment_id,
            revision=utterance.revision,
            is_final=is_final,
            stable_words=utterance.text.stable_words,
            speaker_id=self._emitter.get_speaker_id(track),
            face_boxes=face_boxes,
            modality=modality,
            is_doubtful=self._options.is_doubtful(modality) or hypothesis.is_doubtful,
        )
        self._emitter.emit(segment)

    def close_utterance(self, channel: ActivityChannel, start: int) -> OpenUtterance | None:
        """Remove the utterance that began at ``start`` and cancel its interim decoding."""
        with self._emitter.lock:
            utterance = channel.open_utterances.pop(start, None)
        if utterance is None:
            segment_id = channel.create_segment_id(start + self._first_frame)
            return self._open_utterance(channel, start) if segment_id in self._partial_transcripts else None
        utterance.cancel()
        return utterance

    def retract_before(self, channel: ActivityChannel, before: int) -> None:
        """Finalize utterances that began before a frame and turned out not to be speech: their text becomes the stable words."""
        with self._emitter.lock:
            for start in [start for start in channel.open_utterances if start < before]:
                utterance = channel.open_utterances.pop(start)
                utterance.cancel()
                if not utterance.revision:
                    continue
                span = FrameSpan(start + self._first_frame, utterance.submitted_end + self._first_frame)
                text = utterance.text.finalize(Hypothesis("", 0.0))
                self._emit_segment(
                    utterance, text, span, channel.track, self._options.modality, is_final=True
                )

    def decode_speculatively(
        self,
        channel: ActivityChannel,
        available_end: int,
        decoding_options: DecodingOptions,
        get_turns: Callable[[FrameSpan], list[SpeakerTurn]],
    ) -> None:
        """During a pause, decode the utterance as if the speaker did not continue.

        A pause of half a second ends an utterance, and the silence is not decoded: decoding can run during the pause. It is
        final work, because usually its result is the final one.
        """
        open_span = channel.endpointer.open_span
        if open_span is None:
            return
        end = _get_speculative_end(channel)
        if end > min(available_end, channel.endpointer.available_end) or end <= open_span.start:
            return
        span = FrameSpan(open_span.start, end)
        if channel.speculative is not None:
            if channel.speculative.span == span:
                return
            channel.speculative.result.cancel()
        turns = get_turns(span)
        if len(turns) > 1:
            return
        track = turns[0].track
        result = self._submit(self._create_input(span, track), decoding_options)
        channel.speculative = SpeculativeResult(span, track, result)
        # Interim decodings of less are obsolete.
        for utterance in list(channel.open_utterances.values()):
            utterance.cancel()

    def _is_decoded_speculatively(self, channel: ActivityChannel) -> bool:
        """Return whether all speech so far is covered by the speculative decoding."""
        speculative = channel.speculative
        return speculative is not None and speculative.span.end == _get_speculative_end(channel)

    def take_speculative_result(
        self, channel: ActivityChannel, turn: SpeakerTurn
    ) -> Future[list[Hypothesis]] | None:
        """Return the speculative decoding if it matches the turn; cancel it otherwise."""
        speculative, channel.speculative = channel.speculative, None
        if speculative is None:
            return None
        more_silence = turn.span.end - speculative.span.end
        matches = (
            speculative.span.start == turn.span.start
            and 0 <= more_silence <= max(0, channel.options.margin_frames - SPECULATION_DELAY_FRAMES)
            and speculative.track is turn.track
        )
        if matches and not speculative.result.cancelled():
            return speculative.result
        speculative.result.cancel()
        return None

    def stop(self, channels: Iterable[ActivityChannel]) -> None:
        """Cancel everything pending."""
        for channel in channels:
            for utterance in list(channel.open_utterances.values()):
                utterance.cancel()
            if channel.speculative is not None:
                channel.speculative.result.cancel()


def _get_speculative_end(channel: ActivityChannel) -> int:
    """Return the end of the open span if the speaker does not continue."""
    return channel.last_active_frame + 1 + min(SPECULATION_DELAY_FRAMES, channel.options.margin_frames)
