"""Plots a transcript on a timeline: mouths, speech, audio and words. Needs the extra ``rendering``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gorggle.captions import VOICE_LABEL, display_name
from gorggle.events import Activity
from gorggle.results import FaceBox, Segment, Transcript

Array: TypeAlias = npt.NDArray[Any]

COLOURS = ("#0b6e67", "#9c4307", "#5a3ec8", "#9b1c5d", "#1c5cab", "#566300")
TEXT_COLOUR, MUTED_COLOUR = "#14201e", "#8fa3ad"
# Duration of one row; longer videos continue in the next row.
ROW_DURATION_S = 12.0
MAX_ROWS = 40
MOUTHS_PER_ROW = 16
# The mouth in a face box, as fractions of its width and height.
MOUTH_LEFT, MOUTH_RIGHT, MOUTH_TOP, MOUTH_BOTTOM = 0.2, 0.8, 0.58, 0.98
PEAKS_PER_S = 100


def write_plot(clip: Path, transcript: Transcript, activities: Sequence[Activity], target: Path) -> None:
    """Plot one row per 12 s, at most 40.

    Args:
        clip: the transcribed file.
        transcript: its transcript, with words and ``face_boxes``.
        activities: starts and ends of speech.
        target: PNG, SVG or PDF.

    Raises:
        OSError: the target cannot be written.
    """
    duration_s = max(transcript.duration_s, 0.1)
    rows = min(MAX_ROWS, max(1, int(np.ceil(duration_s / ROW_DURATION_S))))
    mouths = extract_mouth_images(clip, transcript.segments, rows * ROW_DURATION_S)
    peaks = compute_audio_peaks(clip, rows * ROW_DURATION_S)
    speakers = list(dict.fromkeys(segment.speaker for segment in transcript.segments))
    speech = compute_speech_spans(activities, transcript.segments, duration_s)
    row_height = 1.7 + 0.55 * max(1, len(speakers))
    figure = Figure(figsize=(14, row_height * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    for row, axes in enumerate(np.atleast_1d(figure.subplots(rows, 1))):
        _draw_row(axes, row * ROW_DURATION_S, speakers, transcript.segments, speech, mouths, peaks)
    figure.suptitle(
        f"{Path(transcript.file).name}, transcribed by {transcript.model}", color=TEXT_COLOUR, fontsize=11
    )
    figure.savefig(target, dpi=110, facecolor="white")


def extract_mouth_images(
    clip: Path, segments: Sequence[Segment], until_s: float
) -> dict[tuple[float, str], Array]:
    """Crop the speakers' mouths out of their face boxes, at regular intervals during speech.

    Returns:
        (H, W, 3) by time and speaker; empty without a video stream.
    """
    step_s = ROW_DURATION_S / MOUTHS_PER_ROW
    pending: list[tuple[float, str, FaceBox]] = []
    for segment in segments:
        for time_s in np.arange(0, until_s, step_s) + step_s / 2:
            if segment.face_boxes and segment.start_s <= time_s <= segment.end_s:
                box = min(segment.face_boxes, key=lambda box, time_s=time_s: abs(box.time_s - time_s))  # type: ignore[misc]
                pending.append((float(time_s), segment.speaker, box))
    pending.sort(key=lambda item: item[0])
    mouths: dict[tuple[float, str], Array] = {}
    with av.open(str(clip)) as container:
        if not container.streams.video:
            return {}
        for frame in container.decode(video=0):
            while pending and frame.time is not None and frame.time >= pending[0][0]:
                time_s, speaker, box = pending.pop(0)
                image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                mouth = _crop_mouth(image, box)
                if mouth.size:
                    mouths[time_s, speaker] = mouth
            if not pending:
                break
    return mouths


def _crop_mouth(image: Array, box: FaceBox) -> Array:
    height, width = image.shape[:2]

    def pixel(share: float, size: int) -> int:
        return round(min(1.0, max(0.0, share)) * size)

    rows = slice(
        pixel(box.top + MOUTH_TOP * box.height, height), pixel(box.top + MOUTH_BOTTOM * box.height, height)
    )
    columns = slice(
        pixel(box.left + MOUTH_LEFT * box.width, width), pixel(box.left + MOUTH_RIGHT * box.width, width)
    )
    return image[rows, columns]


def compute_audio_peaks(clip: Path, until_s: float) -> Array:
    """Return the peak amplitude of the audio, 0 to 1, at 100 Hz; empty without an audio stream."""
    chunks: list[Array] = []
    rate_hz = PEAKS_PER_S * 80
    with av.open(str(clip)) as container:
        if not container.streams.audio:
            return np.zeros(0)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        for frame in container.decode(audio=0):
            chunks += [chunk.to_ndarray()[0] for chunk in resampler.resample(frame)]
            if frame.time is not None and frame.time > until_s:
                break
    if not chunks:
        return np.zeros(0)
    wave = np.abs(np.concatenate(chunks))
    peaks: Array = wave[: len(wave) // 80 * 80].reshape(-1, 80).max(axis=1)
    return peaks / max(1e-6, float(peaks.max(initial=0.0)))


def compute_speech_spans(
    activities: Sequence[Activity], segments: Sequence[Segment], duration_s: float
) -> list[tuple[str, float, float]]:
    """Return (speaker, start, end) of speech from the activity events, or from the segments without events."""
    if not activities:
        return [(segment.speaker, segment.start_s, segment.end_s) for segment in segments]
    spans, started = [], {}
    for activity in sorted(activities, key=lambda event: event.time_s):
        if activity.kind == "speech_begin":
            started[activity.speaker] = activity.time_s
        elif activity.speaker in started:
            spans.append((activity.speaker, started.pop(activity.speaker), activity.time_s))
    return spans + [(speaker, start_s, duration_s) for speaker, start_s in started.items()]


def _draw_row(
    axes: Axes,
    start_s: float,
    speakers: Sequence[str],
    segments: Sequence[Segment],
    speech: Sequence[tuple[str, float, float]],
    mouths: dict[tuple[float, str], Array],
    peaks: Array,
) -> None:
    end_s = start_s + ROW_DURATION_S
    lanes = max(1, len(speakers))
    _draw_waveform(axes, start_s, end_s, peaks)
    colours = {speaker: COLOURS[lane % len(COLOURS)] for lane, speaker in enumerate(speakers)}
    for speaker, first_s, last_s in speech:
        background = Rectangle((first_s, 0.04), last_s - first_s, 0.92, linewidth=0, zorder=0, alpha=0.16)
        background.set_facecolor(colours.get(speaker, MUTED_COLOUR))
        axes.add_patch(background)
    labels = [(0.5, "speech\nand audio")]
    for lane, speaker in enumerate(speakers):
        colour, bottom = colours[speaker], 1.1 + lane
        labels.append((bottom + 0.4, display_name(speaker or VOICE_LABEL)))
        for segment in (s for s in segments if s.speaker == speaker):
            _draw_words(axes, segment, bottom + 0.12, colour, start_s, end_s)
    top = 1.1 + lanes
    for (time_s, _speaker), image in mouths.items():
        if start_s <= time_s < end_s:
            half_s = ROW_DURATION_S / MOUTHS_PER_ROW * 0.46
            axes.imshow(
                image, extent=(time_s - half_s, time_s + half_s, top, top + 1.3), aspect="auto", zorder=2
            )
    if mouths:
        labels.append((top + 0.65, "mouths"))
    axes.set_xlim(start_s, end_s)
    axes.set_ylim(0, top + (1.4 if mouths else 0.1))
    axes.set_yticks([at for at, _ in labels], [label for _, label in labels])
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(left=False, colors=TEXT_COLOUR, labelsize=8)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_waveform(axes: Axes, start_s: float, end_s: float, peaks: Array) -> None:
    first, last = int(start_s * PEAKS_PER_S), int(end_s * PEAKS_PER_S)
    shown = peaks[first:last]
    times = start_s + np.arange(len(shown)) / PEAKS_PER_S
    axes.fill_between(times, 0.5 + 0.42 * shown, 0.5 - 0.42 * shown, color=MUTED_COLOUR, linewidth=0)


def _draw_words(
    axes: Axes, segment: Segment, bottom: float, colour: str, start_s: float, end_s: float
) -> None:
    for word in segment.words:
        if word.end_s <= start_s or word.start_s >= end_s:
            continue
        # Opacity shows the confidence.
        axes.add_patch(
            Rectangle(
                (word.start_s, bottom),
                word.end_s - word.start_s,
                0.62,
                facecolor=colour,
                edgecolor="white",
                alpha=0.35 + 0.65 * min(1.0, max(0.0, word.confidence)),
            )
        )
        middle = (max(word.start_s, start_s) + min(word.end_s, end_s)) / 2
        # A dollar sign starts a formula in matplotlib.
        text = word.text.replace("$", r"\$")
        axes.text(
            middle, bottom + 0.31, text, color="white", ha="center", va="center", fontsize=8, clip_on=True
        )
