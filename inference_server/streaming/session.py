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
from gorggle_server.streaming.segment_builder import earliest, shift_span, speech_begins, speech_ends
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

PROGRESS_EVERY_FRAMES = VIDEO_FRAME_RATE_HZ
# Below this level (of 32 768) the sound counts as silent: −60 dBFS.
SILENCE_RMS = 33.0


@dataclass(frozen=True)
class ResumeState:
    """Where a session goes on that another server began.

    Attributes:
        state: the stream as it was, on the media's clock.
        first_frame: the media's frame at which the scene's clock starts.
        open_texts: what was sent of utterances that had not ended, by segment id.
    """

    state: StreamCheckpoint = field(default_factory=StreamCheckpoint)
    first_frame: int = 0
    open_texts: Mapping[str, PartialTranscript] = field(default_factory=dict)


class RecognitionSession:
    """Reads one stream."""

    def __init__(
        self,
        perception: MediaPipeline,
        options: RecognitionOptions,
        backend: InferenceBackend,
        emit: Callable[[Event], None],
        wait_for_room: Callable[[], None] = lambda: None,
        resumed: ResumeState | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            perception: where the scene comes from.
            options: how to read.
            backend: who reads the windows.
            emit: takes the events; called from this thread and from the backend's, never from both at once.
            wait_for_room: blocks while the events' reader lags.
            resumed: what was read before, elsewhere; None: nothing.
        """
        resumed = resumed or ResumeState()
        self._perception, self._scene = perception, perception.scene
        self._options, self._backend = options, backend
        self._wait_for_room = wait_for_room
        # The times of words tell which of them have settled, whether the caller wants them or not.
        word_times = options.word_times or options.interim_results
        self._search = DecodingOptions(
            options.beam_size, options.length_penalty, options.max_alternatives, word_times
        )
        self._first_frame = resumed.first_frame
        before = resumed.state.moved(self._first_frame)
        self._curves = UtteranceSegmenter(perception, options, before)
        self._waiting: list[
            tuple[ActivityChannel, EndedSpan]
        ] = []  # ended, but their pictures are not all there yet
        self._voice = EventEmitter(emit, before.people)
        self._has_found_speech = before.utterances
        self._done_until = self._final_until = before.final_until
        self._spoke_until = before.spoke_until
        self._stock: tuple[dict[ActivityChannel, ChannelCheckpoint], int] = ({}, 0)
        self._next_progress = PROGRESS_EVERY_FRAMES
        self._stopped = False
        self._finals = FinalDecoder(
            options, backend, self._search, self._voice, self._first_frame, before.segments
        )
        self._live = InterimDecoder(
            options, backend, self._window, self._voice, self._first_frame, resumed.open_texts
        )

    def run(self) -> None:
        """Read to the end of the media; events leave through ``emit``, the last one is ``Finished``.

        Raises:
            GorggleError: the media cannot be read, or holds no face where only lips are to be read.
        """
        steps = iter(self._perception.steps())
        try:
            for events in steps:
                for event in events:
                    self._voice.emit(event)
                self._advance(media_ended=False)
                self._report_progress()
                self._wait_for_room()
                if self._stopped:
                    return
                if self._has_been_silent():
                    break
            self._advance(media_ended=True)
            self._report_missing_input()
            self._finals.wait()
            self._voice.emit(
                Finished(self._media_s(self._known_end()), self._finals.segments, self._perception.faces_seen)
            )
        finally:
            if isinstance(steps, Generator):
                steps.close()
            self._give_up()

    def stop(self) -> None:
        """Give up: the caller has gone. ``run`` returns after the step at hand."""
        self._stopped = True
        self._give_up()

    # ------------------------------------------------------------------------------------------- cutting utterances

    def _advance(self, *, media_ended: bool) -> None:
        """Cut what has come in since the last time, and hand ended utterances to the device."""
        for channel, cuts in self._curves.advance(media_ended=media_ended):
            for cut in cuts:
                self._note_activity(channel, cut.stretch)
                self._waiting.append((channel, cut))
            if not cuts:
                self._note_activity(channel, None)
        self._submit_waiting(media_ended=media_ended)
        if not media_ended:
            self._read_ahead()
        self._snapshot_state()
        self._scene.discard_before(self._needed_from())

    def _submit_waiting(self, *, media_ended: bool) -> None:
        """Submit the ended stretches whose pictures and sound are all there."""
        still_waiting = []
        # A little later it is surer whose lips moved; live, that takes too long.
        later = 0 if self._options.live else self._curves.endpointing.margin_frames
        for channel, cut in self._waiting:
            if not media_ended and self._curves.known_until < cut.stretch.end + later:
                still_waiting.append((channel, cut))
                continue
            if self._curves.should_decode(channel, cut.stretch):
                for turn in self._curves.turns(channel, cut.stretch):
                    self._submit(channel, cut, turn)
            self._live.retract_before(channel, cut.stretch.end)
        self._waiting = still_waiting

    def _known_end(self) -> int:
        return max(self._scene.seen_until, self._scene.audio_until)

    def _needed_from(self) -> int:
        """The frame before which no utterance will want anything."""
        # Lips may begin to move before a sound that is not there yet: keep half an utterance's margin more.
        slack = 2 * self._curves.endpointing.margin_frames
        needed = [cut.stretch.start for _, cut in self._waiting]
        needed += [channel.committed_frame - slack for channel in self._curves.active_channels]
        return earliest(needed, self._curves.known_until)

    def _has_been_silent(self) -> bool:
        """Whether nobody has spoken for so long that the stream shall end; says so."""
        limit_s = self._options.silence_timeout_s
        if not limit_s or self._waiting or self._finals.pending:
            return False
        going_on = [channel.open_stretch is not None for channel in self._curves.active_channels]
        if any(going_on) or frames_to_seconds(self._curves.known_until - self._spoke_until) < limit_s:
            return False
        text = f"nobody has spoken for {limit_s:g} s: the stream ends, as was asked for"
        self._voice.emit(StreamWarning(WarningKind.CLOSED_AFTER_SILENCE, text))
        return True

    # ------------------------------------------------------------------------------------------------------ reading

    def _submit(self, channel: ActivityChannel, cut: EndedSpan, turn: SpeakerTurn) -> None:
        self._has_found_speech = True
        going_on = self._live.ended(channel, turn.stretch.start)
        foretold = self._live.take_speculative_result(channel, turn)
        if turn.stretch.start < self._done_until:
            return  # it was read and sent before this session was taken up
        utterance = FinishedUtterance(channel, cut, turn, going_on, foretold)
        self._finals.read(utterance, self._window(turn.stretch, turn.track))

    def _read_ahead(self) -> None:
        """Have open utterances read, for interim results and to have the final ones sooner."""
        known_until = self._curves.known_until
        for channel in self._curves.active_channels:
            going_on = channel.open_stretch
            if going_on is None or going_on.start < self._done_until:
                continue
            stretch = FrameSpan(going_on.start, min(going_on.end, known_until))
            if stretch.frames <= 0 or not self._curves.should_decode(channel, stretch):
                continue
            turns_in = functools.partial(self._curves.turns, channel)
            if self._options.live:
                self._live.decode_speculatively(channel, known_until, self._search, turns_in)
            if self._options.interim_results:
                several = channel is self._curves.sound and len(self._scene.tracks) > 1
                self._live.read(channel, stretch, turns_in, several_faces=several)

    def _window(self, stretch: FrameSpan, track: FaceTrack | None) -> InferenceInput:
        crops = track.crops_in(stretch) if track is not None else None
        if not self._curves.uses_sound:
            return InferenceInput(crops, None)
        sound = self._scene.sound_in(stretch)
        if crops is not None and float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) < SILENCE_RMS:
            return InferenceInput(crops, None)
        return InferenceInput(crops, audio_features(sound)[: stretch.frames])

    def _give_up(self) -> None:
        self._finals.stop()
        self._live.stop(self._curves.channels)

    # ------------------------------------------------------------------------------------------------- what is told

    def _note_activity(self, channel: ActivityChannel, ended: FrameSpan | None) -> None:
        stretch = ended or channel.open_stretch
        if stretch is not None:
            self._spoke_until = max(self._spoke_until, stretch.end)
        if not self._options.activity_events or stretch is None or stretch.start < self._done_until:
            return
        if not channel.begun and not self._curves.should_decode(channel, stretch):
            return
        told, speaker = shift_span(stretch, self._first_frame), self._voice.speaker_id(channel.track)
        margin = self._curves.endpointing.margin_frames
        if not channel.begun:
            channel.begun = True
            self._voice.emit(speech_begins(told, margin, speaker))
        if ended is not None:
            channel.begun = False
            self._voice.emit(speech_ends(told, margin, speaker))

    def _report_progress(self) -> None:
        received = self._known_end()
        if received >= self._next_progress:
            self._next_progress = received + PROGRESS_EVERY_FRAMES
            with self._voice.lock:
                state = self._state()
                processed_s = frames_to_seconds(state.final_until)
                received_s = max(self._media_s(received), processed_s)
                self._voice.emit(Progress(received_s, processed_s, self._perception.faces_now, state))

    def _snapshot_state(self) -> None:
        """Note how far the media is cut; utterances that are being read are added when it is told."""
        states = {channel: channel.state for channel in self._curves.active_channels}
        for channel, cut in reversed(self._waiting):
            states[channel] = channel.state_at(cut)
        with self._voice.lock:
            self._stock = states, self._curves.known_until

    def _state(self) -> StreamCheckpoint:
        """The stream as it is now, on the media's clock."""
        stock, known_until = self._stock
        states = dict(stock)
        pending = self._finals.pending
        for utterance in reversed(pending):
            states[utterance.channel] = utterance.channel.state_at(utterance.cut)
        settled = [state.settled_until for state in states.values()]
        # A channel's first utterance may be one of several turns, of which the others are sent.
        final = [state.settled_until for channel, state in stock.items()]
        final += [utterance.turn.stretch.start for utterance in pending]
        self._final_until = max(self._final_until, earliest(final, known_until))
        return StreamCheckpoint(
            final_until=self._final_until,
            needed_from=earliest(settled, known_until),
            channels=tuple(states.values()),
            heard=tuple((heard.start, heard.end) for heard in self._curves.heard),
            people=self._voice.people,
            spoke_until=self._spoke_until,
            segments=self._finals.segments,
            utterances=self._has_found_speech,
        ).moved(-self._first_frame)

    def _media_s(self, frame: int) -> float:
        """A frame's time on the media's clock."""
        return frames_to_seconds(frame + self._first_frame)

    def _report_missing_input(self) -> None:
        """At the end: an answer without words must say why."""
        perception = self._perception
        sees_nobody = not perception.faces_seen and not self._voice.people
        if self._options.modality is Modality.VIDEO_ONLY and sees_nobody:
            raise NoFaceError(
                f"no face was found in {self._media_s(self._known_end()):.1f} s of video: lips can be read where a face "
                "is turned to the camera and at least about 80 pixels wide"
            )
        if self._options.modality is Modality.AUDIO_VISUAL and sees_nobody:
            what = "no face was found" if perception.has_pictures else "there are no pictures"
            self._voice.emit(
                StreamWarning(WarningKind.NO_FACE, f"{what}: the words are read from the sound alone")
            )
        if not self._has_found_speech:
            where = "the lips" if not self._curves.uses_sound else "the sound and the lips"
            self._voice.emit(
                StreamWarning(WarningKind.NO_SPEECH, f"nobody speaks: no speech was found in {where}")
            )
