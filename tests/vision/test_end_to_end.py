"""From media bytes to mouth crops: decoding, face tracking and cropping of a synthetic talking head."""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import GrayFrame, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.mouth_cropper import MouthCropper, crop_mouths, load_mean_face
from tests.media.samples import ChunkedReader
from tests.vision.synthetic_video import astronaut, face_detector, mouth_opening, paint_head, swaying_pose

LIMITS = MediaLimits()
SECONDS = 2


@functools.cache
def encode_talking_head(
    size: tuple[int, int], container: str = "mp4", codec: str = "libx264", rate: int = 25, rotation: int = 0
) -> bytes:
    """Return a video file of a talking head."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=container) as container_file:
            options = (
                {"preset": "ultrafast", "crf": "20"}
                if codec == "libx264"
                else {"deadline": "realtime", "cpu-used": "8"}
            )
            stream = container_file.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height = size if rotation in {0, 180} else size[::-1]
            stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
            if rotation:
                stream.set_display_rotation(rotation)
            for number in range(SECONDS * rate):
                frame_index = number * 25 / rate
                image = np.zeros((size[1], size[0], 3), np.uint8)
                pose = swaying_pose(*size, frame_index, size[1] * 0.13, opening=mouth_opening(frame_index))
                paint_head(astronaut(), pose, image)
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(np.rot90(image, -rotation // 90)), "rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container_file.mux(stream.encode(frame))
            container_file.mux(stream.encode(None))
        return path.read_bytes()


def extract_mouth_crops(data: bytes, detector: FaceDetector, chunk: int = 2**20) -> NDArray[np.uint8]:
    """Return the mouth crops of the only person in the clip."""
    tracker, cropper, crops = FaceTracker(detector), MouthCropper(load_mean_face()), []
    people: set[int] = set()
    for item in resample(decode(ChunkedReader(data, chunk), LIMITS), LIMITS):
        if isinstance(item, GrayFrame):
            faces = tracker.update(item.pixels, item.index)
            people |= {face.track_id for face in faces}
            crops += cropper.push(item.index, item.pixels, faces[0].landmarks if faces else None)
    crops += cropper.flush()
    assert people == {1}
    assert [index for index, _ in crops] == list(range(len(crops)))
    return np.stack([pixels for _, pixels in crops])


def render_expected_crops(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the crops from the true landmarks and the unencoded frames."""
    frames, landmarks = [], []
    for number in range(SECONDS * 25):
        frame = np.zeros(size[::-1], np.uint8)
        landmarks.append(
            paint_head(
                astronaut(), swaying_pose(*size, number, size[1] * 0.13, opening=mouth_opening(number)), frame
            )
        )
        frames.append(frame)
    return crop_mouths(np.stack(frames), landmarks, load_mean_face())


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_mouth_crops_match_those_of_the_true_landmarks(detector: FaceDetector, size: tuple[int, int]) -> None:
    crops = extract_mouth_crops(encode_talking_head(size), detector)
    assert crops.shape == (SECONDS * 25, 96, 96)
    difference = np.abs(crops.astype(int) - render_expected_crops(size))
    assert difference.mean() < 8
    assert np.median(difference) <= 4


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("WebM", functools.partial(encode_talking_head, (640, 480), "webm", "libvpx-vp9")),
        ("MPEG-TS", functools.partial(encode_talking_head, (640, 480), "mpegts")),
        ("30 fps", functools.partial(encode_talking_head, (640, 480), rate=30)),
        ("60 fps", functools.partial(encode_talking_head, (640, 480), rate=60)),
        ("rotated by 90 degrees", functools.partial(encode_talking_head, (640, 480), rotation=90)),
        ("rotated by 180 degrees", functools.partial(encode_talking_head, (640, 480), rotation=180)),
    ],
)
def test_media_format_does_not_change_mouth_crops(name: str, clip: functools.partial[bytes]) -> None:
    crops = extract_mouth_crops(clip(), face_detector())
    reference = extract_mouth_crops(encode_talking_head((640, 480)), face_detector())
    assert len(crops) == len(reference)
    assert np.abs(crops.astype(int) - reference).mean() < 8


def test_chunk_size_does_not_change_mouth_crops() -> None:
    np.testing.assert_array_equal(
        extract_mouth_crops(encode_talking_head((640, 480)), face_detector(), 64),
        extract_mouth_crops(encode_talking_head((640, 480)), face_detector()),
    )
