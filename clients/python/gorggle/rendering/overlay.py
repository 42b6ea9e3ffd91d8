"""Draws captions and face boxes into a video. Needs the extra ``rendering``: PyAV, numpy, Pillow, matplotlib."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import astuple
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from gorggle.captions import Cue, build_cues, display_name
from gorggle.errors import InvalidSourceError
from gorggle.results import FaceBox, Segment

ImageArray: TypeAlias = npt.NDArray[np.uint8]

# Bright enough on any face; speakers are also distinguished by their names.
COLOURS = ((92, 240, 225), (255, 178, 122), (196, 179, 255), (255, 156, 203), (142, 196, 255), (220, 234, 94))
# A face is considered gone between boxes further apart.
MAX_BOX_GAP_S = 0.8
TEXT_HEIGHT_FRACTION = 0.05  # of the frame's height
MIN_TEXT_PX = 10
CAPTION_BACKGROUND_ALPHA = 190  # of 255


def write_overlay(clip: Path, segments: Sequence[Segment], target: Path) -> None:
    """Re-encode a clip with captions and face boxes; its audio is kept.

    Args:
        clip: the transcribed file.
        segments: its segments, with ``face_boxes``.
        target: MP4, MOV or Matroska; replaced atomically when complete.

    Raises:
        InvalidSourceError: the clip has no video stream.
        OSError: the target cannot be written.
    """
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        with av.open(str(clip)) as source, av.open(str(partial), "w") as output:
            if not source.streams.video:
                raise InvalidSourceError(f"{clip} has no video stream to draw on")
            _draw(source, output, segments)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _draw(source: Any, output: Any, segments: Sequence[Segment]) -> None:
    video, audio = source.streams.video[0], (source.streams.audio or [None])[0]
    video.thread_type = "AUTO"
    writer = _Writer(output, video.average_rate or Fraction(25), audio)
    annotator: _Annotator | None = None
    # Timestamps start at the first video or audio frame, as in the server.
    starts = [
        stream.start_time * stream.time_base for stream in (video, audio) if stream and stream.start_time
    ]
    start_s = float(min(starts)) if len(starts) == (1 if audio is None else 2) else 0.0
    for frame in source.decode(*[stream for stream in (video, audio) if stream is not None]):
        if isinstance(frame, av.AudioFrame):
            writer.write_audio(frame)
            continue
        if frame.time is None:
            continue
        image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
        annotator = annotator or _Annotator(segments, image.shape[1], image.shape[0])
        annotator.annotate(image, frame.time - start_s)
        writer.write_frame(image, frame.time)
    writer.close()


class _Writer:
    """Encodes frames as H.264 and audio as AAC."""

    def __init__(self, container: Any, rate_hz: Fraction, audio: Any) -> None:
        self._container, self._rate_hz = container, rate_hz
        self._video: Any = None
        self._audio: Any = None
        self._last_pts = -1
        # Both streams must be added before the first packet, which writes the container's header.
        self._pending_audio: list[Any] = []
        if audio is not None:
            self._audio = container.add_stream("aac", rate=audio.rate or 48_000, layout="stereo")

    def write_frame(self, image: ImageArray, time_s: float) -> None:
        # 4:2:0 chroma subsampling needs even dimensions.
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        if self._video is None:
            self._video = self._container.add_stream(
                "libx264", rate=self._rate_hz, options={"crf": "20", "preset": "fast"}
            )
            self._video.height, self._video.width = image.shape[:2]
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.time_base = Fraction(1, 90_000)
            for pending in self._pending_audio:
                self.write_audio(pending)
            self._pending_audio.clear()
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        # Timestamps of damaged media may repeat; those of a file must increase.
        frame.pts = self._last_pts = max(self._last_pts + 1, round(time_s * 90_000))
        frame.time_base = Fraction(1, 90_000)
        self._container.mux(self._video.encode(frame))

    def write_audio(self, frame: Any) -> None:
        if self._video is None:
            self._pending_audio.append(frame)
        else:
            self._container.mux(self._audio.encode(frame))

    def close(self) -> None:
        for stream in (self._video, self._audio):
            if stream is not None:
                self._container.mux(stream.encode(None))


class _Annotator:
    """Draws into frames of one size."""

    def __init__(self, segments: Sequence[Segment], width: int, height: int) -> None:
        self._width, self._height = width, height
        self._cues = build_cues(segments)
        self._starts_ms = [cue.start_ms for cue in self._cues]
        speakers = list(dict.fromkeys(segment.speaker for segment in segments))
        self._colours = {
            display_name(speaker): COLOURS[index % len(COLOURS)] for index, speaker in enumerate(speakers)
        }
        self._has_single_speaker = len(speakers) < 2
        self._boxes = {display_name(speaker): _collect_boxes(segments, speaker) for speaker in speakers}
        size = max(MIN_TEXT_PX, round(height * TEXT_HEIGHT_FRACTION))
        path = font_manager.findfont("DejaVu Sans")
        self._font = ImageFont.truetype(path, size)
        self._small = ImageFont.truetype(path, max(MIN_TEXT_PX, round(size * 0.7)))
        # A caption is rendered once and blended into each of its frames.
        self._caption = lru_cache(maxsize=8)(self._render_caption)
        self._label = lru_cache(maxsize=32)(self._render_label)

    def annotate(self, frame: ImageArray, time_s: float) -> None:
        """Draw the face boxes and the caption of a time into a frame (H, W, 3)."""
        for speaker, boxes in self._boxes.items():
            box = _interpolate_box(boxes, time_s)
            if box is not None:
                self._draw_face(frame, box, speaker)
        index = bisect.bisect_right(self._starts_ms, round(time_s * 1000)) - 1
        if index >= 0 and time_s * 1000 < self._cues[index].end_ms:
            text = self._caption(self._cues[index])
            _blend(
                frame, text, (self._width - text.shape[1]) // 2, round(self._height * 0.95) - text.shape[0]
            )

    def _draw_face(self, frame: ImageArray, box: FaceBox, speaker: str) -> None:
        left, top = round(box.left * self._width), round(box.top * self._height)
        right, bottom = left + round(box.width * self._width), top + round(box.height * self._height)
        line = max(2, self._height // 240)
        colour = self._colours[speaker]
        for first, last, start, end in (
            (top, top + line, left, right),
            (bottom - line, bottom, left, right),
            (top, bottom, left, left + line),
            (top, bottom, right - line, right),
        ):
            frame[max(0, first) : max(0, last), max(0, start) : max(0, end)] = colour
        label = self._label(speaker)
        _blend(frame, label, left, top - label.shape[0] - line)

    def _render_caption(self, cue: Cue) -> ImageArray:
        lines = [(line, (255, 255, 255), self._font) for line in cue.lines]
        if cue.speaker and not self._has_single_speaker:
            lines.insert(0, (cue.speaker, self._colours[cue.speaker], self._small))
        return _render_text(lines)

    def _render_label(self, speaker: str) -> ImageArray:
        return _render_text([(speaker, self._colours[speaker], self._small)])


def _render_text(lines: Sequence[tuple[str, tuple[int, int, int], Any]]) -> ImageArray:
    """Return lines of text on a dark background: (H, W, 4)."""
    pad = max(3, round(lines[-1][2].size * 0.3))
    widths = [round(font.getlength(text)) for text, _, font in lines]
    heights = [round(font.size * 1.3) for _, _, font in lines]
    image = Image.new(
        "RGBA", (max(1, *widths) + 2 * pad, sum(heights) + pad), (0, 0, 0, CAPTION_BACKGROUND_ALPHA)
    )
    draw, y = ImageDraw.Draw(image), pad // 2
    for (text, colour, font), width, height in zip(lines, widths, heights, strict=True):
        draw.text(((image.width - width) / 2, y), text, fill=(*colour, 255), font=font)
        y += height
    return np.asarray(image)


def _blend(frame: ImageArray, image: ImageArray, left: int, top: int) -> None:
    """Blend an image with an alpha channel into a frame; it is moved inside horizontally and cropped at the bottom."""
    height, width = frame.shape[:2]
    left = max(0, min(left, width - image.shape[1]))
    top = max(0, top)
    image = image[: height - top, : width - left]
    region = frame[top : top + image.shape[0], left : left + image.shape[1]]
    alpha = image[..., 3:].astype(np.uint16)
    region[:] = ((image[..., :3] * alpha + region * (255 - alpha)) // 255).astype(np.uint8)


def _collect_boxes(segments: Sequence[Segment], speaker: str) -> list[FaceBox]:
    boxes = [box for segment in segments if segment.speaker == speaker for box in segment.face_boxes]
    return sorted(boxes, key=lambda box: box.time_s)


def _interpolate_box(boxes: Sequence[FaceBox], time_s: float) -> FaceBox | None:
    """Return the face at a time, interpolated between the two nearest boxes."""
    index = bisect.bisect_right(boxes, time_s, key=lambda box: box.time_s)
    near = [box for box in boxes[max(0, index - 1) : index + 1] if abs(box.time_s - time_s) <= MAX_BOX_GAP_S]
    if not near:
        return None
    if len(near) == 1 or near[1].time_s - near[0].time_s > MAX_BOX_GAP_S:
        nearest = min(near, key=lambda box: abs(box.time_s - time_s))
        return nearest if abs(nearest.time_s - time_s) <= MAX_BOX_GAP_S / 2 else None
    before, after = near
    share = (time_s - before.time_s) / max(1e-9, after.time_s - before.time_s)
    fields = zip(astuple(before), astuple(after), strict=True)
    return FaceBox(*(first + (second - first) * share for first, second in fields))
