"""What a stream has shown and sounded so far: faces with their mouth crops, and sound, on one clock of 25 frames a second.

Whoever perceives (``perception``) adds to it; whoever cuts utterances (``session``) takes windows from it and lets go
of what no utterance will need again, so that a stream of hours takes the memory of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.timebase import MOUTH_CROP_SIZE_PX, frames_to_samples, frames_to_seconds
from gorggle_server.types import FaceBox

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class FaceTrack:
    """One person's face, from when it appears to when it leaves.

    Attributes:
        track_id: this track's number; a person who leaves and returns gets another one.
        person: the person's number, the same when they return.
        start: frame of the first crop held.
        crops: one uint8 (96, 96) a frame from ``start`` on, without gaps.
        speaking: how likely the mouth is speaking, 0 to 1, one number a frame from ``start`` on; may lag ``crops``.
        boxes: where the face was, in time order.
        preview_crops: crops that follow ``crops``, cut less steadily, for what cannot wait; may be empty.
    """

    track_id: int
    person: int
    start: int
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    boxes: list[FaceBox] = field(default_factory=list)
    preview_crops: list[NDArray[np.uint8]] = field(default_factory=list)
    ended: bool = False

    @property
    def end(self) -> int:
        """The frame after the last crop."""
        return self.start + len(self.crops)

    @property
    def vad_end(self) -> int:
        """The frame after the last one known to be speaking or not."""
        return self.start + len(self.speaking)

    def add_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add the next crop, uint8 (96, 96); a hole since the last one is filled with that one."""
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
        """The frame after the last one of which there is any crop."""
        return self.end + len(self.preview_crops)

    def add_preview_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add a crop, uint8 (96, 96), that stands in until ``add_crop`` brings the better one."""
        if frame >= self.preview_end:
            last = self.preview_crops[-1] if self.preview_crops else crop
            self.preview_crops += [last] * (frame - self.preview_end)
            self.preview_crops.append(crop)

    def end_at(self, frame: int) -> None:
        """The face is gone from this frame on."""
        kept = max(0, frame - self.start)
        del self.crops[kept:], self.speaking[kept:]
        self.preview_crops.clear()
        self.ended = True

    def get_coverage(self, span: FrameSpan) -> float:
        """The share of the stretch in which the face was seen, 0 to 1."""
        return FrameSpan(self.start, self.end).overlap(span) / max(1, span.frames)

    def get_crops(self, span: FrameSpan) -> NDArray[np.uint8]:
        """The crops of a stretch, (T, 96, 96); where the face was not seen, the nearest crop stands in."""
        seen = [*self.crops, *self.preview_crops] if span.end > self.end else self.crops
        last = len(seen) - 1
        return np.stack(
            [seen[min(max(frame - self.start, 0), last)] for frame in range(span.start, span.end)]
        )

    def get_speaking(self, span: FrameSpan) -> NDArray[np.float32]:
        """How likely the mouth speaks in each frame of a stretch; 0 where the face was not seen."""
        curve = np.zeros(span.frames, np.float32)
        first, last = max(span.start, self.start), min(span.end, self.vad_end)
        if last > first:
            curve[first - span.start : last - span.start] = self.speaking[
                first - self.start : last - self.start
            ]
        return curve

    def get_boxes(self, span: FrameSpan) -> tuple[FaceBox, ...]:
        """Where the face was during a stretch."""
        start_s, end_s = frames_to_seconds(span.start), frames_to_seconds(span.end)
        return tuple(box for box in self.boxes if start_s <= box.offset_s < end_s)

    def discard_before(self, frame: int) -> None:
        """Let go of what lies before a frame."""
        gone = min(max(0, frame - self.start), len(self.crops))
        if gone:
            del self.crops[:gone], self.speaking[:gone]
            self.start += gone
            self.boxes = [box for box in self.boxes if box.offset_s >= frames_to_seconds(self.start)]


class StreamBuffer:
    """The faces and the sound of a stream, from the oldest frame still needed to the newest one known."""

    def __init__(self) -> None:
        self.tracks: dict[int, FaceTrack] = {}
        self._track_count = 0
        self.video_end = 0  # frames whose crops are all there
        self.preview_video_end = 0  # frames of which there is a crop to stand in, where these are kept
        self._audio = np.zeros(0, np.int16)
        self._audio_start = 0  # frame of the first sample held
        self._pending_audio: list[NDArray[np.int16]] = []
        self._pending_samples = 0
        self._audio_vad: list[float] = []
        self._audio_vad_start = 0  # frame of the first number in _sound_speaking

    @property
    def audio_end(self) -> int:
        """Whole frames of sound that are there."""
        return self._audio_start + (len(self._audio) + self._pending_samples) // frames_to_samples(1)

    def begin_track(self, person: int, frame: int) -> FaceTrack:
        """A face appears."""
        self._track_count += 1
        track = self.tracks[self._track_count] = FaceTrack(self._track_count, person, frame)
        return track

    def add_audio(self, samples: NDArray[np.int16]) -> None:
        """Add the next samples, int16 (S,), 16 kHz."""
        self._pending_audio.append(samples)
        self._pending_samples += len(samples)

    def add_audio_vad(self, speaking: Iterable[float]) -> None:
        """Add how likely the next frames of sound hold speech, 0 to 1 each."""
        self._audio_vad.extend(float(value) for value in speaking)

    @property
    def audio_vad_end(self) -> int:
        """The frame after the last one whose sound was judged."""
        return self._audio_vad_start + len(self._audio_vad)

    def get_audio_vad(self, span: FrameSpan) -> NDArray[np.float32]:
        """How likely the sound holds speech in each frame of a stretch; 0 where it was not judged."""
        curve = np.zeros(span.frames, np.float32)
        first, last = max(span.start, self._audio_vad_start), min(span.end, self.audio_vad_end)
        if last > first:
            held = self._audio_vad[first - self._audio_vad_start : last - self._audio_vad_start]
            curve[first - span.start : last - span.start] = held
        return curve

    def pad_audio(self, frame: int) -> None:
        """Fill with silence up to a frame."""
        missing = frames_to_samples(frame - self._audio_start) - len(self._audio) - self._pending_samples
        if missing > 0:
            self.add_audio(np.zeros(missing, np.int16))

    def get_audio(self, span: FrameSpan) -> NDArray[np.int16]:
        """The samples of a stretch, int16 (640 a frame); silence where there are none."""
        self._join_audio()
        first = frames_to_samples(span.start - self._audio_start)
        piece = self._audio[max(0, first) : max(0, first + frames_to_samples(span.frames))]
        before = max(0, min(-first, frames_to_samples(span.frames)))
        return np.pad(piece, (before, frames_to_samples(span.frames) - before - len(piece)))

    def discard_before(self, frame: int) -> None:
        """Let go of what no utterance from ``frame`` on can need."""
        self._join_audio()
        gone = min(frame - self._audio_start, len(self._audio) // frames_to_samples(1))
        # Moving the rest costs time: done about once in two seconds of sound.
        if gone > 50:
            self._audio = self._audio[frames_to_samples(gone) :].copy()
            self._audio_start += gone
            judged = min(max(0, frame - self._audio_vad_start), len(self._audio_vad))
            del self._audio_vad[:judged]
            self._audio_vad_start += judged
        for track in list(self.tracks.values()):
            track.discard_before(frame)
            if track.ended and track.end <= frame:
                del self.tracks[track.track_id]

    def _join_audio(self) -> None:
        if self._pending_audio:
            self._audio = np.concatenate([self._audio, *self._pending_audio])
            self._pending_audio.clear()
            self._pending_samples = 0
