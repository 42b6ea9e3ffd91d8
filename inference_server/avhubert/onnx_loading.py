"""Loads model files for onnxruntime, without torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gorggle_server.avhubert.checkpoints.file_header import SENTENCEPIECE, FileHeader, parse_header
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.onnx_model import OnnxModel
from gorggle_server.avhubert.onnx_weights import INDEX_FILE, describe_architecture
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.errors import ModelFormatError

GRAPHS = Path(__file__).parents[1] / "assets" / "gorggle-mini-graphs"
_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8}


def read_config(path: Path) -> ModelConfig:
    """Return the configuration of a Gorggle ``.safetensors`` file.

    Raises:
        ModelFormatError: the file is not one, or its header is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            return parse_header(file.metadata() or {}).config
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path} is not a complete safetensors file: {error}") from error


def can_load(path: Path) -> bool:
    """Return whether a file is a Gorggle model of an architecture that there are graphs for.

    Raises:
        ModelFormatError: it is a safetensors file, but not a model, or its header is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = parse_header(file.metadata() or {})
            dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError):
        return False
    except ModelFormatError as error:
        raise ModelFormatError(f"{path} is not a usable model file: {error}") from error
    return dtypes <= _DTYPES.keys() and describe_architecture(header.config) == _read_architecture()


def load_onnx_model(path: Path, num_threads: int = 1) -> OnnxModel:
    """Load a Gorggle ``.safetensors`` file for which ``can_load`` is true.

    Raises:
        ModelFormatError: the file is damaged or incomplete.
    """
    try:
        with safe_open(path, framework="np") as file:
            header = parse_header(file.metadata() or {})
            tensors = {name: _read_tensor(file, name, header) for name in file.keys()}  # noqa: SIM118  no dict
            sentencepiece = tensors.pop(SENTENCEPIECE, None)
            vocabulary = Vocabulary(header.tokens, None if sentencepiece is None else sentencepiece.tobytes())
            weights = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        return OnnxModel(GRAPHS, weights, header.config, vocabulary, header.card, num_threads)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path} is not a complete safetensors file: {error}") from error
    except KeyError as error:
        raise ModelFormatError(f"{path} is not a usable model file: it lacks the weight {error}") from error
    except (IndexError, ValueError) as error:
        raise ModelFormatError(
            f"{path} is not a usable model file: its weights do not match its configuration ({error})"
        ) from error
    except ModelFormatError as error:
        raise ModelFormatError(f"{path} is not a usable model file: {error}") from error


def _read_tensor(file: Any, name: str, header: FileHeader) -> Any:
    tensor = file.get_tensor(name)
    header.verify(
        name, f"torch.{tensor.dtype}", tensor.shape, np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    )
    return tensor


@cache
def _read_architecture() -> dict[str, Any]:
    architecture: dict[str, Any] = json.loads((GRAPHS / INDEX_FILE).read_text())["config"]
    return architecture
