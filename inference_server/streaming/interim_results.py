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
    SETTLED_BEFORE_TURN_S,
    STABLE_MARGIN_S,
    InterimRateLimiter,
    StableTextTracker,
)
from gorggle_server.streaming.segment_builder import (
    apply_output_options,
    interpolate_word_times,
    shift_span,
    span,
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
        window: makes a window of a stretch and a face.
        voice: how results leave.
        first_frame: the media's frame at which the scene's clock starts.
        resumed: utterances that another server had begun to send, by their segment ids.
    """

    def __init__(
        self,
        options: RecognitionOptions,
        backend: InferenceBackend,
        window: Callable[[FrameSpan, FaceTrack | None], InferenceInput],
        voice: EventEmitter,
        first_frame: int,
        resumed: Mapping[str, PartialTranscript],
    ) -> None:
        self._options, self._backend, self._window, self._voice = options, backend, window, voice
        self._first_frame, self._resumed = first_frame, dict(resumed)
        self._search = DecodingOptions(1, options.length_penalty, 0, word_times=True)
        self._cadence = InterimRateLimiter()

    # ------------------------------------------------------------------------------------------------ interim results

    def read(
        self,
        channel: ActivityChannel,
        stretch: FrameSpan,
        turns_in: Callable[[FrameSpan], list[SpeakerTurn]],
        *,
        several_faces: bool,
    ) -> None:
        """Have the last turn of an open stretch read, if it is time to."""
        if self._is_foretold(channel) or not self._is_due(channel, stretch):
            return  # of a pause there is no more to say than its foretold end will
        turn = turns_in(stretch)[-1]
        start = turn.stretch.start
        with self._voice.lock:
            utterance = channel.open.get(start)
        utterance = utterance or self._opened(channel, start)
        utterance.read_until, utterance.submitted_at = turn.stretch.end, time.monotonic()
        window = self._window(turn.stretch, turn.track)
        guard_s = SETTLED_BEFORE_TURN_S if several_faces else STABLE_MARGIN_S
        utterance.reading = self._backend.submit(self._options.model, window, self._search, interim=True)
        utterance.reading.add_done_callback(
            functools.partial(self._send, channel, utterance, turn, guard_s, window.modality)
        )

    def _is_due(self, channel: ActivityChannel, stretch: FrameSpan) -> bool:
        """Whether so much was said since the last reading that another one is worth it; one at a time."""
        with self._voice.lock:
            going_on = [item for item in channel.open.items() if item[0] >= stretch.start]
        if not going_on:
            return self._cadence.is_due(stretch.frames, 0, 0.0)
        start, latest = max(going_on, key=lambda item: item[0])
        if latest.reading is not None and not latest.reading.done():
            return False
        since_s = time.monotonic() - latest.submitted_at
        return self._cadence.is_due(stretch.end - start, latest.read_until - start, since_s)

    def _opened(self, channel: ActivityChannel, start: int) -> OpenUtterance:
        segment_id = channel.segment_id(start + self._first_frame)
        known = self._resumed.pop(segment_id, None)
        begin_s = frames_to_seconds(start + self._first_frame)
        if known is None:
            utterance = OpenUtterance(segment_id, StableTextTracker())
        else:
            text = StableTextTracker(interpolate_word_times(known.stable_text, begin_s, known.stable_end_s))
            utterance = OpenUtterance(segment_id, text, known.revision)
        with self._voice.lock:
            channel.open[start] = utterance
        return utterance

    def _send(
        self,
        channel: ActivityChannel,
        utterance: OpenUtterance,
        turn: SpeakerTurn,
        guard_s: float,
        modality: Modality,
        done: Future[list[Hypothesis]],
    ) -> None:
        self._cadence.record_latency(time.monotonic() - utterance.submitted_at)
        if done.cancelled() or done.exception() is not None:
            return  # the final result will come, or raise
        stretch = shift_span(turn.stretch, self._first_frame)
        with self._voice.lock:
            found = next((reading for reading in done.result() if reading.text), None)
            if found is None or channel.open.get(turn.stretch.start) is not utterance:
                return  # nothing was said yet, or the utterance has ended meanwhile
            best = utterance.text.take(
                to_media_time(found, stretch), frames_to_seconds(stretch.end) - guard_s
            )
            utterance.revision += 1
            start_s, end_s = span(best, stretch)
            self._voice.emit(
                Segment(
                    segment_id=utterance.segment_id,
                    revision=utterance.revision,
                    is_final=False,
                    stable_words=utterance.text.stable_words,
                    start_s=start_s,
                    end_s=end_s,
                    best=apply_output_options(best, word_times=self._options.word_times),
                    speaker_id=self._voice.speaker_id(turn.track),
                    modality=modality,
                )
            )

    # ------------------------------------------------------------------------------------------------- the end of one

    def ended(self, channel: ActivityChannel, start: int) -> OpenUtterance | None:
        """The utterance that began at ``start`` is over: no more of it will be sent from here."""
        with self._voice.lock:
            utterance = channel.open.pop(start, None)
        if utterance is None:
            segment_id = channel.segment_id(start + self._first_frame)
            return self._opened(channel, start) if segment_id in self._resumed else None
        if utterance.reading is not None:
            utterance.reading.cancel()
        return utterance

    def retract_before(self, channel: ActivityChannel, before: int) -> None:
        """Say of what was begun before a frame and is none after all that it is over: without text, but for what had settled."""
        with self._voice.lock:
            for start in [start for start in channel.open if start < before]:
                utterance = channel.open.pop(start)
                if utterance.reading is not None:
                    utterance.reading.cancel()
                if not utterance.revision:
                    continue
                stretch = FrameSpan(start + self._first_frame, utterance.read_until + self._first_frame)
                best = (
                    utterance.text.finish(Hypothesis("", 0.0))
                    if utterance.text.stable_words
                    else Hypothesis("", 0.0)
                )
                start_s, end_s = span(best, stretch)
                self._voice.emit(
                    Segment(
                        segment_id=utterance.segment_id,
                        revision=utterance.revision + 1,
                        is_final=True,
                        stable_words=utterance.text.stable_words,
                        start_s=start_s,
                        end_s=end_s,
                        best=apply_output_options(best, word_times=self._options.word_times),
                        speaker_id=self._voice.speaker_id(channel.track),
                        modality=self._options.modality,
                    )
                )

    # ------------------------------------------------------------------------------------------------------ foresight

    def decode_speculatively(
        self,
        channel: ActivityChannel,
        known_until: int,
        search: DecodingOptions,
        turns_in: Callable[[FrameSpan], list[SpeakerTurn]],
    ) -> None:
        """While somebody pauses, read what will be the utterance if nobody goes on.

        A pause of half a second ends an utterance, and it is read without what is silent: it can be read while the
        pause is waited for. It is final work: mostly it is the final reading, and somebody waits for it.
        """
        going_on = channel.open_stretch
        if going_on is None:
            return
        end = _foretold_end(channel)
        if end > min(known_until, channel.available_until) or end <= going_on.start:
            return
        stretch = FrameSpan(going_on.start, end)
        if channel.foretold is not None:
            if channel.foretold.stretch == stretch:
                return
            channel.foretold.reading.cancel()
        found = turns_in(stretch)
        if len(found) > 1:
            return
        track = found[0].track
        reading = self._backend.submit(self._options.model, self._window(stretch, track), search)
        channel.foretold = SpeculativeResult(stretch, track, reading)
        # It need not wait for readings of less.
        for utterance in list(channel.open.values()):
            if utterance.reading is not None:
                utterance.reading.cancel()

    def _is_foretold(self, channel: ActivityChannel) -> bool:
        """Whether all that was said so far is being read as if it had ended, or was."""
        known = channel.foretold
        return known is not None and known.stretch.end == _foretold_end(channel)

    def take_speculative_result(
        self, channel: ActivityChannel, turn: SpeakerTurn
    ) -> Future[list[Hypothesis]] | None:
        """The reading of a turn that was foretold, if it was; what was foretold and has not come is given up."""
        known, channel.foretold = channel.foretold, None
        if known is None:
            return None
        more_silence = turn.stretch.end - known.stretch.end
        is_same = (
            known.stretch.start == turn.stretch.start
            and 0 <= more_silence <= max(0, channel.options.margin_frames - SPECULATION_DELAY_FRAMES)
            and known.track is turn.track
        )
        if is_same and not known.reading.cancelled():
            return known.reading
        known.reading.cancel()
        return None

    def stop(self, channels: Iterable[ActivityChannel]) -> None:
        """Give up everything that waits for the device."""
        for channel in channels:
            for utterance in list(channel.open.values()):
                if utterance.reading is not None:
                    utterance.reading.cancel()
            if channel.foretold is not None:
                channel.foretold.reading.cancel()


def _foretold_end(channel: ActivityChannel) -> int:
    """The end of the open stretch, if nobody goes on."""
    return channel.last_active + 1 + min(SPECULATION_DELAY_FRAMES, channel.options.margin_frames)
