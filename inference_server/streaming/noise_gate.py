"""Whether the sound can tell when somebody speaks: in noise, the lips tell it better.

Babble, music and engines do not pause where the speaker does. Clean speech leaves near silence between its sounds, so
its level spans 30 dB and more within a few seconds; noise fills the gaps. Where the span is small and a face is in view,
the sound's activity is taken for nothing, and the utterances are cut by the lips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import StreamBuffer
from gorggle_server.timebase import FRAME_RATE_HZ, frames_to_samples
from gorggle_server.vision.rolling_quantile import RollingQuantile

WINDOW_FRAMES = 5 * FRAME_RATE_HZ
# Level spans in dB. Measured over 5 s: clean speech without any pause spans 19 to 29, with pauses 40 and more; white
# noise at 10 dB 16, babble at 10 dB 18 to 25, at 5 dB 13 to 20. Between the two the sound is distrusted only while
# somebody in view has just spoken: a narrator who never pauses is heard over faces that rest.
NOISY_DYNAMIC_RANGE_DB, CLEAN_DYNAMIC_RANGE_DB = 19.0, 24.0
SPEECH_LEVEL_QUANTILE, NOISE_FLOOR_QUANTILE = 0.97, 0.05
# A background below this drowns nothing, whatever is above it: 55 dB below full scale.
NEGLIGIBLE_NOISE_DB = 35.0
SPEAKING_THRESHOLD = 0.5
RECENT_SPEECH_FRAMES = 5 * FRAME_RATE_HZ


class AudioVadGate:
    """The sound's activity in one scene, as far as it can be trusted. Frames are asked for once each, in order."""

    def __init__(self, buffer: StreamBuffer) -> None:
        self._buffer = buffer
        self._levels = RollingQuantile(WINDOW_FRAMES)
        self._dynamic_ranges_db: list[float] = []  # of the frames from _start on
        self._start = 0
        self._last_lip_activity = -RECENT_SPEECH_FRAMES

    def get_available_end(self, *, media_ended: bool) -> int:
        """The frame up to which the activity is known: in noise, not before the lips are."""
        judged = self._buffer.audio_vad_end
        measured = self._start + len(self._dynamic_ranges_db)
        self._update_dynamic_ranges(FrameSpan(measured, max(measured, judged)))
        following = [track.vad_end for track in self._buffer.tracks.values() if not track.ended]
        if media_ended or not following:
            return judged
        lips_known = min([self._buffer.video_end, *following])
        for frame in range(max(self._start, lips_known), judged):
            if self._dynamic_ranges_db[frame - self._start] < CLEAN_DYNAMIC_RANGE_DB:
                return frame
        return judged

    def get_activity(self, stretch: FrameSpan) -> NDArray[np.float32]:
        """How likely somebody speaks in each frame, 0 to 1, as the sound tells; 0 where the lips shall tell."""
        activity = self._buffer.get_audio_vad(stretch)
        tracks = [track for track in self._buffer.tracks.values() if track.get_coverage(stretch) > 0]
        lips = (
            np.max([track.get_speaking(stretch) for track in tracks], axis=0)
            if tracks
            else np.zeros(len(activity))
        )
        for index, frame in enumerate(range(stretch.start, stretch.end)):
            if lips[index] >= SPEAKING_THRESHOLD:
                self._last_lip_activity = frame
            span = self._dynamic_ranges_db[frame - self._start]
            is_watched = any(track.start <= frame < track.end for track in tracks)
            spoke_lately = frame - self._last_lip_activity < RECENT_SPEECH_FRAMES
            if is_watched and (
                span < NOISY_DYNAMIC_RANGE_DB or (span < CLEAN_DYNAMIC_RANGE_DB and spoke_lately)
            ):
                activity[index] = 0.0
        del self._dynamic_ranges_db[: stretch.end - self._start]
        self._start = max(self._start, stretch.end)
        return activity

    def _update_dynamic_ranges(self, stretch: FrameSpan) -> None:
        """The span of levels in the seconds up to each frame; levels are dB over one step of the samples."""
        if not stretch.frames:
            return
        samples = self._buffer.get_audio(stretch).astype(np.float64).reshape(-1, frames_to_samples(1))
        for level_db in 10 * np.log10(np.square(samples).mean(axis=1) + 1):
            self._levels.push(float(level_db))
            quiet = self._levels.quantile(NOISE_FLOOR_QUANTILE)
            span = self._levels.quantile(SPEECH_LEVEL_QUANTILE) - quiet
            self._dynamic_ranges_db.append(span if quiet > NEGLIGIBLE_NOISE_DB else np.inf)
