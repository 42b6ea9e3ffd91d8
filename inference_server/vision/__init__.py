"""Vision: face detection, face tracking and mouth crops from grayscale frames."""

from gorggle_server.vision.mouth_cropper import crop_mouths

__all__ = ["crop_mouths"]
