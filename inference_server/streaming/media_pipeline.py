"""Media pipelines: video to faces with mouth crops, audio to speech probabilities, on one clock.

There are two inputs: container bytes, decoded and face-tracked here, and mouth crops with audio prepared by the client.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.errors import InvalidMediaError, InvalidRequestError, NoFaceError, OutOfRangeError
from gorggle_server.events import Event, FaceBox, StreamWarning, WarningKind
from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frames_to_samples, frames_to_seconds
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.media.demuxer import StreamInfo, decode
from gorggle_server.media.resampling import EndOfStream, Waveform, resample
from gorggle_server.media.speech_detector import SpeechDetector
from gorggle_server.media.vad import SpeechLevelEstimator, levels_to_probability
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer
from gorggle_server.recognition_options import MediaLimits, Modality, RecognitionOptions
from gorggle_server.streaming.crop_input import AudioChunk, CropResampler, MouthCropChunk, PreprocessedInput
from gorggle_server.streaming.queues import InputQueue
from gorggle_server.streaming.stream_buffer import FaceTrack, StreamBuffer
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.frame_stage import PipelineItem, track_frames
from gorggle_server.vision.lip_activity import CropVoiceActivityDetector
from gorggle_server.vision.mouth_tracker import FrameResult, MouthUpdate, NormalizedBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.sandbox.pool import DecoderPool
    from gorggle_server.settings import ServerSettings

# The session processes the buffer each time it has grown by 0.4 s.
STEP_FRAMES = 10
# Live media is processed at every frame, for latency.
LIVE_STEP_FRAMES = 1
# A modality that lags this far behind the other is treated as absent.
MAX_LAG_FRAMES = 5 * FRAME_RATE_HZ
# A shorter face track is a false detection.
MIN_FACE_FRAMES = 12


class MediaPipeline(ABC):
    """Turns media into faces and audio in a buffer, in steps.

    Attributes:
        buffer: faces and audio so far.
        has_audio: whether there is audio.
        has_video: whether there is video.
        faces_in_view: faces in the latest frame.
        tracks_faces: whether whole faces with landmarks are tracked, or mouth crops alone are available.
    """

    tracks_faces: ClassVar[bool]

    def __init__(self, options: RecognitionOptions) -> None:
        self.buffer = StreamBuffer()
        self.has_audio = self.has_video = False
        self.faces_in_view = 0
        self._options = options
        self._level_estimator = SpeechLevelEstimator()
        self._speech_detector = SpeechDetector()
        self._frames_by_track: Counter[int] = Counter()
        self._identities: dict[int, int] = {}

    @property
    def total_faces(self) -> int:
        """Number of people whose faces were visible long enough to count."""
        frames_by_person: Counter[int] = Counter()
        for number, frames in self._frames_by_track.items():
            frames_by_person[self._identities.get(number, number)] += frames
        return sum(frames >= MIN_FACE_FRAMES for frames in frames_by_person.values())

    @abstractmethod
    def steps(self) -> Generator[Iterable[Event]]:
        """Process some media at a time, add it to the buffer, and yield the events about it.

        Raises:
            GorggleError: the media cannot be decoded, exceeds a limit, or lacks a required modality.
        """

    def _add_audio(self, samples: NDArray[np.int16]) -> None:
        self.buffer.add_audio(samples)
        self.buffer.add_audio_vad(levels_to_probability(self._level_estimator.push(samples)))
        self.buffer.add_speech(self._speech_detector.push(samples))

    def _end_audio(self) -> None:
        self.buffer.add_audio_vad(levels_to_probability(self._level_estimator.flush()))
        self.buffer.add_speech(self._speech_detector.flush())

    def _handle_missing_audio(self, problem: str) -> StreamWarning:
        """Return the warning that only lips are used.

        Raises:
            InvalidMediaError: the model does not read lips.
        """
        if not self._options.model_input.uses_lips:
            raise InvalidMediaError(
                f"{problem}, and the model {self._options.model} recognizes speech from audio only: send audio, or choose "
                "a model that reads lips"
            )
        return StreamWarning(WarningKind.NO_AUDIO, f"{problem}: recognizing from video only")

    def _count_face_frame(self, person: int) -> None:
        self._frames_by_track[person] += 1


class ContainerPipeline(MediaPipeline):
    """Decodes a container and tracks its faces, normally in a sandboxed subprocess."""

    tracks_faces = True

    def __init__(
        self,
        pipe: BytePipe,
        options: RecognitionOptions,
        settings: ServerSettings,
        max_duration_s: float,
        decoder_pool: DecoderPool | None = None,
        request_id: str = "",
        timer: StageTimer | None = None,
        cpu_timer: CpuTimer | None = None,
    ) -> None:
        super().__init__(options)
        self._pipe, self._decoder_pool, self._request_id = pipe, decoder_pool, request_id
        self._cpu_timer = cpu_timer or CpuTimer()
        self._timer = timer or StageTimer()
        self._limits = MediaLimits(max_duration_s, settings.max_spooled_bytes, settings.max_frame_pixels)
        self._landmark_model, self._face_identity = settings.get_landmark_model(), settings.face_identity
        self._tracked_faces: dict[int, _TrackedFace] = {}
        self._has_warned_of_faces = False

    def steps(self) -> Generator[Iterable[Event]]:
        """Decode and analyse the media in steps; see ``MediaPipeline``."""
        step = LIVE_STEP_FRAMES if self._options.live else STEP_FRAMES
        next_step = step
        # Closing the generator stops the decoder, also when the session ends early.
        with contextlib.closing(self._open_timeline()) as items:
            for item in self._timer.measure_iterator(PipelineStage.DECODE, items):
                match item:
                    case StreamInfo():
                        yield self._handle_stream_info(item)
                    case FrameResult():
                        self._timer.add_external(
                            PipelineStage.VISION, item.elapsed_s, waiting_stage=PipelineStage.DECODE
                        )
                        self._add_frame(item)
                        if events := self._check_face_count(item):
                            yield events
                    case Waveform():
                        with self._timer.measure(PipelineStage.VAD):
                            self._add_audio(item.samples)
                    case EndOfStream():
                        yield self._handle_end(item)
                if max(self.buffer.video_end, self.buffer.audio_end) >= next_step:
                    next_step = max(self.buffer.video_end, self.buffer.audio_end) + step
                    self._timer.finish_step()
                    yield ()

    def _open_timeline(self) -> Generator[PipelineItem]:
        video, audio = self._options.modality.uses_video, self._options.modality.uses_audio
        if self._decoder_pool is None:
            decoded = decode(self._pipe, self._limits, video=video, audio=audio, live=self._options.live)
            return track_frames(
                resample(decoded, self._limits),
                FaceDetector(self._landmark_model),
                max_faces=self._options.max_speakers,
                audio=audio,
                live=self._options.live,
                face_identity=self._face_identity,
            )
        from gorggle_server.sandbox.decoding import decode_in_sandbox  # Unix only

        return decode_in_sandbox(
            self._decoder_pool,
            self._pipe,
            self._limits,
            video=video,
            audio=audio,
            live=self._options.live,
            max_faces=self._options.max_speakers,
            face_identity=self._face_identity,
            request_id=self._request_id,
            track_process=self._cpu_timer.track_process,
        )

    def _handle_stream_info(self, info: StreamInfo) -> list[Event]:
        modality = self._options.modality
        if modality is Modality.VIDEO_ONLY and not info.has_video:
            raise NoFaceError("the media has no video stream: send video, or use modality audio")
        if modality is Modality.AUDIO_ONLY and not info.has_audio:
            raise InvalidMediaError("the media has no audio stream: send audio, or use modality video")
        self.has_audio, self.has_video = info.has_audio, info.has_video
        events: list[Event] = [info]
        if modality is Modality.AUDIO_VISUAL and not info.has_audio:
            events.append(self._handle_missing_audio("the media has no audio"))
        return events

    def _check_face_count(self, frame: FrameResult) -> list[Event]:
        if not frame.is_crowded or self._has_warned_of_faces:
            return []
        self._has_warned_of_faces = True
        return [
            StreamWarning(
                WarningKind.TOO_MANY_FACES,
                f"the number of visible faces exceeds max_speakers ({self._options.max_speakers}): the largest are tracked",
            )
        ]

    def _add_frame(self, frame: FrameResult) -> None:
        for mouth in frame.mouths:
            if mouth.person not in self._tracked_faces:
                track = self.buffer.begin_track(mouth.person, frame.index)
                self._tracked_faces[mouth.person] = _TrackedFace(track, frame.index)
            if mouth.is_seen:
                self._count_face_frame(mouth.person)
            if mouth.identity is not None:
                self._identities[mouth.person] = mouth.identity
            self._tracked_faces[mouth.person].update(mouth, frame.index)
            if mouth.has_ended:
                del self._tracked_faces[mouth.person]
        if frame.is_last:
            return
        self.faces_in_view = frame.faces
        self._timer.count_frame(frame.faces)
        ends = [face.track.end for face in self._tracked_faces.values()]
        self.buffer.video_end = max(self.buffer.video_end, min([*ends, frame.index + 1]))
        if self._options.live:
            ends = [face.track.preview_end for face in self._tracked_faces.values()]
            self.buffer.preview_video_end = max(self.buffer.preview_video_end, min([*ends, frame.index + 1]))

    def _handle_end(self, end: EndOfStream) -> list[Event]:
        self.buffer.video_end = max(self.buffer.video_end, end.frames)
        if self.has_audio:
            self._end_audio()
        if not end.truncated and not end.broken_packets:
            return []
        what = "ends before its declared length" if end.truncated else "is damaged"
        broken = f"; {end.broken_packets} broken packets were skipped" if end.broken_packets else ""
        return [StreamWarning(WarningKind.DAMAGED_MEDIA, f"the media {what}{broken}: words may be missing")]


class _TrackedFace:
    """Adds one tracked face to the buffer."""

    def __init__(self, track: FaceTrack, frame: int) -> None:
        self.track, self._last_seen_frame = track, frame

    def update(self, mouth: MouthUpdate, frame: int) -> None:
        """Add the update of one frame."""
        if mouth.is_seen:
            self._last_seen_frame = frame
        self.track.identity = mouth.identity
        for crop in mouth.crops:
            self.track.add_crop(crop.frame_index, crop.pixels)
        self.track.speaking.extend(mouth.speaking)
        if mouth.preview is not None:
            self.track.add_preview_crop(frame, mouth.preview)
        if mouth.box is not None:
            self.track.boxes.append(_to_face_box(mouth.box, frame))
        if mouth.has_ended:
            self.track.end_at(self._last_seen_frame + 1)


def _to_face_box(box: NormalizedBox, frame: int) -> FaceBox:
    return FaceBox(frames_to_seconds(frame), box.left, box.top, box.width, box.height)


class PreprocessedPipeline(MediaPipeline):
    """Adds mouth crops and audio prepared by the client to the buffer."""

    tracks_faces = False

    def __init__(
        self, queue: InputQueue[PreprocessedInput], options: RecognitionOptions, max_duration_s: float
    ) -> None:
        super().__init__(options)
        self._queue, self._max_duration_s = queue, max_duration_s
        self._faces: dict[int, tuple[CropResampler, FaceTrack, CropVoiceActivityDetector]] = {}
        self._samples = 0
        self._has_warned_of_lag = False
        # Both are expected until one lags too far behind.
        self.has_audio, self.has_video = options.modality.uses_audio, options.modality.uses_video

    def steps(self) -> Generator[Iterable[Event]]:
        """Process one message per step; see ``MediaPipeline``."""
        while (item := self._queue.get()) is not None:
            match item:
                case MouthCropChunk() if self._options.modality.uses_video:
                    self._add_crops(item)
                case AudioChunk() if self._options.modality.uses_audio:
                    self._add_audio_chunk(item)
                case _:
                    continue  # not used in this modality
            yield self._limit_lag()
        yield self._handle_end()

    def _add_crops(self, crops: MouthCropChunk) -> None:
        if crops.times_s and crops.times_s[-1] > self._max_duration_s:
            raise self._create_duration_error(crops.times_s[-1])
        if crops.face not in self._faces:
            if len(self._faces) >= self._options.max_speakers:
                raise InvalidRequestError(
                    f"crops of {len(self._faces) + 1} faces were sent; max_speakers is {self._options.max_speakers}"
                )
            self._faces[crops.face] = (
                CropResampler(),
                self.buffer.begin_track(crops.face, 0),
                CropVoiceActivityDetector(),
            )
        grid, track, activity = self._faces[crops.face]
        for time_s, pixels in zip(crops.times_s, crops.pixels, strict=True):
            self._add_resampled_crops(crops.face, track, activity, grid.push(time_s, pixels))
        self.buffer.video_end = min(grid.available_end for grid, _, _ in self._faces.values())

    def _add_resampled_crops(
        self,
        face: int,
        track: FaceTrack,
        activity: CropVoiceActivityDetector,
        resampled: Iterable[tuple[int, NDArray[np.uint8]]],
    ) -> None:
        for frame, crop in resampled:
            before = track.end
            track.add_crop(frame, crop)
            track.speaking.extend(activity.push(frame, crop))
            for _ in range(max(before, track.start), track.end):
                self._count_face_frame(face)

    def _add_audio_chunk(self, chunk: AudioChunk) -> None:
        if not self.has_audio:
            return  # treated as absent, with a warning
        self._samples += len(chunk.samples)
        if self._samples / SAMPLE_RATE_HZ > self._max_duration_s:
            raise self._create_duration_error(self._samples / SAMPLE_RATE_HZ)
        self._add_audio(chunk.samples)

    def _limit_lag(self) -> list[Event]:
        """Treat a modality that lags too far behind as absent, so that the other one is not delayed without limit."""
        if self._options.modality is not Modality.AUDIO_VISUAL:
            return []
        video_end, audio_end = self.buffer.video_end, self.buffer.audio_end
        if abs(video_end - audio_end) <= MAX_LAG_FRAMES:
            return []
        if video_end < audio_end:
            self.buffer.video_end = audio_end - MAX_LAG_FRAMES
            return self._warn_of_lag("video is", audio_end - video_end)
        if not self._samples:
            self.has_audio = False
            return [self._handle_missing_audio("no audio was received")]
        missing = frames_to_samples(video_end - MAX_LAG_FRAMES - audio_end)
        self._samples += missing
        self._add_audio(np.zeros(missing, np.int16))
        return self._warn_of_lag("audio is", video_end - audio_end)

    def _warn_of_lag(self, subject: str, frames: int) -> list[Event]:
        if self._has_warned_of_lag:
            return []
        self._has_warned_of_lag = True
        text = (
            f"{subject} {frames_to_seconds(frames):.1f} s behind and treated as absent for the missing time"
        )
        return [StreamWarning(WarningKind.LAGGING_MODALITY, text)]

    def _handle_end(self) -> list[Event]:
        warned_of_no_audio = not self.has_audio
        modality = self._options.modality
        self.has_video, self.has_audio = bool(self._faces), self._samples > 0
        if not self.has_video and not self.has_audio:
            what = {Modality.VIDEO_ONLY: "mouth crops", Modality.AUDIO_ONLY: "audio"}.get(
                modality, "crops and no audio"
            )
            raise InvalidMediaError(f"the stream contained no {what}: send media after the configuration")
        for face, (grid, track, activity) in self._faces.items():
            self._add_resampled_crops(face, track, activity, grid.flush())
            track.speaking.extend(activity.flush())
            track.ended = True
        self.faces_in_view = 0
        self.buffer.video_end = max(
            [self.buffer.video_end, *(track.end for _, track, _ in self._faces.values())]
        )
        if self.has_audio:
            self._end_audio()
        elif modality is Modality.AUDIO_VISUAL and not warned_of_no_audio:
            return [self._handle_missing_audio("no audio was received")]
        return []

    def _create_duration_error(self, time_s: float) -> OutOfRangeError:
        return OutOfRangeError(
            f"the media reaches {time_s:.1f} s; the limit is {self._max_duration_s:g} s: split it"
        )
