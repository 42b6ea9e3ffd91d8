"""From a file's bytes to mouth crops: decoding, following and cutting together, with a face that was filmed."""

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
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.mouth_cropper import MouthCropper, crop_mouths, load_mean_face
from tests.media.samples import Pieces
from tests.vision.synthetic_video import astronaut, finder, painted, swaying, syllables

LIMITS = MediaLimits()
SECONDS = 2


@functools.cache
def filmed(
    size: tuple[int, int], container: str = "mp4", codec: str = "libx264", rate: int = 25, turned: int = 0
) -> bytes:
    """A head that speaks, as a video file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=container) as made:
            options = (
                {"preset": "ultrafast", "crf": "20"}
                if codec == "libx264"
                else {"deadline": "realtime", "cpu-used": "8"}
            )
            stream = made.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height = size if turned in {0, 180} else size[::-1]
            stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
            if turned:
                stream.set_display_rotation(turned)
            for number in range(SECONDS * rate):
                moment = number * 25 / rate
                image = np.zeros((size[1], size[0], 3), np.uint8)
                pose = swaying(*size, moment, size[1] * 0.13, opening=syllables(moment))
                painted(astronaut(), pose, image)
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(np.rot90(image, -turned // 90)), "rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, rate)
                made.mux(stream.encode(frame))
            made.mux(stream.encode(None))
        return path.read_bytes()


def crops_of(data: bytes, chunk: int = 2**20) -> NDArray[np.uint8]:
    """The mouth crops of the one person in the clip."""
    tracker, cropper, crops = FaceTracker(finder()), MouthCropper(load_mean_face()), []
    people: set[int] = set()
    for item in resample(decode(Pieces(data, chunk), LIMITS), LIMITS):
        if isinstance(item, GrayFrame):
            faces = tracker.update(item.pixels, item.index)
            people |= {face.track_id for face in faces}
            crops += cropper.push(item.index, item.pixels, faces[0].landmarks if faces else None)
    crops += cropper.flush()
    assert people == {1}
    assert [index for index, _ in crops] == list(range(len(crops)))
    return np.stack([pixels for _, pixels in crops])


def truth(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crops that true landmarks and images that were never encoded give."""
    frames, landmarks = [], []
    for number in range(SECONDS * 25):
        frame = np.zeros(size[::-1], np.uint8)
        landmarks.append(
            painted(astronaut(), swaying(*size, number, size[1] * 0.13, opening=syllables(number)), frame)
        )
        frames.append(frame)
    return crop_mouths(np.stack(frames), landmarks, load_mean_face())


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
def test_a_filmed_face_yields_the_crops_of_its_true_landmarks(size: tuple[int, int]) -> None:
    crops = crops_of(filmed(size))
    assert crops.shape == (SECONDS * 25, 96, 96)
    difference = np.abs(crops.astype(int) - truth(size))
    assert difference.mean() < 8
    assert np.median(difference) <= 4


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("WebM", functools.partial(filmed, (640, 480), "webm", "libvpx-vp9")),
        ("MPEG-TS", functools.partial(filmed, (640, 480), "mpegts")),
        ("30 frames a second", functools.partial(filmed, (640, 480), rate=30)),
        ("60 frames a second", functools.partial(filmed, (640, 480), rate=60)),
        ("turned by 90 degrees", functools.partial(filmed, (640, 480), turned=90)),
        ("turned by 180 degrees", functools.partial(filmed, (640, 480), turned=180)),
    ],
)
def test_the_same_face_in_another_format_yields_similar_crops(
    name: str, clip: functools.partial[bytes]
) -> None:
    crops = crops_of(clip())
    reference = crops_of(filmed((640, 480)))
    assert len(crops) == len(reference)
    assert np.abs(crops.astype(int) - reference).mean() < 8


def test_tiny_pieces_give_the_very_same_crops() -> None:
    np.testing.assert_array_equal(crops_of(filmed((640, 480)), 64), crops_of(filmed((640, 480))))
