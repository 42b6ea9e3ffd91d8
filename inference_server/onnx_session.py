"""Opens ONNX models with onnxruntime, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gorggle_server.errors import ModelFormatError, NotFoundError


def open_session(path: Path, num_threads: int = 1, weights: Mapping[str, Any] | None = None) -> Any:
    """Open a model.

    Args:
        path: of the model.
        num_threads: of one operation.
        weights: values of type ``onnxruntime.OrtValue`` for the external weights of the model, by name.

    Raises:
        NotFoundError: onnxruntime is not installed.
        ModelFormatError: the file is missing or damaged.
    """
    # Importing the wheels of PyPI starts a thread that sends usage data to their publisher.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise NotFoundError("onnxruntime is not installed: pip install 'gorggle[server]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    # Idle threads must sleep: spinning, they take CPU time from decoding and face tracking.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # boundary to onnxruntime, which has no common error class
        raise ModelFormatError(
            f"{path} cannot be loaded ({' '.join(str(error).split())}): install it again"
        ) from error
