"""One stream from media to segments: watches the scene grow, cuts it into utterances, has them read, says the words.

Runs on a thread of its own. Perceiving goes on while the device reads earlier utterances; segments leave in the order
in which their utterances ended. Segments are named for the frame at which they begin and for whose they are, so that
whoever reads the same media again gives them the same names.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from inference_server.channel import Channel, Cut, OpenUtterance
from inference_server.endpointing import EndpointingOptions, Stretch
from inference_server.errors import NoFaceError, NotReadyError
from inference_server.listening import Listening
from inference_server.live_results import LiveResults, OpenText, StreamVoice
from inference_server.media.audio import audio_features
from inference_server.recognizer import SearchOptions, Window, seconds_of
from inference_server.scene import FaceTrack, Scene
from inference_server.scheduler import InferenceBackend
from inference_server.segments import earliest, moved, placed, shown, span, speech_begins, speech_ends
from inference_server.speakers import Turn, turns
from inference_server.stream_state import ChannelState, StreamState
from inference_server.transcript import (
    VIDEO_FRAME_RATE_HZ,
    Event,
    FaceBox,
    Finished,
    Modality,
    Progress,
    Reading,
    RecognitionOptions,
    Segment,
    StreamWarning,
    WarningKind,
)
from inference_server.vision.activity import sound_agreement

_log = logging.getLogger(__name__)

VOICE = "voice"
# Utterances that may wait for the device before perceiving pauses.
MAX_PENDING = 2
PROGRESS_EVERY_FRAMES = VIDEO_FRAME_RATE_HZ
# Below this level (of 32 768) the sound counts as silent: −60 dBFS.
SILENT_RMS = 33.0
# Lips that move for so long without any speech in the sound are read all the same: noise may hide the voice.
MIN_UNHEARD_FRAMES = 20
# Stretches of sound that are remembered, to tell lips that nobody heard.
HEARD_STRETCHES = 20


class Perception(Protocol):
    """Turns media into a scene, a little at a time."""

    @property
    def scene(self) -> Scene:
        """What was seen and heard so far."""
        ...

    @property
    def has_sound(self) -> bool:
        """Whether there is sound."""
        ...

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures."""
        ...

    @property
    def sees_faces(self) -> bool:
        """Whether it sees whole faces with their landmarks, or mouth crops alone."""
        ...

    @property
    def faces_now(self) -> int:
        """Faces in the latest picture."""
        ...

    @property
    def faces_seen(self) -> int:
        """People seen so far."""
        ...

    def steps(self) -> Iterable[Iterable[Event]]:
        """Take in a little media at a time, add it to the scene, and yield what there is to say about it."""
        ...


@dataclass(frozen=True)
class Resumed:
    """Where a session goes on that another server began.

    Attributes:
        state: the stream as it was, on the media's clock.
        first_frame: the media's frame at which the scene's clock starts.
        open_texts: what was sent of utterances that had not ended, by segment id.
    """

    state: StreamState = field(default_factory=StreamState)
    first_frame: int = 0
    open_texts: Mapping[str, OpenText] = field(default_factory=dict)


@dataclass
class _Utterance:
    """Speech of one person on its way through the device."""

    channel: Channel
    cut: Cut
    turn: Turn
    modality: Modality
    going_on: OpenUtterance | None
    face_boxes: tuple[FaceBox, ...]
    readings: Future[list[Reading]]


class Session:
    """Reads one stream."""

    def __init__(
        self,
        perception: Perception,
        options: RecognitionOptions,
        backend: InferenceBackend,
        emit: Callable[[Event], None],
        wait_for_room: Callable[[], None] = lambda: None,
        resumed: Resumed | None = None,
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
        resumed = resumed or Resumed()
        self._perception, self._scene = perception, perception.scene
        self._options, self._backend = options, backend
        self._emit_event, self._wait_for_room = emit, wait_for_room
        self._endpointing = EndpointingOptions.of(options.endpointing)
        self._lip_endpointing = (
            self._endpointing.for_lips() if perception.sees_faces else self._endpointing.for_crops()
        )
        # The times of words tell which of them have settled, whether the caller wants them or not.
        word_times = options.word_times or options.interim_results
        self._search = SearchOptions(
            options.beam_size, options.length_penalty, options.max_alternatives, word_times
        )
        self._first_frame = resumed.first_frame
        before = resumed.state.moved(self._first_frame)
        self._states = {channel.person: channel for channel in before.channels}
        self._sound = Channel(self._endpointing, resumed=self._states.pop(None, None))
        self._listening = Listening(self._scene)
        self._faces: dict[int, Channel] = {}
        self._heard = [
            Stretch(*heard) for heard in before.heard
        ]  # recent stretches of sound, to tell lips that nobody heard
        self._waiting: list[tuple[Channel, Cut]] = []  # ended, but their pictures are not all there yet
        self._pending: deque[_Utterance] = deque()
        self._lock = threading.RLock()
        self._names = {person: f"face-{number}" for number, person in enumerate(before.people, 1)}
        self._segments_sent, self._has_found_speech = before.segments, before.utterances
        self._done_until = self._final_until = before.final_until
        self._spoke_until = before.spoke_until
        self._stock: tuple[dict[Channel, ChannelState], int] = ({}, 0)
        self._next_progress = PROGRESS_EVERY_FRAMES
        self._stopped = False
        voice = StreamVoice(self._lock, self._emit_event, self._speaker_id)
        self._live = LiveResults(options, backend, self._window, voice, self._first_frame, resumed.open_texts)

    def run(self) -> None:
        """Read to the end of the media; events leave through ``emit``, the last one is ``Finished``.

        Raises:
            GorggleError: the media cannot be read, or holds no face where only lips are to be read.
        """
        steps = iter(self._perception.steps())
        try:
            for events in steps:
                for event in events:
                    self._say(event)
                self._advance(media_ended=False)
                self._report_progress()
                self._wait_for_room()
                if self._stopped:
                    return
                if self._has_been_silent():
                    break
            self._advance(media_ended=True)
            self._check_what_was_seen()
            while self._pending and not self._stopped:
                self._wait_for_oldest()
            self._say(
                Finished(self._media_s(self._known_end()), self._segments_sent, self._perception.faces_seen)
            )
        finally:
            if isinstance(steps, Generator):
                steps.close()
            self._drop_pending()

    def stop(self) -> None:
        """Give up: the caller has gone. ``run`` returns after the step at hand."""
        self._stopped = True
        self._drop_pending()

    # ------------------------------------------------------------------------------------------- cutting utterances

    def _advance(self, media_ended: bool) -> None:
        """Cut what has come in since the last time, and hand ended utterances to the device."""
        if self._uses_sound():
            known_until, activity_in = self._scene.sound_judged_until, self._scene.sound_speaking_in
            if self._options.modality.sees and not self._sound.closed:
                known_until = self._listening.known_until(media_ended=media_ended)
                activity_in = self._listening.activity_in
            self._follow(self._sound, known_until, activity_in, media_ended)
        if self._options.modality.sees:
            for track in list(self._scene.tracks.values()):
                self._follow(
                    self._face_channel(track),
                    track.judged_until,
                    track.speaking_in,
                    media_ended or track.ended,
                )
            self._faces = {
                number: self._faces[number] for number in self._faces if number in self._scene.tracks
            }
        self._submit_waiting(media_ended)
        if not media_ended:
            self._read_ahead()
        self._take_stock()
        self._scene.forget_before(self._needed_from())

    def _face_channel(self, track: FaceTrack) -> Channel:
        channel = self._faces.get(track.track_id)
        if channel is None:
            known = self._states.pop(track.person, None)
            channel = Channel(self._lip_endpointing, track.start, track, known)
            self._faces[track.track_id] = channel
        return channel

    def _follow(
        self,
        channel: Channel,
        judged_until: int,
        activity_in: Callable[[Stretch], np.ndarray],
        ended: bool,
    ) -> None:
        cuts = channel.follow(judged_until, activity_in, ended=ended)
        for cut in cuts:
            self._note_activity(channel, cut.stretch)
            self._spoke_until = max(self._spoke_until, cut.stretch.end)
            if channel is self._sound:
                self._heard = [*self._heard[1 - HEARD_STRETCHES :], cut.stretch]
            self._waiting.append((channel, cut))
        if not cuts:
            self._note_activity(channel, None)

    def _submit_waiting(self, media_ended: bool) -> None:
        """Submit the ended stretches whose pictures and sound are all there."""
        still_waiting = []
        # A little later it is surer whose lips moved; live, that takes too long.
        later = 0 if self._options.live else self._endpointing.margin_frames
        for channel, cut in self._waiting:
            if not media_ended and self._known_until() < cut.stretch.end + later:
                still_waiting.append((channel, cut))
                continue
            for turn in self._turns(channel, cut.stretch) if self._counts(channel, cut.stretch) else ():
                self._submit(channel, cut, turn)
            self._live.withdraw(channel, cut.stretch.end)
        self._waiting = still_waiting

    def _turns(self, channel: Channel, stretch: Stretch) -> list[Turn]:
        """Who speaks in a stretch of a channel."""
        if channel is not self._sound:
            return [Turn(stretch, channel.track)]
        tracks = list(self._scene.tracks.values()) if self._options.modality.sees else []
        sound = self._scene.sound_speaking_in(stretch)
        agreement = (
            {track.track_id: sound_agreement(track.speaking_in(stretch), sound) for track in tracks}
            if len(tracks) > 1
            else {}
        )
        return turns(stretch, tracks, sound, agreement)

    def _counts(self, channel: Channel, stretch: Stretch) -> bool:
        """Whether a stretch is to be read: of lips, where there is sound, only what nobody heard."""
        if channel is self._sound or not self._uses_sound() or self._was_unheard(stretch):
            return True
        # What has settled was promised.
        return any(
            utterance.text.stable_words
            for start, utterance in list(channel.open.items())
            if stretch.start <= start < stretch.end
        )

    def _was_unheard(self, stretch: Stretch) -> bool:
        """Whether lips moved for a while and the sound had no speech to it."""
        going_on = self._sound.open_stretch
        speech = [*self._heard, going_on] if going_on is not None else self._heard
        heard = sum(stretch.overlap(other) for other in speech)
        return stretch.frames >= MIN_UNHEARD_FRAMES and heard < 0.2 * stretch.frames

    def _uses_sound(self) -> bool:
        return self._options.modality.hears and self._perception.has_sound

    def _known_until(self) -> int:
        """The frame up to which everything that is read is there."""
        known = []
        if self._uses_sound():
            known.append(self._scene.sound_judged_until)
        if self._options.modality.sees and self._perception.has_pictures:
            # Of live media the last crops may still be cut more steadily: nobody waits for that.
            known.append(max(self._scene.seen_until, self._scene.glimpsed_until))
        return min(known, default=0)

    def _known_end(self) -> int:
        return max(self._scene.seen_until, self._scene.heard_until)

    def _needed_from(self) -> int:
        """The frame before which no utterance will want anything."""
        # Lips may begin to move before a sound that is not there yet: keep half an utterance's margin more.
        slack = 2 * self._endpointing.margin_frames
        needed = [cut.stretch.start for _, cut in self._waiting]
        needed += [channel.settled_until - slack for channel in self._channels()]
        return earliest(needed, self._known_until())

    def _channels(self) -> list[Channel]:
        """The curves still being cut."""
        channels = ([self._sound] if self._uses_sound() else []) + list(self._faces.values())
        return [channel for channel in channels if not channel.closed]

    def _has_been_silent(self) -> bool:
        """Whether nobody has spoken for so long that the stream shall end; says so."""
        limit_s = self._options.close_after_silence_s
        if not limit_s or self._waiting or self._pending:
            return False
        going_on = [channel.open_stretch is not None for channel in self._channels()]
        if any(going_on) or seconds_of(self._known_until() - self._spoke_until) < limit_s:
            return False
        text = f"nobody has spoken for {limit_s:g} s: the stream ends, as was asked for"
        self._say(StreamWarning(WarningKind.CLOSED_AFTER_SILENCE, text))
        return True

    # ------------------------------------------------------------------------------------------------------ reading

    def _submit(self, channel: Channel, cut: Cut, turn: Turn) -> None:
        self._has_found_speech = True
        going_on = self._live.ended(channel, turn.stretch.start)
        foretold = self._live.foretold(channel, turn)
        if turn.stretch.start < self._done_until:
            return  # it was read and sent before this session was taken up
        while len(self._pending) >= MAX_PENDING and not self._stopped:
            self._wait_for_oldest()
        window = self._window(turn.stretch, turn.track)
        # Taken now: the scene will have let go of them when the words are known.
        boxes = turn.track.boxes_in(turn.stretch) if turn.track and self._options.face_boxes else ()
        readings = foretold or self._backend.submit(self._options.model, window, self._search)
        with self._lock:
            self._pending.append(_Utterance(channel, cut, turn, window.modality, going_on, boxes, readings))
        readings.add_done_callback(lambda _: self._send_finished())

    def _read_ahead(self) -> None:
        """Have open utterances read, for interim results and to have the final ones sooner."""
        known_until = self._known_until()
        for channel in self._channels():
            going_on = channel.open_stretch
            if going_on is None or going_on.start < self._done_until:
                continue
            stretch = Stretch(going_on.start, min(going_on.end, known_until))
            if stretch.frames <= 0 or not self._counts(channel, stretch):
                continue
            turns_in = functools.partial(self._turns, channel)
            if self._options.interim_results:
                several = channel is self._sound and len(self._scene.tracks) > 1
                self._live.read(channel, stretch, turns_in, several_faces=several)
            if self._options.live:
                self._live.foretell(channel, known_until, self._search, turns_in)

    def _window(self, stretch: Stretch, track: FaceTrack | None) -> Window:
        crops = track.crops_in(stretch) if track is not None else None
        if not self._uses_sound():
            return Window(crops, None)
        sound = self._scene.sound_in(stretch)
        if crops is not None and float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) < SILENT_RMS:
            return Window(crops, None)
        return Window(crops, audio_features(sound)[: stretch.frames])

    def _wait_for_oldest(self) -> None:
        """Wait until the oldest utterance was read; raise what went wrong with it."""
        try:
            oldest = self._pending[0]
        except IndexError:
            return
        try:
            oldest.readings.result()
        except CancelledError:
            if self._stopped:
                return
            raise NotReadyError("the server is shutting down: send the rest to another one") from None
        self._send_finished()

    def _send_finished(self) -> None:
        """Send the segments at the head of the line that have been read."""
        with self._lock:
            while (
                self._pending
                and self._pending[0].readings.done()
                and not self._pending[0].readings.cancelled()
            ):
                utterance = self._pending[0]
                if utterance.readings.exception() is not None:
                    return  # _wait_for_oldest raises it on the session's own thread
                self._pending.popleft()
                segment = self._final_segment(utterance, utterance.readings.result())
                if segment is not None:
                    self._segments_sent += bool(segment.best.text)
                    self._emit_event(segment)

    def _drop_pending(self) -> None:
        for utterance in list(self._pending):
            utterance.readings.cancel()
        self._live.stop([self._sound, *self._faces.values()])

    def _final_segment(self, utterance: _Utterance, readings: list[Reading]) -> Segment | None:
        stretch = moved(utterance.turn.stretch, self._first_frame)
        found = [placed(reading, stretch) for reading in readings if reading.text]
        revision = 0
        if utterance.going_on is not None:
            revision = utterance.going_on.revision
            found[:1] = [utterance.going_on.text.finish(found[0] if found else Reading("", 0.0))]
        # Without words there is nothing to say, but where something was said already.
        if not found or not (found[0].text or revision):
            return None
        start_s, end_s = span(found[0], stretch)
        readings = [shown(reading, word_times=self._options.word_times) for reading in found]
        return Segment(
            segment_id=utterance.channel.segment_id(stretch.start),
            revision=revision + 1,
            is_final=True,
            stable_words=len(found[0].text.split()),
            start_s=start_s,
            end_s=end_s,
            best=readings[0],
            alternatives=tuple(readings[1:]),
            speaker_id=self._speaker_id(utterance.turn.track),
            face_boxes=self._on_medias_clock(utterance.face_boxes),
            modality=utterance.modality,
        )

    def _on_medias_clock(self, boxes: tuple[FaceBox, ...]) -> tuple[FaceBox, ...]:
        if not self._first_frame:
            return boxes
        return tuple(
            FaceBox(
                self._media_s(round(box.offset_s * VIDEO_FRAME_RATE_HZ)),
                box.left,
                box.top,
                box.width,
                box.height,
            )
            for box in boxes
        )

    def _speaker_id(self, track: FaceTrack | None) -> str:
        """Faces are numbered in the order in which they first speak."""
        if track is None:
            return VOICE
        with self._lock:
            return self._names.setdefault(track.person, f"face-{len(self._names) + 1}")

    # ------------------------------------------------------------------------------------------------- what is told

    def _say(self, event: Event) -> None:
        with self._lock:
            self._emit_event(event)

    def _note_activity(self, channel: Channel, ended: Stretch | None) -> None:
        stretch = ended or channel.open_stretch
        if stretch is not None:
            self._spoke_until = max(self._spoke_until, stretch.end)
        if not self._options.activity_events or stretch is None or stretch.start < self._done_until:
            return
        if not channel.begun and not self._counts(channel, stretch):
            return
        told, speaker = moved(stretch, self._first_frame), self._speaker_id(channel.track)
        margin = self._endpointing.margin_frames
        if not channel.begun:
            channel.begun = True
            self._say(speech_begins(told, margin, speaker))
        if ended is not None:
            channel.begun = False
            self._say(speech_ends(told, margin, speaker))

    def _report_progress(self) -> None:
        received = self._known_end()
        if received >= self._next_progress:
            self._next_progress = received + PROGRESS_EVERY_FRAMES
            with self._lock:
                state = self._state()
                processed_s = seconds_of(state.final_until)
                received_s = max(self._media_s(received), processed_s)
                self._emit_event(Progress(received_s, processed_s, self._perception.faces_now, state))

    def _take_stock(self) -> None:
        """Note how far the media is cut; utterances that are being read are added when it is told."""
        states = {channel: channel.state for channel in self._channels()}
        for channel, cut in reversed(self._waiting):
            states[channel] = channel.state_at(cut)
        with self._lock:
            self._stock = states, self._known_until()

    def _state(self) -> StreamState:
        """The stream as it is now, on the media's clock."""
        stock, known_until = self._stock
        states = dict(stock)
        for utterance in reversed(self._pending):
            states[utterance.channel] = utterance.channel.state_at(utterance.cut)
        settled = [state.settled_until for state in states.values()]
        # A channel's first utterance may be one of several turns, of which the others are sent.
        final = [state.settled_until for channel, state in stock.items()]
        final += [utterance.turn.stretch.start for utterance in self._pending]
        self._final_until = max(self._final_until, earliest(final, known_until))
        return StreamState(
            final_until=self._final_until,
            needed_from=earliest(settled, known_until),
            channels=tuple(states.values()),
            heard=tuple((heard.start, heard.end) for heard in self._heard),
            people=tuple(self._names),
            spoke_until=self._spoke_until,
            segments=self._segments_sent,
            utterances=self._has_found_speech,
        ).moved(-self._first_frame)

    def _media_s(self, frame: int) -> float:
        """A frame's time on the media's clock."""
        return seconds_of(frame + self._first_frame)

    def _check_what_was_seen(self) -> None:
        """At the end: an answer without words must say why."""
        perception = self._perception
        sees_nobody = not perception.faces_seen and not self._names
        if self._options.modality is Modality.VIDEO_ONLY and sees_nobody:
            raise NoFaceError(
                f"no face was found in {self._media_s(self._known_end()):.1f} s of video: lips can be read where a face "
                "is turned to the camera and at least about 80 pixels wide"
            )
        if self._options.modality is Modality.AUDIO_VISUAL and sees_nobody:
            what = "no face was found" if perception.has_pictures else "there are no pictures"
            self._say(StreamWarning(WarningKind.NO_FACE, f"{what}: the words are read from the sound alone"))
        if not self._has_found_speech:
            where = "the lips" if not self._uses_sound() else "the sound and the lips"
            self._say(StreamWarning(WarningKind.NO_SPEECH, f"nobody speaks: no speech was found in {where}"))
