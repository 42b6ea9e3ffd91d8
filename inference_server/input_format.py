"""Frame rate, sample rate, mouth crop and face sizes of the models' input. The standard library only: everything imports this."""

from __future__ import annotations

FRAME_RATE_HZ = 25
FRAME_S = 1 / FRAME_RATE_HZ
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ

# Mouth crops are stored at 96 x 96 pixels; the model reads their centre, 88 x 88.
MOUTH_CROP_SIZE_PX = 96
MODEL_INPUT_SIZE_PX = 88

# Faces of this width are found in every video up to 4K.
MIN_FACE_WIDTH_PX = 60


def frames_to_seconds(frames: int) -> float:
    """Return the duration of a number of video frames."""
    return frames / FRAME_RATE_HZ


def frames_to_samples(frames: int) -> int:
    """Return the number of audio samples that a number of video frames lasts."""
    return frames * SAMPLES_PER_FRAME


# Published normalisation of grey levels, 0 to 1 (AV-HuBERT, appendix A.1 of the paper).
GREY_MEAN, GREY_STD = 0.421, 0.165
