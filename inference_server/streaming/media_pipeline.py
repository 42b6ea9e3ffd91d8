"""From media to a scene: pictures to faces with mouth crops, sound to speech, on one clock.

Two ways in: a container's bytes, decoded and searched for faces here, and mouth crops with sound that a client cut itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.errors import InvalidMediaError, InvalidRequestError, NoFaceError, OutOfRangeError
from gorggle_server.inference.recognizer import frames_to_samples, frames_to_seconds
from gorggle_server.media.audio import SpeechLevelEstimator, levels_to_probability
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.demuxer import MediaLimits, StreamInfo, decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer
from gorggle_server.streaming.crop_input import AudioChunk, CropResampler, MouthCropChunk, PreprocessedInput
from gorggle_server.streaming.input_queue import InputQueue
from gorggle_server.streaming.stream_buffer import FaceTrack, StreamBuffer
from gorggle_server.types import (
    AUDIO_SAMPLE_RATE_HZ,
    VIDEO_FRAME_RATE_HZ,
    Event,
    FaceBox,
    MediaInfo,
    Modality,
    RecognitionOptions,
    StreamWarning,
    WarningKind,
)
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.frame_stage import PipelineItem, track_frames
from gorggle_server.vision.lip_activity import CropVoiceActivityDetector
from gorggle_server.vision.mouth_tracker import FrameResult, MouthUpdate, NormalizedBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.sandbox.pool import DecoderPool
    from gorggle_server.settings import ServerSettings

# The scene is looked at whenever it has grown by so much: 0.4 s.
STEP_FRAMES = 10
# And of live media at every frame: what is known late is told late.
LIVE_STEP_FRAMES = 1
# Crops or sound that lag this far behind the other are taken as absent.
MAX_LAG_FRAMES = 5 * VIDEO_FRAME_RATE_HZ
# A face seen for less is a false alarm of the detector.
MIN_FACE_FRAMES = 12


def create_media_pipeline(
    intake: BytePipe | InputQueue[PreprocessedInput],
    options: RecognitionOptions,
    settings: ServerSettings,
    limit_s: float,
    decoders: DecoderPool | None = None,
    request_id: str = "",
    clock: StageTimer | None = None,
    use: CpuTimer | None = None,
) -> ContainerPipeline | PreprocessedPipeline:
    """Perceive what comes through an intake: a pipe of container bytes, or a queue of crops and sound.

    Args:
        intake: where the media comes from.
        options: how to read.
        settings: the server's, for its limits.
        limit_s: how long the media may be.
        decoders: processes to decode containers in; None decodes them on the calling thread.
        request_id: names the stream in the log.
        clock: times the stages.
        use: is told of the decoder's process.
    """
    if isinstance(intake, BytePipe):
        return ContainerPipeline(intake, options, settings, limit_s, decoders, request_id, clock, use)
    return PreprocessedPipeline(intake, options, limit_s)


class _SceneBuilder:
    """What both ways have in common: sound, and faces that were seen long enough."""

    def __init__(self, options: RecognitionOptions) -> None:
        self.scene = StreamBuffer()
        self.has_sound = self.has_pictures = False
        self.faces_now = 0
        self._options = options
        self._speech = SpeechLevelEstimator()
        self._seen_frames: dict[int, int] = {}

    @property
    def faces_seen(self) -> int:
        """Faces seen for long enough to count."""
        return sum(frames >= MIN_FACE_FRAMES for frames in self._seen_frames.values())

    def _hear(self, samples: NDArray[np.int16]) -> None:
        self.scene.add_sound(samples)
        self.scene.add_audio_vad(levels_to_probability(self._speech.push(samples)))

    def _note_face(self, track_id: int) -> None:
        self._seen_frames[track_id] = self._seen_frames.get(track_id, 0) + 1


class ContainerPipeline(_SceneBuilder):
    """Takes in what is heard and seen in a container: decoded, with its mouths cut out, in a process of its own."""

    sees_faces = True

    def __init__(
        self,
        pipe: BytePipe,
        options: RecognitionOptions,
        settings: ServerSettings,
        limit_s: float,
        decoders: DecoderPool | None = None,
        request_id: str = "",
        clock: StageTimer | None = None,
        use: CpuTimer | None = None,
    ) -> None:
        super().__init__(options)
        self._pipe, self._decoders, self._request_id = pipe, decoders, request_id
        self._use = use or CpuTimer()
        self._clock = clock or StageTimer()
        self._limits = MediaLimits(limit_s, settings.max_spooled_bytes, settings.max_frame_pixels)
        self._landmark_model = settings.landmark_model_path
        self._followed: dict[int, _TrackedFace] = {}
        self._told_of_too_many = False

    def steps(self) -> Iterator[Iterable[Event]]:
        """Decode and look, a little at a time.

        Raises:
            GorggleError: the media cannot be read, or lacks what is to be read.
        """
        step = LIVE_STEP_FRAMES if self._options.live else STEP_FRAMES
        next_step = step
        # Closed also where the session gives up in the middle: the decoder goes with it.
        with contextlib.closing(self._timeline()) as items:
            for item in self._clock.timed(PipelineStage.DECODING, items):
                match item:
                    case StreamInfo():
                        yield self._open(item)
                    case FrameResult():
                        self._clock.add_external(
                            PipelineStage.SEEING, item.took_s, waited_for_in=PipelineStage.DECODING
                        )
                        self._take_in(item)
                        if events := self._told_of(item):
                            yield events
                    case Waveform():
                        with self._clock.within(PipelineStage.HEARING):
                            self._hear(item.samples)
                    case EndOfStream():
                        yield self._end(item)
                if max(self.scene.seen_until, self.scene.audio_until) >= next_step:
                    next_step = max(self.scene.seen_until, self.scene.audio_until) + step
                    self._clock.stepped()
                    yield ()

    def _timeline(self) -> Generator[PipelineItem]:
        sees, hears = self._options.modality.sees, self._options.modality.hears
        if self._decoders is None:
            decoded = decode(self._pipe, self._limits, pictures=sees, sound=hears, live=self._options.live)
            return track_frames(
                resample(decoded, self._limits),
                FaceDetector(self._landmark_model),
                max_faces=self._options.max_speakers,
                sound=hears,
                live=self._options.live,
            )
        from gorggle_server.sandbox.decoding import decode_in_sandbox  # not to be had on every system

        return decode_in_sandbox(
            self._decoders,
            self._pipe,
            self._limits,
            pictures=sees,
            sound=hears,
            live=self._options.live,
            max_faces=self._options.max_speakers,
            request_id=self._request_id,
            at_work=self._use.track_process,
        )

    def _open(self, info: StreamInfo) -> list[Event]:
        modality = self._options.modality
        if modality is Modality.VIDEO_ONLY and not info.has_video:
            raise NoFaceError("the media has no pictures: send video, or read the sound (modality audio)")
        if modality is Modality.AUDIO_ONLY and not info.has_audio:
            raise InvalidMediaError("the media has no sound: send sound, or read the lips (modality video)")
        self.has_sound, self.has_pictures = info.has_audio, info.has_video
        events: list[Event] = [
            MediaInfo(
                container=info.container,
                video_codec=info.video_codec,
                audio_codec=info.audio_codec,
                width_px=info.width_px,
                height_px=info.height_px,
                frame_rate_hz=info.frame_rate_hz,
                duration_s=info.duration_s,
                rotation_degrees=info.rotation_degrees,
            )
        ]
        if modality is Modality.AUDIO_VISUAL and not info.has_audio:
            events.append(
                StreamWarning(
                    WarningKind.NO_AUDIO, "the media has no sound: the words are read from the lips alone"
                )
            )
        return events

    def _told_of(self, sight: FrameResult) -> list[Event]:
        if not sight.is_crowded or self._told_of_too_many:
            return []
        self._told_of_too_many = True
        most = self._options.max_speakers
        return [
            StreamWarning(
                WarningKind.TOO_MANY_FACES, f"more faces are seen than the {most} that are followed"
            )
        ]

    def _take_in(self, sight: FrameResult) -> None:
        for mouth in sight.mouths:
            if mouth.person not in self._followed:
                track = self.scene.begin_track(mouth.person, sight.index)
                self._followed[mouth.person] = _TrackedFace(track, sight.index)
            if mouth.is_seen:
                self._note_face(mouth.person)
            self._followed[mouth.person].take(mouth, sight.index)
            if mouth.has_left:
                del self._followed[mouth.person]
        if sight.is_last:
            return
        self.faces_now = sight.faces
        self._clock.saw(sight.faces)
        known = [followed.track.end for followed in self._followed.values()]
        self.scene.seen_until = max(self.scene.seen_until, min([*known, sight.index + 1]))
        if self._options.live:
            known = [followed.track.glimpsed_until for followed in self._followed.values()]
            self.scene.glimpsed_until = max(self.scene.glimpsed_until, min([*known, sight.index + 1]))

    def _end(self, end: EndOfStream) -> list[Event]:
        self.scene.seen_until = max(self.scene.seen_until, end.frames)
        if self.has_sound:
            self.scene.add_audio_vad(levels_to_probability(self._speech.finish()))
        if not end.truncated and not end.broken_packets:
            return []
        what = "ends before its declared length" if end.truncated else "is damaged"
        broken = f"; {end.broken_packets} broken packets were skipped" if end.broken_packets else ""
        return [StreamWarning(WarningKind.DAMAGED_MEDIA, f"the media {what}{broken}: words may be missing")]


class _TrackedFace:
    """One followed face on its way into the scene."""

    def __init__(self, track: FaceTrack, frame: int) -> None:
        self.track, self._last_seen = track, frame

    def take(self, mouth: MouthUpdate, frame: int) -> None:
        """Take in what a frame adds."""
        if mouth.is_seen:
            self._last_seen = frame
        for crop in mouth.crops:
            self.track.add_crop(crop.frame_index, crop.pixels)
        self.track.speaking.extend(mouth.speaking)
        if mouth.glimpse is not None:
            self.track.add_provisional_crop(frame, mouth.glimpse)
        if mouth.place is not None:
            self.track.boxes.append(_face_box(mouth.place, frame))
        if mouth.has_left:
            self.track.end_at(self._last_seen + 1)


def _face_box(place: NormalizedBox, frame: int) -> FaceBox:
    return FaceBox(
        offset_s=frames_to_seconds(frame),
        left=place.left,
        top=place.top,
        width=place.width,
        height=place.height,
    )


class PreprocessedPipeline(_SceneBuilder):
    """Takes crops and sound as a client cut them."""

    sees_faces = False

    def __init__(
        self, intake: InputQueue[PreprocessedInput], options: RecognitionOptions, limit_s: float
    ) -> None:
        super().__init__(options)
        self._intake, self._limit_s = intake, limit_s
        self._grids: dict[int, tuple[CropResampler, FaceTrack, CropVoiceActivityDetector]] = {}
        self._samples = 0
        self._told_of_lag = False
        # Taken to come until they lag too far behind.
        self.has_sound, self.has_pictures = options.modality.hears, options.modality.sees

    def steps(self) -> Iterator[Iterable[Event]]:
        """Take in crops and sound, a message at a time.

        Raises:
            GorggleError: there is nothing, too much, or not what is to be read.
        """
        while (item := self._intake.get()) is not None:
            match item:
                case MouthCropChunk() if self._options.modality.sees:
                    self._see(item)
                case AudioChunk() if self._options.modality.hears:
                    self._listen(item)
                case _:
                    continue  # what is not read is not looked at
            yield self._balance()
        yield self._end()

    def _see(self, crops: MouthCropChunk) -> None:
        if crops.times_s and crops.times_s[-1] > self._limit_s:
            raise self._too_long(crops.times_s[-1])
        if crops.face not in self._grids:
            if len(self._grids) >= self._options.max_speakers:
                raise InvalidRequestError(
                    f"crops of {len(self._grids) + 1} faces were sent; max_speakers is {self._options.max_speakers}"
                )
            self._grids[crops.face] = (
                CropResampler(),
                self.scene.begin_track(crops.face, 0),
                CropVoiceActivityDetector(),
            )
        grid, track, activity = self._grids[crops.face]
        for time_s, pixels in zip(crops.times_s, crops.pixels, strict=True):
            self._place(crops.face, track, activity, grid.push(time_s, pixels))
        self.scene.seen_until = min(grid.known_until for grid, _, _ in self._grids.values())

    def _place(
        self,
        face: int,
        track: FaceTrack,
        activity: CropVoiceActivityDetector,
        placed: Iterable[tuple[int, NDArray[np.uint8]]],
    ) -> None:
        for frame, crop in placed:
            before = track.end
            track.add_crop(frame, crop)
            track.speaking.extend(activity.push(frame, crop))
            for _ in range(max(before, track.start), track.end):
                self._note_face(face)

    def _listen(self, sound: AudioChunk) -> None:
        if not self.has_sound:
            return  # given up, with a warning
        self._samples += len(sound.samples)
        if self._samples / AUDIO_SAMPLE_RATE_HZ > self._limit_s:
            raise self._too_long(self._samples / AUDIO_SAMPLE_RATE_HZ)
        self._hear(sound.samples)

    def _balance(self) -> list[Event]:
        """Take what lags far behind as absent, so that the rest is not held up without end."""
        if self._options.modality is not Modality.AUDIO_VISUAL:
            return []
        seen, heard = self.scene.seen_until, self.scene.audio_until
        if abs(seen - heard) <= MAX_LAG_FRAMES:
            return []
        if seen < heard:
            self.scene.seen_until = heard - MAX_LAG_FRAMES
            return self._tell_of_lag("the pictures are", heard - seen)
        if not self._samples:
            self.has_sound = False
            return [
                StreamWarning(WarningKind.NO_AUDIO, "no sound came: the words are read from the lips alone")
            ]
        missing = frames_to_samples(seen - MAX_LAG_FRAMES - heard)
        self._samples += missing
        self._hear(np.zeros(missing, np.int16))
        return self._tell_of_lag("the sound is", seen - heard)

    def _tell_of_lag(self, what: str, frames: int) -> list[Event]:
        if self._told_of_lag:
            return []
        self._told_of_lag = True
        text = f"{what} {frames_to_seconds(frames):.1f} s behind and taken as absent for the time that is lacking"
        return [StreamWarning(WarningKind.LAGGING_MODALITY, text)]

    def _end(self) -> list[Event]:
        told_of_no_sound = not self.has_sound
        modality = self._options.modality
        self.has_pictures, self.has_sound = bool(self._grids), self._samples > 0
        if not self.has_pictures and not self.has_sound:
            what = {Modality.VIDEO_ONLY: "mouth crops", Modality.AUDIO_ONLY: "sound"}.get(
                modality, "crops and no sound"
            )
            raise InvalidMediaError(f"the stream held no {what}: send some after the configuration")
        for face, (grid, track, activity) in self._grids.items():
            self._place(face, track, activity, grid.finish())
            track.speaking.extend(activity.finish())
            track.ended = True
        self.faces_now = 0
        self.scene.seen_until = max(
            [self.scene.seen_until, *(track.end for _, track, _ in self._grids.values())]
        )
        if self.has_sound:
            self.scene.add_audio_vad(levels_to_probability(self._speech.finish()))
        elif modality is Modality.AUDIO_VISUAL and not told_of_no_sound:
            return [
                StreamWarning(WarningKind.NO_AUDIO, "no sound came: the words are read from the lips alone")
            ]
        return []

    def _too_long(self, time_s: float) -> OutOfRangeError:
        return OutOfRangeError(
            f"the media reaches {time_s:.1f} s; the limit is {self._limit_s:g} s: send it in pieces"
        )
