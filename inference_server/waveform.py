"""Validation of waveforms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gorggle_server.errors import InvalidRequestError


def validate_waveform(wav: NDArray[np.int16]) -> None:
    """Raise InvalidRequestError unless the samples are one-dimensional int16."""
    if not isinstance(wav, np.ndarray) or wav.ndim != 1 or wav.dtype != np.int16:
        actual = f"{wav.dtype} {wav.shape}" if isinstance(wav, np.ndarray) else type(wav).__name__
        raise InvalidRequestError(f"the waveform is {actual}; expected int16 of shape (S,), mono at 16 kHz")
