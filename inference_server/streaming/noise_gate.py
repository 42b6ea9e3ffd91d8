"""Noise gate: decide whether audio or lip activity segments the speech.

Babble, music and engines do not pause when the speaker does. The level of clean speech drops to near silence between
phonemes, so its dynamic range is 30 dB and more within a few seconds; noise fills the gaps. Where the dynamic range is small
and a face is visible, audio activity is ignored and utterances are segmented by the lips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import FRAME_RATE_HZ, frames_to_samples
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import StreamBuffer
from gorggle_server.vision.rolling_quantile import RollingQuantile

WINDOW_FRAMES = 5 * FRAME_RATE_HZ
# Dynamic ranges in dB, measured over 5 s: clean speech without any pause has 19 to 29, with pauses 40 and more; white
# noise at 10 dB SNR 16, babble at 10 dB 18 to 25, at 5 dB 13 to 20. Between the two limits audio is ignored only
# while a visible person has just spoken: a narrator who never pauses is heard over resting faces.
NOISY_DYNAMIC_RANGE_DB, CLEAN_DYNAMIC_RANGE_DB = 19.0, 24.0
SPEECH_LEVEL_QUANTILE, NOISE_FLOOR_QUANTILE = 0.97, 0.05
# A noise floor below this is negligible: 55 dB below full scale.
NEGLIGIBLE_NOISE_DB = 35.0
SPEAKING_THRESHOLD = 0.5
RECENT_SPEECH_FRAMES = 5 * FRAME_RATE_HZ


class AudioVadGate:
    """Audio activity of one stream, as far as it can be trusted. Each frame is requested once, in order."""

    def __init__(self, buffer: StreamBuffer) -> None:
        self._buffer = buffer
        self._levels = RollingQuantile(WINDOW_FRAMES)
        self._dynamic_ranges_db: list[float] = []  # of the frames from _start on
        self._start = 0
        self._last_lip_activity = -RECENT_SPEECH_FRAMES

    def get_available_end(self, *, media_ended: bool) -> int:
        """Return the frame up to which the activity is known: in noise, not before lip activity is."""
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

    def get_activity(self, span: FrameSpan) -> NDArray[np.float32]:
        """Return the speech probability per frame, 0 to 1, from audio; 0 where the lips decide."""
        activity = self._buffer.get_audio_vad(span)
        tracks = [track for track in self._buffer.tracks.values() if track.get_coverage(span) > 0]
        lips = (
            np.max([track.get_speaking(span) for track in tracks], axis=0)
            if tracks
            else np.zeros(len(activity))
        )
        for index, frame in enumerate(range(span.start, span.end)):
            if lips[index] >= SPEAKING_THRESHOLD:
                self._last_lip_activity = frame
            dynamic_range_db = self._dynamic_ranges_db[frame - self._start]
            is_watched = any(track.start <= frame < track.end for track in tracks)
            spoke_lately = frame - self._last_lip_activity < RECENT_SPEECH_FRAMES
            if is_watched and (
                dynamic_range_db < NOISY_DYNAMIC_RANGE_DB
                or (dynamic_range_db < CLEAN_DYNAMIC_RANGE_DB and spoke_lately)
            ):
                activity[index] = 0.0
        del self._dynamic_ranges_db[: span.end - self._start]
        self._start = max(self._start, span.end)
        return activity

    def _update_dynamic_ranges(self, span: FrameSpan) -> None:
        """Measure the dynamic range of the last seconds before each frame; levels are dB over one quantization step."""
        if not span.frames:
            return
        samples = self._buffer.get_audio(span).astype(np.float64).reshape(-1, frames_to_samples(1))
        for level_db in 10 * np.log10(np.square(samples).mean(axis=1) + 1):
            self._levels.push(float(level_db))
            quiet = self._levels.quantile(NOISE_FLOOR_QUANTILE)
            dynamic_range_db = self._levels.quantile(SPEECH_LEVEL_QUANTILE) - quiet
            self._dynamic_ranges_db.append(dynamic_range_db if quiet > NEGLIGIBLE_NOISE_DB else np.inf)
