"""Reading utterances that have ended: their segments leave in the order in which they ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from gorggle_server.errors import NotReadyError
from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.streaming.active_speaker import SpeakerTurn
from gorggle_server.streaming.activity_channel import ActivityChannel, EndedSpan, OpenUtterance
from gorggle_server.streaming.event_emitter import EventEmitter
from gorggle_server.streaming.segment_builder import (
    apply_output_options,
    get_time_bounds,
    shift_span,
    to_media_time,
)
from gorggle_server.timebase import FRAME_RATE_HZ, frames_to_seconds
from gorggle_server.types import FaceBox, Hypothesis, Modality, RecognitionOptions, Segment

# Utterances that may wait for the device before perceiving pauses.
MAX_PENDING = 2


@dataclass(frozen=True)
class FinishedUtterance:
    """Speech of one person that has ended.

    Attributes:
        interim: what was said of it while it went on.
        speculative: its reading, where it was begun before it was sure that it had ended.
    """

    channel: ActivityChannel
    ended: EndedSpan
    turn: SpeakerTurn
    interim: OpenUtterance | None
    speculative: Future[list[Hypothesis]] | None


@dataclass
class _PendingUtterance:
    """An utterance on its way through the device."""

    utterance: FinishedUtterance
    modality: Modality
    face_boxes: tuple[FaceBox, ...]
    result: Future[list[Hypothesis]]


class FinalDecoder:
    """Has the ended utterances of one stream read, and says them.

    Args:
        options: how to read.
        backend: who reads.
        decoding_options: how to search.
        emitter: how results leave.
        first_frame: the media's frame at which the scene's clock starts.
        segment_count: how many segments with words the stream has sent already.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        backend: InferenceBackend,
        decoding_options: DecodingOptions,
        emitter: EventEmitter,
        first_frame: int,
        segment_count: int,
    ) -> None:
        self._options, self._backend, self._decoding_options, self._emitter = (
            options,
            backend,
            decoding_options,
            emitter,
        )
        self._first_frame, self._segment_count = first_frame, segment_count
        self._pending: deque[_PendingUtterance] = deque()
        self._stopped = False

    @property
    def segment_count(self) -> int:
        """Segments with words that were sent."""
        return self._segment_count

    @property
    def pending(self) -> list[FinishedUtterance]:
        """Utterances that are being read, in the order in which they ended."""
        return [pending.utterance for pending in self._pending]

    def submit(self, utterance: FinishedUtterance, window: InferenceInput) -> None:
        """Have an utterance read; wait while too many are being read already.

        Raises:
            GorggleError: one of those before could not be read.
        """
        while len(self._pending) >= MAX_PENDING and not self._stopped:
            self._wait_for_oldest()
        track, stretch = utterance.turn.track, utterance.turn.span
        # Taken now: the scene will have let go of them when the words are known.
        boxes = track.get_boxes(stretch) if track and self._options.face_boxes else ()
        readings = utterance.speculative or self._backend.submit(
            self._options.model, window, self._decoding_options
        )
        with self._emitter.lock:
            self._pending.append(
                _PendingUtterance(utterance, window.modality, self._shift_boxes(boxes), readings)
            )
        readings.add_done_callback(lambda _: self._send_finished())

    def wait(self) -> None:
        """Wait until all were read and sent; raises as ``submit`` does."""
        while self._pending and not self._stopped:
            self._wait_for_oldest()

    def stop(self) -> None:
        """Give up everything that is being read."""
        self._stopped = True
        for pending in list(self._pending):
            pending.result.cancel()

    def _wait_for_oldest(self) -> None:
        """Wait until the oldest utterance was read; raise what went wrong with it."""
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
        """Send the segments at the head of the line that have been read."""
        with self._emitter.lock:
            while (
                self._pending and self._pending[0].result.done() and not self._pending[0].result.cancelled()
            ):
                pending = self._pending[0]
                if pending.result.exception() is not None:
                    return  # _wait_for_oldest raises it on the session's own thread
                self._pending.popleft()
                segment = self._create_segment(pending, pending.result.result())
                if segment is not None:
                    self._segment_count += bool(segment.best.text)
                    self._emitter.emit(segment)

    def _create_segment(self, pending: _PendingUtterance, hypotheses: Iterable[Hypothesis]) -> Segment | None:
        utterance = pending.utterance
        stretch = shift_span(utterance.turn.span, self._first_frame)
        found = [to_media_time(reading, stretch) for reading in hypotheses if reading.text]
        revision = 0
        if utterance.interim is not None:
            revision = utterance.interim.revision
            found[:1] = [utterance.interim.text.finalize(found[0] if found else Hypothesis("", 0.0))]
        # Without words there is nothing to say, but where something was said already.
        if not found or not (found[0].text or revision):
            return None
        start_s, end_s = get_time_bounds(found[0], stretch)
        best, *alternatives = (
            apply_output_options(reading, word_timestamps=self._options.word_timestamps) for reading in found
        )
        return Segment(
            segment_id=utterance.channel.create_segment_id(stretch.start),
            revision=revision + 1,
            is_final=True,
            stable_words=len(found[0].text.split()),
            start_s=start_s,
            end_s=end_s,
            best=best,
            alternatives=tuple(alternatives),
            speaker_id=self._emitter.get_speaker_id(utterance.turn.track),
            face_boxes=pending.face_boxes,
            modality=pending.modality,
        )

    def _shift_boxes(self, boxes: tuple[FaceBox, ...]) -> tuple[FaceBox, ...]:
        if not self._first_frame:
            return boxes
        return tuple(
            FaceBox(
                frames_to_seconds(round(box.offset_s * FRAME_RATE_HZ) + self._first_frame),
                box.left,
                box.top,
                box.width,
                box.height,
            )
            for box in boxes
        )
