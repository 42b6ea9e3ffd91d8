"""Final results: decode ended utterances and emit their segments in the order in which they ended."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from gorggle_server.errors import NotReadyError
from gorggle_server.events import FaceBox, Hypothesis, Segment, StreamWarning, WarningKind
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.input_format import FRAME_RATE_HZ, frames_to_seconds
from gorggle_server.recognition_options import Modality, RecognitionOptions
from gorggle_server.streaming.active_speaker import SpeakerTurn
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan, OpenUtterance
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.segment_builder import (
    create_segment,
    shift_span,
    to_media_time,
)

# Utterances that may be pending before the session blocks.
MAX_PENDING = 2


@dataclass(frozen=True)
class FinishedUtterance:
    """Speech of one person that has ended.

    Attributes:
        interim: the interim results sent for it.
        speculative: its decoding, if that was started before the end was certain.
    """

    channel: ActivityChannel
    ended: EndedSpan
    turn: SpeakerTurn
    interim: OpenUtterance | None
    speculative: Future[list[Hypothesis]] | None


@dataclass
class _PendingUtterance:
    """An utterance being decoded."""

    utterance: FinishedUtterance
    modality: Modality
    face_boxes: tuple[FaceBox, ...]
    result: Future[list[Hypothesis]]


class FinalDecoder:
    """Decodes the ended utterances of one stream and emits their segments.

    Args:
        first_frame: the media's frame at which the buffer's clock starts.
        segment_count: segments with words that the stream has sent already.

    Attributes:
        segment_count: segments with words sent in all.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        submit: SubmitFunction,
        decoding_options: DecodingOptions,
        emitter: EventEmitter,
        first_frame: int,
        segment_count: int,
    ) -> None:
        self._options, self._submit = options, submit
        self._decoding_options, self._emitter = decoding_options, emitter
        self._first_frame, self.segment_count = first_frame, segment_count
        self._pending: deque[_PendingUtterance] = deque()
        self._stopped = False

    @property
    def pending(self) -> list[FinishedUtterance]:
        """Utterances being decoded, in the order in which they ended."""
        return [pending.utterance for pending in self._pending]

    def submit(self, utterance: FinishedUtterance, window: InferenceInput) -> None:
        """Submit an utterance; block while too many are pending.

        Raises:
            GorggleError: an earlier utterance could not be decoded.
        """
        while len(self._pending) >= MAX_PENDING and not self._stopped:
            self._wait_for_oldest()
        track, span = utterance.turn.track, utterance.turn.span
        # Read the boxes now: the buffer will have discarded them when the result is available.
        boxes = track.get_boxes(span) if track and self._options.face_boxes else ()
        result = utterance.speculative or self._submit(window, self._decoding_options)
        with self._emitter.lock:
            self._pending.append(
                _PendingUtterance(utterance, window.modality, self._shift_boxes(boxes), result)
            )
        result.add_done_callback(lambda _: self._send_finished())

    def wait(self) -> None:
        """Wait until all utterances are decoded and sent; raise as ``submit`` does."""
        while self._pending and not self._stopped:
            self._wait_for_oldest()

    def stop(self) -> None:
        """Cancel everything pending."""
        self._stopped = True
        for pending in list(self._pending):
            pending.result.cancel()

    def _wait_for_oldest(self) -> None:
        """Wait for the oldest utterance; raise its error."""
        try:
            oldest = self._pending[0]
        except IndexError:
            return
        try:
            oldest.result.result()
        except CancelledError:
            if self._stopped:
                return
            raise NotReadyError("the server is shutting down: send the rest to another one") from None
        self._send_finished()

    def _send_finished(self) -> None:
        """Send the decoded segments at the head of the queue."""
        with self._emitter.lock:
            while (
                self._pending and self._pending[0].result.done() and not self._pending[0].result.cancelled()
            ):
                pending = self._pending[0]
                if pending.result.exception() is not None:
                    return  # _wait_for_oldest raises it on the session's thread
                self._pending.popleft()
                segment = self._create_segment(pending, pending.result.result())
                if segment is not None:
                    self.segment_count += bool(segment.best.text)
                    self._emitter.emit(segment)

    def _create_segment(self, pending: _PendingUtterance, hypotheses: Sequence[Hypothesis]) -> Segment | None:
        utterance = pending.utterance
        span = shift_span(utterance.turn.span, self._first_frame)
        if hypotheses and hypotheses[0].is_loop_removed:
            self._warn_of_repetition(span)
        ranked = [to_media_time(hypothesis, span) for hypothesis in hypotheses if hypothesis.text]
        revision = 0
        if utterance.interim is not None:
            revision = utterance.interim.revision
            ranked[:1] = [utterance.interim.text.finalize(ranked[0] if ranked else Hypothesis("", 0.0))]
        # A segment without words is sent only to replace interim results.
        if not ranked or not (ranked[0].text or revision):
            return None
        return create_segment(
            ranked,
            span,
            word_timestamps=self._options.word_timestamps,
            segment_id=utterance.channel.create_segment_id(span.start),
            revision=revision + 1,
            is_final=True,
            stable_words=len(ranked[0].text.split()),
            speaker_id=self._emitter.get_speaker_id(utterance.turn.track),
            face_boxes=pending.face_boxes,
            modality=pending.modality,
            is_doubtful=self._options.is_doubtful(pending.modality) or ranked[0].is_doubtful,
        )

    def _warn_of_repetition(self, span: FrameSpan) -> None:
        start_s, end_s = frames_to_seconds(span.start), frames_to_seconds(span.end)
        self._emitter.emit(
            StreamWarning(
                WarningKind.REPETITION,
                f"the model repeated a phrase in a loop between {start_s:.2f} s and {end_s:.2f} s: it is kept once, and words "
                "may be missing",
            )
        )

    def _shift_boxes(self, boxes: tuple[FaceBox, ...]) -> tuple[FaceBox, ...]:
        return tuple(
            dataclasses.replace(
                box, offset_s=frames_to_seconds(round(box.offset_s * FRAME_RATE_HZ) + self._first_frame)
            )
            for box in boxes
        )
