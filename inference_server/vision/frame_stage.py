"""Looks at the frames of a timeline: what was seen on them takes their place."""

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
    items: Iterable[TimelineItem], detector: FaceDetector, *, max_faces: int, audio: bool, live: bool
) -> Generator[PipelineItem]:
    """What ``resample`` gives, with sights for frames; the last sight, in which all leave, before the end.

    Args:
        items: of the timeline.
        detector: finds faces and landmarks.
        max_faces: how many faces are followed at once.
        audio: whether the media's sound is read as well, if there is any. Where lips alone tell when somebody speaks, all
            that they do is looked at.
        live: give every frame's sight at once, with crops for what cannot wait.
    """
    mouths: MouthTracker | None = None
    for item in items:
        match item:
            case StreamInfo():
                if item.decodes_video:
                    waits = audio and item.has_audio and not live
                    mouths = MouthTracker(detector, max_faces=max_faces, skip_frames=waits, previews=live)
                yield item
            case GrayFrame():
                assert mouths is not None, "frames come where pictures were announced"
                yield from mouths.push(item.pixels, item.index)
            case EndOfStream():
                if mouths is not None:
                    yield from mouths.flush()
                yield item
            case _:
                yield item
