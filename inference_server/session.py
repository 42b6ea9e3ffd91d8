"""One stream from media to segments: watches the scene grow, cuts it into utterances, has them read, says the words.

Runs on a thread of its own. Perceiving goes on while the device reads earlier utterances; segments leave in the order
in which their utterances ended.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from inference_server.endpointing import Endpointer, EndpointingOptions, Stretch
from inference_server.errors import NoFaceError, NotReadyError
from inference_server.listening import Listening
from inference_server.media.audio import audio_features
from inference_server.recognizer import SearchOptions, Window, seconds_of
from inference_server.scene import FaceTrack, Scene
from inference_server.scheduler import InferenceBackend
from inference_server.speakers import Turn, turns
from inference_server.transcript import (
    VIDEO_FRAME_RATE_HZ,
    Activity,
    ActivityKind,
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
    Word,
)
from inference_server.vision.activity import sound_agreement

_log = logging.getLogger(__name__)

VOICE = "voice"
# Utterances that may wait for the device before perceiving pauses.
MAX_PENDING = 2
INTERIM_EVERY_FRAMES = 15
PROGRESS_EVERY_FRAMES = VIDEO_FRAME_RATE_HZ
# Below this level (of 32 768) the sound counts as silent: −60 dBFS.
SILENT_RMS = 33.0
# Lips that move for so long without any speech in the sound are read all the same: noise may hide the voice.
MIN_UNHEARD_FRAMES = 20


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


@dataclass
class _Utterance:
    """Speech of one person on its way through the device."""

    segment_id: str
    stretch: Stretch
    track: FaceTrack | None
    window: Window
    revision: int = 0
    face_boxes: tuple[FaceBox, ...] = ()
    readings: Future[list[Reading]] = field(default_factory=Future)


@dataclass
class _Channel:
    """One curve of activity being cut: the sound's, or one face's."""

    endpointer: Endpointer
    track: FaceTrack | None = None
    closed: bool = False
    begun: bool = False
    segment_id: str = ""
    revision: int = 0
    interim: Future[list[Reading]] | None = None
    interim_until: int = 0
    interim_words: tuple[str, ...] = ()


class Session:
    """Reads one stream."""

    def __init__(
        self,
        perception: Perception,
        options: RecognitionOptions,
        backend: InferenceBackend,
        emit: Callable[[Event], None],
        wait_for_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to read.

        Args:
            perception: where the scene comes from.
            options: how to read.
            backend: who reads the windows.
            emit: takes the events; called from this thread and from the backend's, never from both at once.
            wait_for_room: blocks while the events' reader lags.
        """
        self._perception, self._scene = perception, perception.scene
        self._options, self._backend = options, backend
        self._emit_event, self._wait_for_room = emit, wait_for_room
        self._endpointing = EndpointingOptions.of(options.endpointing)
        self._lip_endpointing = (
            self._endpointing.for_lips() if perception.sees_faces else self._endpointing.for_crops()
        )
        self._search = SearchOptions(
            options.beam_size, options.length_penalty, options.max_alternatives, options.word_times
        )
        self._interim_search = SearchOptions(1, options.length_penalty, 0, options.word_times)
        self._sound = _Channel(Endpointer(self._endpointing))
        self._listening = Listening(self._scene)
        self._faces: dict[int, _Channel] = {}
        self._heard: list[Stretch] = []  # recent stretches of sound, to tell lips that nobody heard
        self._waiting: list[tuple[_Channel, Stretch]] = []  # ended, but their pictures are not all there yet
        self._pending: deque[_Utterance] = deque()
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._segments_begun = self._segments_sent = 0
        self._next_progress = PROGRESS_EVERY_FRAMES
        self._stopped = False

    def run(self) -> None:
        """Read to the end of the media; events leave through ``emit``, the last one is ``Finished``.

        Raises:
            GorggleError: the media cannot be read, or holds no face where only lips are to be read.
        """
        try:
            for events in self._perception.steps():
                for event in events:
                    self._say(event)
                self._advance(media_ended=False)
                self._report_progress()
                self._wait_for_room()
                if self._stopped:
                    return
            self._advance(media_ended=True)
            self._check_what_was_seen()
            while self._pending and not self._stopped:
                self._wait_for_oldest()
            self._say(Finished(self._duration_s(), self._segments_sent, self._perception.faces_seen))
        finally:
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
                channel = self._faces.get(track.track_id)
                if channel is None:
                    channel = _Channel(Endpointer(self._lip_endpointing, track.start), track)
                    self._faces[track.track_id] = channel
                self._follow(channel, track.judged_until, track.speaking_in, media_ended or track.ended)
            self._faces = {
                number: self._faces[number] for number in self._faces if number in self._scene.tracks
            }
        self._submit_waiting(media_ended)
        if self._options.interim_results and not media_ended:
            self._submit_interim()
        self._scene.forget_before(self._needed_from())

    def _follow(
        self,
        channel: _Channel,
        judged_until: int,
        activity_in: Callable[[Stretch], np.ndarray],
        ended: bool,
    ) -> None:
        if channel.closed:
            return
        endpointer = channel.endpointer
        new = Stretch(endpointer.heard_until, max(judged_until, endpointer.heard_until))
        stretches = endpointer.push(activity_in(new))
        if ended:
            stretches += endpointer.finish()
            channel.closed = True
        for stretch in stretches:
            self._note_activity(channel, stretch)
            if channel is self._sound:
                self._heard = [*self._heard[-20:], stretch]
            self._waiting.append((channel, stretch))
        if not stretches:
            self._note_activity(channel, None)

    def _submit_waiting(self, media_ended: bool) -> None:
        """Submit the ended stretches whose pictures and sound are all there."""
        still_waiting = []
        for channel, stretch in self._waiting:
            if not media_ended and self._known_until() < stretch.end + self._endpointing.margin_frames:
                still_waiting.append((channel, stretch))
            elif channel is self._sound:
                self._submit_turns(channel, stretch)
            elif not self._uses_sound() or self._was_unheard(stretch):
                self._submit(channel, Turn(stretch, channel.track))
        self._waiting = still_waiting

    def _submit_turns(self, channel: _Channel, stretch: Stretch) -> None:
        tracks = list(self._scene.tracks.values()) if self._options.modality.sees else []
        sound = self._scene.sound_speaking_in(stretch)
        agreement = (
            {track.track_id: sound_agreement(track.speaking_in(stretch), sound) for track in tracks}
            if len(tracks) > 1
            else {}
        )
        for turn in turns(stretch, tracks, sound, agreement):
            self._submit(channel, turn)

    def _was_unheard(self, stretch: Stretch) -> bool:
        """Whether lips moved for a while and the sound had no speech to it."""
        going_on = self._sound.endpointer.open_stretch
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
            known.append(self._scene.seen_until)
        return min(known, default=0)

    def _needed_from(self) -> int:
        """The frame before which no utterance will want anything."""
        # Lips may begin to move before a sound that is not there yet: keep half an utterance's margin more.
        slack = 2 * self._endpointing.margin_frames
        needed = [stretch.start for _, stretch in self._waiting]
        needed += [channel.endpointer.settled_until - slack for channel in self._channels()]
        return max(0, min([*needed, self._known_until()]))

    def _channels(self) -> list[_Channel]:
        """The curves still being cut."""
        channels = ([self._sound] if self._uses_sound() else []) + list(self._faces.values())
        return [channel for channel in channels if not channel.closed]

    # ------------------------------------------------------------------------------------------------------ reading

    def _submit(self, channel: _Channel, turn: Turn) -> None:
        while len(self._pending) >= MAX_PENDING and not self._stopped:
            self._wait_for_oldest()
        window = self._window(turn.stretch, turn.track)
        segment_id, revision = self._take_segment_id(channel)
        # Taken now: the scene will have let go of them when the words are known.
        boxes = turn.track.boxes_in(turn.stretch) if turn.track and self._options.face_boxes else ()
        utterance = _Utterance(segment_id, turn.stretch, turn.track, window, revision, boxes)
        utterance.readings = self._backend.submit(self._options.model, window, self._search)
        self._pending.append(utterance)
        utterance.readings.add_done_callback(lambda _: self._send_finished())

    def _window(self, stretch: Stretch, track: FaceTrack | None) -> Window:
        crops = track.crops_in(stretch) if track is not None else None
        if not self._uses_sound():
            return Window(crops, None)
        sound = self._scene.sound_in(stretch)
        if crops is not None and float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) < SILENT_RMS:
            return Window(crops, None)
        return Window(crops, audio_features(sound)[: stretch.frames])

    def _take_segment_id(self, channel: _Channel) -> tuple[str, int]:
        """The id under which interim results went out, or a new one; and the last revision used."""
        with self._lock:
            taken = channel.segment_id or self._new_segment_id(), channel.revision
            channel.segment_id, channel.revision, channel.interim_words, channel.interim_until = "", 0, (), 0
        return taken

    def _new_segment_id(self) -> str:
        self._segments_begun += 1
        return f"segment-{self._segments_begun}"

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
                    self._segments_sent += 1
                    self._emit_event(segment)

    def _drop_pending(self) -> None:
        for utterance in list(self._pending):
            utterance.readings.cancel()
        for channel in self._channels():
            if channel.interim is not None:
                channel.interim.cancel()

    def _final_segment(self, utterance: _Utterance, readings: list[Reading]) -> Segment | None:
        placed = [_placed(reading, utterance.stretch) for reading in readings if reading.text]
        if not placed:
            return None
        start_s, end_s = _span(placed[0], utterance.stretch)
        return Segment(
            segment_id=utterance.segment_id,
            revision=utterance.revision + 1,
            is_final=True,
            stability=1.0,
            start_s=start_s,
            end_s=end_s,
            best=placed[0],
            alternatives=tuple(placed[1:]),
            speaker_id=self._speaker_id(utterance.track),
            face_boxes=utterance.face_boxes,
            modality=utterance.window.modality,
        )

    def _speaker_id(self, track: FaceTrack | None) -> str:
        """Faces are numbered in the order in which they first speak."""
        if track is None:
            return VOICE
        return self._names.setdefault(track.person, f"face-{len(self._names) + 1}")

    # ------------------------------------------------------------------------------------------------ interim results

    def _submit_interim(self) -> None:
        for channel in self._channels():
            stretch = channel.endpointer.open_stretch
            if stretch is None or (channel is not self._sound and self._uses_sound()):
                continue
            stretch = Stretch(stretch.start, min(stretch.end, self._known_until()))
            if channel.interim is not None and not channel.interim.done():
                continue
            if stretch.end - max(channel.interim_until, stretch.start) < INTERIM_EVERY_FRAMES:
                continue
            channel.interim_until = stretch.end
            track = channel.track if channel is not self._sound else self._likeliest_speaker(stretch)
            channel.segment_id = channel.segment_id or self._new_segment_id()
            window = self._window(stretch, track)
            channel.interim = self._backend.submit(
                self._options.model, window, self._interim_search, interim=True
            )
            channel.interim.add_done_callback(
                functools.partial(
                    self._send_interim, channel, channel.segment_id, stretch, track, window.modality
                )
            )

    def _likeliest_speaker(self, stretch: Stretch) -> FaceTrack | None:
        tracks = list(self._scene.tracks.values()) if self._options.modality.sees else []
        return turns(stretch, tracks, self._scene.sound_speaking_in(stretch))[-1].track

    def _send_interim(
        self,
        channel: _Channel,
        segment_id: str,
        stretch: Stretch,
        track: FaceTrack | None,
        modality: Modality,
        done: Future[list[Reading]],
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            return  # the final result will come, or raise
        with self._lock:
            readings = [_placed(reading, stretch) for reading in done.result() if reading.text]
            if channel.segment_id != segment_id or not readings:
                return  # the utterance has ended meanwhile
            channel.revision += 1
            start_s, end_s = _span(readings[0], stretch)
            words = tuple(readings[0].text.split())
            stability = _agreement(channel.interim_words, words)
            channel.interim_words = words
            self._emit_event(
                Segment(
                    segment_id=segment_id,
                    revision=channel.revision,
                    is_final=False,
                    stability=stability,
                    start_s=start_s,
                    end_s=end_s,
                    best=readings[0],
                    speaker_id=self._speaker_id(track),
                    modality=modality,
                )
            )

    # ------------------------------------------------------------------------------------------------- what is told

    def _say(self, event: Event) -> None:
        with self._lock:
            self._emit_event(event)

    def _note_activity(self, channel: _Channel, ended: Stretch | None) -> None:
        if not self._options.activity_events or (channel is not self._sound and self._uses_sound()):
            return
        margin = self._endpointing.margin_frames
        stretch = ended or channel.endpointer.open_stretch
        speaker = self._speaker_id(channel.track)
        if stretch is not None and not channel.begun:
            channel.begun = True
            begin_s = seconds_of(min(stretch.start + margin, stretch.end))
            self._say(Activity(ActivityKind.SPEECH_BEGIN, begin_s, speaker))
        if ended is not None:
            channel.begun = False
            self._say(
                Activity(ActivityKind.SPEECH_END, seconds_of(max(ended.start, ended.end - margin)), speaker)
            )

    def _report_progress(self) -> None:
        received = max(self._scene.seen_until, self._scene.heard_until)
        if received >= self._next_progress:
            self._next_progress = received + PROGRESS_EVERY_FRAMES
            self._say(Progress(seconds_of(received), self._processed_s(), self._perception.faces_now))

    def _processed_s(self) -> float:
        open_from = [channel.endpointer.settled_until for channel in self._channels()]
        open_from += [stretch.start for _, stretch in self._waiting]
        open_from += [utterance.stretch.start for utterance in list(self._pending)]
        return seconds_of(max(0, min([*open_from, self._known_until()])))

    def _duration_s(self) -> float:
        return seconds_of(max(self._scene.seen_until, self._scene.heard_until))

    def _check_what_was_seen(self) -> None:
        """At the end: an answer without words must say why."""
        perception = self._perception
        if self._options.modality is Modality.VIDEO_ONLY and not perception.faces_seen:
            raise NoFaceError(
                f"no face was found in {self._duration_s():.1f} s of video: lips can be read where a face is turned to "
                "the camera and at least about 80 pixels wide"
            )
        if self._options.modality is Modality.AUDIO_VISUAL and not perception.faces_seen:
            what = "no face was found" if perception.has_pictures else "there are no pictures"
            self._say(StreamWarning(WarningKind.NO_FACE, f"{what}: the words are read from the sound alone"))
        if not self._segments_begun:
            where = "the lips" if not self._uses_sound() else "the sound and the lips"
            self._say(StreamWarning(WarningKind.NO_SPEECH, f"nobody speaks: no speech was found in {where}"))


def _placed(reading: Reading, stretch: Stretch) -> Reading:
    """A reading with its words' times moved from the window's clock to the stream's."""
    shift_s = seconds_of(stretch.start)
    words = tuple(
        Word(word.text, word.start_s + shift_s, word.end_s + shift_s, word.confidence)
        for word in reading.words
    )
    return Reading(reading.text, reading.confidence, words)


def _span(reading: Reading, stretch: Stretch) -> tuple[float, float]:
    """When the words begin and end; the whole stretch where word times were not asked for."""
    if not reading.words:
        return seconds_of(stretch.start), seconds_of(stretch.end)
    return reading.words[0].start_s, reading.words[-1].end_s


def _agreement(before: tuple[str, ...], now: tuple[str, ...]) -> float:
    """The share of words, from the beginning, that two successive readings have in common."""
    same = 0
    for old, new in zip(before, now, strict=False):
        if old != new:
            break
        same += 1
    return same / max(1, len(now))
