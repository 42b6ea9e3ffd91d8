"""The Gorggle model file: a safetensors file with weights, vocabulary, configuration and model card.

The header's metadata has ``format``, ``version``, and as JSON ``config``, ``units`` (the vocabulary), ``card`` and
``checksums``: the CRC-32 of every tensor, and under "" that of the other entries, because safetensors has no checksums.
The SentencePiece model is the uint8 tensor ``sentencepiece_model``.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gorggle_server.avhubert.checkpoints.model_card import validate_card
from gorggle_server.avhubert.checkpoints.stored_model import COUNTERS, LazyTensor, StoredModel
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.errors import ModelFormatError, NotFoundError

FORMAT = "gorggle-avhubert"
VERSION = 1
_SENTENCEPIECE = "sentencepiece_model"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
}


@dataclass(frozen=True)
class _Slice:
    """A tensor of an open safetensors file."""

    file: Any
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    checksum: int | None

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        if _checksum(tensor) != self.checksum:
            raise ModelFormatError(
                f"{self.name} does not match its checksum: the file is damaged, download it again"
            )
        return tensor


@contextmanager
def open_model(path: Path) -> Iterator[StoredModel]:
    """Open a model file; its weights can be read until the context exits.

    Raises:
        ModelFormatError: the file is damaged, truncated, of another version or another format.
    """
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFormatError(
            f"the file is neither a checkpoint nor a complete safetensors file: {error}"
        ) from error
    with file:
        yield _to_stored_model(file)


def _to_stored_model(file: Any) -> StoredModel:
    metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ModelFormatError(
            f"the safetensors file has format {metadata.get('format')!r}; expected {FORMAT!r}: "
            "convert a checkpoint with `gorggle model convert`"
        )
    if metadata.get("version") != str(VERSION):
        raise ModelFormatError(
            f"the model file has version {metadata.get('version')!r}; this server supports {VERSION}: update it"
        )
    checksums = _parse_json(metadata, "checksums", dict)
    if _header_checksum(metadata) != checksums.get(""):
        raise ModelFormatError(
            "the model file's header does not match its checksum: the file is damaged, download it again"
        )
    tokens = _parse_json(metadata, "units", list)
    if not all(isinstance(token, str) for token in tokens):
        raise ModelFormatError("the model file's vocabulary has entries that are not strings")
    slices = {name: _get_slice(file, name, checksums.get(name)) for name in file.keys()}  # noqa: SIM118  no dict
    sentencepiece = slices.pop(_SENTENCEPIECE, None)
    weights: dict[str, LazyTensor] = dict(slices)
    return StoredModel(
        config=ModelConfig.from_dict(_parse_json(metadata, "config", dict)),
        tokens=tokens,
        sentencepiece_model=None if sentencepiece is None else sentencepiece.read().numpy().tobytes(),
        card=validate_card(_parse_json(metadata, "card", dict)),
        weights=weights,
        layout=f"{FORMAT} {VERSION}",
    )


def _get_slice(file: Any, name: str, checksum: int | None) -> _Slice:
    view = file.get_slice(name)
    dtype = _DTYPES.get(view.get_dtype())
    if dtype is None:
        raise ModelFormatError(f"{name} has type {view.get_dtype()}; expected one of {sorted(_DTYPES)}")
    return _Slice(file, name, tuple(view.get_shape()), dtype, checksum)


def _parse_json(metadata: Mapping[str, str], name: str, kind: type) -> Any:
    try:
        value = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"the model file's header has no valid {name}: {error}") from error
    if not isinstance(value, kind):
        raise ModelFormatError(
            f"the model file's {name} is a {type(value).__name__}; expected a {kind.__name__}"
        )
    return value


def write_model(
    path: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokens: list[str],
    sentencepiece_model: bytes | None,
    card: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model file, replacing an existing file atomically.

    Args:
        path: the output file.
        state: the network's weights, by their names in ``AVHubertNetwork``.
        config: the network's configuration.
        tokens: the vocabulary, ordered by id.
        sentencepiece_model: the serialized SentencePiece model.
        card: JSON-serializable values.
        dtype: of the stored weights; None keeps their dtypes.

    Raises:
        NotFoundError: the folder does not exist.
        OSError: the file cannot be written, for instance because the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in state.items():
        if name.endswith(COUNTERS):
            continue
        stored = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        # safetensors refuses tensors that share memory, as those of a checkpoint may.
        tensors[name] = stored.clone() if stored.data_ptr() in addresses else stored
        addresses.add(stored.data_ptr())
    if sentencepiece_model is not None:
        tensors[_SENTENCEPIECE] = torch.frombuffer(bytearray(sentencepiece_model), dtype=torch.uint8)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config.to_dict()),
        "units": json.dumps(tokens, ensure_ascii=False),
        "card": json.dumps(dict(card), ensure_ascii=False),
    }
    checksums = {name: _checksum(tensor) for name, tensor in tensors.items()}
    metadata["checksums"] = json.dumps({"": _header_checksum(metadata), **checksums})
    if not path.parent.is_dir():
        raise NotFoundError(f"the output folder {path.parent} does not exist: create it first")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"the model file {path} cannot be written: {error}") from error
        # mkstemp creates files that only their owner can read.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _checksum(tensor: Tensor) -> int:
    described = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    numbers: NDArray[np.uint8] = tensor.flatten().view(torch.uint8).numpy()
    return zlib.crc32(numbers.data, zlib.crc32(described))


def _header_checksum(metadata: Mapping[str, str]) -> int:
    covered = [metadata.get(name, "") for name in ("format", "version", "config", "units", "card")]
    return zlib.crc32("\0".join(covered).encode("utf-8", "surrogatepass"))
