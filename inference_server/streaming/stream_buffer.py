"""What a stream has shown and sounded so far: faces with their mouth crops, and sound, on one clock of 25 frames a second.

Whoever perceives (``perception``) adds to it; whoever cuts utterances (``session``) takes windows from it and lets go
of what no utterance will need again, so that a stream of hours takes the memory of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.inference.recognizer import frames_to_samples, frames_to_seconds
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.types import MOUTH_CROP_SIZE_PX, FaceBox

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
        glimpses: crops that follow ``crops``, cut less steadily, for what cannot wait; may be empty.
    """

    track_id: int
    person: int
    start: int
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    boxes: list[FaceBox] = field(default_factory=list)
    glimpses: list[NDArray[np.uint8]] = field(default_factory=list)
    ended: bool = False

    @property
    def end(self) -> int:
        """The frame after the last crop."""
        return self.start + len(self.crops)

    @property
    def vad_until(self) -> int:
        """The frame after the last one known to be speaking or not."""
        return self.start + len(self.speaking)

    def add_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add the next crop, uint8 (96, 96); a hole since the last one is filled with that one."""
        if crop.shape != (MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX) or crop.dtype != np.uint8:
            raise ValueError(f"a mouth crop is uint8 (96, 96), not {crop.dtype} {crop.shape}")
        del self.glimpses[: frame + 1 - self.end]
        if self.crops:
            self.crops.extend([self.crops[-1]] * (frame - self.end))
        else:
            self.start = frame
        self.crops.append(crop)

    @property
    def glimpsed_until(self) -> int:
        """The frame after the last one of which there is any crop."""
        return self.end + len(self.glimpses)

    def add_provisional_crop(self, frame: int, crop: NDArray[np.uint8]) -> None:
        """Add a crop, uint8 (96, 96), that stands in until ``add_crop`` brings the better one."""
        if frame >= self.glimpsed_until:
            last = self.glimpses[-1] if self.glimpses else crop
            self.glimpses += [last] * (frame - self.glimpsed_until)
            self.glimpses.append(crop)

    def end_at(self, frame: int) -> None:
        """The face is gone from this frame on."""
        kept = max(0, frame - self.start)
        del self.crops[kept:], self.speaking[kept:]
        self.glimpses.clear()
        self.ended = True

    def covers(self, stretch: FrameSpan) -> float:
        """The share of the stretch in which the face was seen, 0 to 1."""
        return FrameSpan(self.start, self.end).overlap(stretch) / max(1, stretch.frames)

    def crops_in(self, stretch: FrameSpan) -> NDArray[np.uint8]:
        """The crops of a stretch, (T, 96, 96); where the face was not seen, the nearest crop stands in."""
        seen = [*self.crops, *self.glimpses] if stretch.end > self.end else self.crops
        last = len(seen) - 1
        return np.stack(
            [seen[min(max(frame - self.start, 0), last)] for frame in range(stretch.start, stretch.end)]
        )

    def speaking_in(self, stretch: FrameSpan) -> NDArray[np.float32]:
        """How likely the mouth speaks in each frame of a stretch; 0 where the face was not seen."""
        curve = np.zeros(stretch.frames, np.float32)
        first, last = max(stretch.start, self.start), min(stretch.end, self.vad_until)
        if last > first:
            curve[first - stretch.start : last - stretch.start] = self.speaking[
                first - self.start : last - self.start
            ]
        return curve

    def boxes_in(self, stretch: FrameSpan) -> tuple[FaceBox, ...]:
        """Where the face was during a stretch."""
        start_s, end_s = frames_to_seconds(stretch.start), frames_to_seconds(stretch.end)
        return tuple(box for box in self.boxes if start_s <= box.offset_s < end_s)

    def forget_before(self, frame: int) -> None:
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
        self._tracks_begun = 0
        self.seen_until = 0  # frames whose crops are all there
        self.glimpsed_until = 0  # frames of which there is a crop to stand in, where these are kept
        self._sound = np.zeros(0, np.int16)
        self._sound_start = 0  # frame of the first sample held
        self._sound_pending: list[NDArray[np.int16]] = []
        self._pending_samples = 0
        self._sound_speaking: list[float] = []
        self._speaking_start = 0  # frame of the first number in _sound_speaking

    @property
    def audio_until(self) -> int:
        """Whole frames of sound that are there."""
        return self._sound_start + (len(self._sound) + self._pending_samples) // frames_to_samples(1)

    def begin_track(self, person: int, frame: int) -> FaceTrack:
        """A face appears."""
        self._tracks_begun += 1
        track = self.tracks[self._tracks_begun] = FaceTrack(self._tracks_begun, person, frame)
        return track

    def add_sound(self, samples: NDArray[np.int16]) -> None:
        """Add the next samples, int16 (S,), 16 kHz."""
        self._sound_pending.append(samples)
        self._pending_samples += len(samples)

    def add_audio_vad(self, speaking: Iterable[float]) -> None:
        """Add how likely the next frames of sound hold speech, 0 to 1 each."""
        self._sound_speaking.extend(float(value) for value in speaking)

    @property
    def sound_judged_until(self) -> int:
        """The frame after the last one whose sound was judged."""
        return self._speaking_start + len(self._sound_speaking)

    def sound_speaking_in(self, stretch: FrameSpan) -> NDArray[np.float32]:
        """How likely the sound holds speech in each frame of a stretch; 0 where it was not judged."""
        curve = np.zeros(stretch.frames, np.float32)
        first, last = max(stretch.start, self._speaking_start), min(stretch.end, self.sound_judged_until)
        if last > first:
            held = self._sound_speaking[first - self._speaking_start : last - self._speaking_start]
            curve[first - stretch.start : last - stretch.start] = held
        return curve

    def pad_sound_to(self, frame: int) -> None:
        """Fill with silence up to a frame."""
        missing = frames_to_samples(frame - self._sound_start) - len(self._sound) - self._pending_samples
        if missing > 0:
            self.add_sound(np.zeros(missing, np.int16))

    def sound_in(self, stretch: FrameSpan) -> NDArray[np.int16]:
        """The samples of a stretch, int16 (640 a frame); silence where there are none."""
        self._join_sound()
        first = frames_to_samples(stretch.start - self._sound_start)
        piece = self._sound[max(0, first) : max(0, first + frames_to_samples(stretch.frames))]
        before = max(0, min(-first, frames_to_samples(stretch.frames)))
        return np.pad(piece, (before, frames_to_samples(stretch.frames) - before - len(piece)))

    def discard_before(self, frame: int) -> None:
        """Let go of what no utterance from ``frame`` on can need."""
        self._join_sound()
        gone = min(frame - self._sound_start, len(self._sound) // frames_to_samples(1))
        # Moving the rest costs time: done about once in two seconds of sound.
        if gone > 50:
            self._sound = self._sound[frames_to_samples(gone) :].copy()
            self._sound_start += gone
            judged = min(max(0, frame - self._speaking_start), len(self._sound_speaking))
            del self._sound_speaking[:judged]
            self._speaking_start += judged
        for track in list(self.tracks.values()):
            track.forget_before(frame)
            if track.ended and track.end <= frame:
                del self.tracks[track.track_id]

    def _join_sound(self) -> None:
        if self._sound_pending:
            self._sound = np.concatenate([self._sound, *self._sound_pending])
            self._sound_pending.clear()
            self._pending_samples = 0
