"""Replaces each video frame of the timeline with its face-tracking result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gorggle_server.media.demuxer import StreamInfo
from gorggle_server.media.resampling import EndOfStream, GrayFrame, TimelineItem, Waveform
from gorggle_server.vision.mouth_tracker import FrameResult, MouthTracker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from gorggle_server.vision.face_detector import FaceDetector

PipelineItem = StreamInfo | FrameResult | Waveform | EndOfStream


def track_frames(
    items: Iterable[TimelineItem],
    detector: FaceDetector,
    *,
    max_faces: int,
    audio: bool,
    live: bool,
    face_identity: bool,
) -> Generator[PipelineItem]:
    """Yield the items of ``resample`` with a ``FrameResult`` for each frame, and a last one before the end.

    Args:
        items: of the timeline.
        detector: detects faces and landmarks.
        max_faces: maximum number of tracked faces.
        audio: whether the audio, if any, is used too. Without it, speech is detected from the lips, so no frame is
            skipped.
        live: yield every result at once, with preview crops.
        face_identity: recognize people whose earlier track has ended.
    """
    mouths: MouthTracker | None = None
    for item in items:
        match item:
            case StreamInfo():
                if item.decodes_video:
                    waits = audio and item.has_audio and not live
                    mouths = MouthTracker(
                        detector,
                        max_faces=max_faces,
                        skip_frames=waits,
                        previews=live,
                        face_identity=face_identity,
                    )
                yield item
            case GrayFrame():
                assert mouths is not None, "StreamInfo announces video before the first frame"
                yield from mouths.push(item.pixels, item.index)
            case EndOfStream():
                if mouths is not None:
                    yield from mouths.flush()
                yield item
            case _:
                yield item
