"""Buffer of a stream's recent media: faces with mouth crops, and audio, on one 25 Hz clock.

The media pipeline adds to it. The session cuts utterances from it and discards frames that no utterance will need, so that a
stream of hours takes the memory of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.events import FaceBox
from gorggle_server.input_format import MOUTH_CROP_SIZE_PX, frames_to_samples, frames_to_seconds
from gorggle_server.streaming.endpointing import FrameSpan

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class FaceTrack:
    """One person's face, from when it appears until it disappears.

    Attributes:
        track_id: number of this track; a person who leaves and returns gets another one.
        person: number of the tracked face; the same when the face returns to its place within two seconds.
        start: frame of the first crop held.
        crops: one uint8 (96, 96) per frame from ``start`` on, without gaps.
        speaking: speech probability of the mouth, 0 to 1, per frame from ``start`` on; may lag ``crops``.
        boxes: bounding boxes of the face, in order of time.
        preview_crops: less stable crops for the frames after ``crops``, for low latency; may be empty.
        identity: ``person`` of the first track of the same person, as recognized by the face; None while unknown.
    """

    track_id: int
    person: int
    start: int
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    boxes: list[FaceBox] = field(default_factory=list)
    preview_crops: list[NDArray[np.uint8]] = field(default_factory=list)
    ended: bool = False
    identity: int | None = None

    @property
    def end(self) -> int:
        """Frame after the last crop."""
        return self.start + len(self.crops)

    @property
    def vad_end(self) -> int:
        """Frame after the last one with a speech probability."""
        return self.start + len(self.speaking)

    def add_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add the next crop, uint8 (96, 96); a gap is filled with the previous crop."""
        if crop.shape != (MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX) or crop.dtype != np.uint8:
            raise ValueError(f"a mouth crop is uint8 (96, 96), not {crop.dtype} {crop.shape}")
        del self.preview_crops[: frame + 1 - self.end]
        if self.crops:
            self.crops.extend([self.crops[-1]] * (frame - self.end))
        else:
            self.start = frame
        self.crops.append(crop)

    @property
    def preview_end(self) -> int:
        """Frame after the last one with any crop."""
        return self.end + len(self.preview_crops)

    def add_preview_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add a crop, uint8 (96, 96), that is used until ``add_crop`` replaces it."""
        if frame >= self.preview_end:
            last = self.preview_crops[-1] if self.preview_crops else crop
            self.preview_crops += [last] * (frame - self.preview_end)
            self.preview_crops.append(crop)

    def end_at(self, frame: int) -> None:
        """End the track: the face is absent from this frame on."""
        kept = max(0, frame - self.start)
        del self.crops[kept:], self.speaking[kept:]
        self.preview_crops.clear()
        self.ended = True

    def get_coverage(self, span: FrameSpan) -> float:
        """Return the share of the span in which the face was visible, 0 to 1."""
        return FrameSpan(self.start, self.end).overlap(span) / max(1, span.frames)

    def get_crops(self, span: FrameSpan) -> NDArray[np.uint8]:
        """Return the crops of a span, (T, 96, 96); frames without a crop take the nearest one."""
        crops = [*self.crops, *self.preview_crops] if span.end > self.end else self.crops
        last = len(crops) - 1
        return np.stack(
            [crops[min(max(frame - self.start, 0), last)] for frame in range(span.start, span.end)]
        )

    def get_speaking(self, span: FrameSpan) -> NDArray[np.float32]:
        """Return the speech probability of the mouth per frame of a span; 0 where unknown."""
        return _cut_curve(self.speaking, self.start, span)

    def get_boxes(self, span: FrameSpan) -> tuple[FaceBox, ...]:
        """Return the bounding boxes of the face in a span."""
        start_s, end_s = frames_to_seconds(span.start), frames_to_seconds(span.end)
        return tuple(box for box in self.boxes if start_s <= box.offset_s < end_s)

    def discard_before(self, frame: int) -> None:
        """Discard everything before a frame."""
        dropped = min(max(0, frame - self.start), len(self.crops))
        if dropped:
            del self.crops[:dropped], self.speaking[:dropped]
            self.start += dropped
            self.boxes = [box for box in self.boxes if box.offset_s >= frames_to_seconds(self.start)]


class StreamBuffer:
    """Faces and audio of a stream, from the oldest frame still needed to the newest available."""

    def __init__(self) -> None:
        self.tracks: dict[int, FaceTrack] = {}
        self._track_count = 0
        self.video_end = 0  # end of the frames whose crops are complete
        self.preview_video_end = 0  # end of the frames with preview crops, if these are kept
        self._audio = np.zeros(0, np.int16)
        self._audio_start = 0  # frame of the first sample held
        self._pending_audio: list[NDArray[np.int16]] = []
        self._pending_samples = 0
        self._audio_vad = _Curve()
        self._speech = _Curve()

    @property
    def audio_end(self) -> int:
        """Frame after the last complete frame of audio."""
        return self._audio_start + (len(self._audio) + self._pending_samples) // frames_to_samples(1)

    def begin_track(self, person: int, frame: int) -> FaceTrack:
        """Start the track of a new face."""
        self._track_count += 1
        track = self.tracks[self._track_count] = FaceTrack(self._track_count, person, frame)
        return track

    def add_audio(self, samples: NDArray[np.int16]) -> None:
        """Append samples, int16 (S,), 16 kHz."""
        self._pending_audio.append(samples)
        self._pending_samples += len(samples)

    def add_audio_vad(self, speaking: Iterable[float]) -> None:
        """Append the activity, 0 to 1, of the next audio frames (``media.vad``)."""
        self._audio_vad.extend(speaking)

    @property
    def audio_vad_end(self) -> int:
        """Frame after the last one with an activity of the audio."""
        return self._audio_vad.end

    def get_audio_vad(self, span: FrameSpan) -> NDArray[np.float32]:
        """Return the activity of the audio per frame of a span; 0 where unknown."""
        return self._audio_vad.cut(span)

    def add_speech(self, probabilities: Iterable[float]) -> None:
        """Append the probability, 0 to 1, that the next audio frames contain a voice (``media.speech_detector``)."""
        self._speech.extend(probabilities)

    def get_speech(self, span: FrameSpan) -> NDArray[np.float32]:
        """Return the probability of a voice per frame of a span; 0 where unknown."""
        return self._speech.cut(span)

    def get_audio(self, span: FrameSpan) -> NDArray[np.int16]:
        """Return the samples of a span, int16 (640 per frame); silence where missing."""
        self._join_audio()
        first = frames_to_samples(span.start - self._audio_start)
        samples = self._audio[max(0, first) : max(0, first + frames_to_samples(span.frames))]
        before = max(0, min(-first, frames_to_samples(span.frames)))
        return np.pad(samples, (before, frames_to_samples(span.frames) - before - len(samples)))

    def discard_before(self, frame: int) -> None:
        """Discard everything that no utterance from ``frame`` on can need."""
        self._join_audio()
        dropped = min(frame - self._audio_start, len(self._audio) // frames_to_samples(1))
        # Copying the rest takes time: done about once per two seconds of audio.
        if dropped > 50:
            self._audio = self._audio[frames_to_samples(dropped) :].copy()
            self._audio_start += dropped
            self._audio_vad.discard_before(frame)
            self._speech.discard_before(frame)
        for track in list(self.tracks.values()):
            track.discard_before(frame)
            if track.ended and track.end <= frame:
                del self.tracks[track.track_id]

    def _join_audio(self) -> None:
        if self._pending_audio:
            self._audio = np.concatenate([self._audio, *self._pending_audio])
            self._pending_audio.clear()
            self._pending_samples = 0


def _cut_curve(values: list[float], start: int, span: FrameSpan) -> NDArray[np.float32]:
    """Return the values of a span, of which ``values`` holds those from frame ``start`` on; 0 elsewhere."""
    curve = np.zeros(span.frames, np.float32)
    first, last = max(span.start, start), min(span.end, start + len(values))
    if last > first:
        curve[first - span.start : last - span.start] = values[first - start : last - start]
    return curve


class _Curve:
    """One value per frame, from the oldest frame still needed to the newest known."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._start = 0

    @property
    def end(self) -> int:
        """Frame after the last one with a value."""
        return self._start + len(self._values)

    def extend(self, values: Iterable[float]) -> None:
        """Append the values of the next frames."""
        self._values.extend(float(value) for value in values)

    def cut(self, span: FrameSpan) -> NDArray[np.float32]:
        """Return the values of a span; 0 where unknown."""
        return _cut_curve(self._values, self._start, span)

    def discard_before(self, frame: int) -> None:
        """Discard the values before a frame."""
        dropped = min(max(0, frame - self._start), len(self._values))
        del self._values[:dropped]
        self._start += dropped
