"""The Gorggle model file: a safetensors file with weights and the header of ``file_header``."""

from __future__ import annotations

import json
import os
import tempfile
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

from gorggle_server.avhubert.checkpoints.file_header import (
    FORMAT,
    SENTENCEPIECE,
    VERSION,
    FileHeader,
    compute_checksum,
    compute_header_checksum,
    parse_header,
)
from gorggle_server.avhubert.checkpoints.stored_model import COUNTERS, LazyTensor, StoredModel
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.errors import ModelFormatError, NotFoundError

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
    header: FileHeader

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        self.header.verify(self.name, str(tensor.dtype), tensor.shape, _get_bytes(tensor))
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
    header = parse_header(file.metadata() or {})
    slices = {name: _get_slice(file, name, header) for name in file.keys()}  # noqa: SIM118  no dict
    sentencepiece = slices.pop(SENTENCEPIECE, None)
    weights: dict[str, LazyTensor] = dict(slices)
    return StoredModel(
        config=header.config,
        tokens=header.tokens,
        sentencepiece_model=None if sentencepiece is None else sentencepiece.read().numpy().tobytes(),
        card=header.card,
        weights=weights,
        layout=f"{FORMAT} {VERSION}",
    )


def _get_slice(file: Any, name: str, header: FileHeader) -> _Slice:
    view = file.get_slice(name)
    dtype = _DTYPES.get(view.get_dtype())
    if dtype is None:
        raise ModelFormatError(f"{name} has type {view.get_dtype()}; expected one of {sorted(_DTYPES)}")
    return _Slice(file, name, tuple(view.get_shape()), dtype, header)


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
        tensors[SENTENCEPIECE] = torch.frombuffer(bytearray(sentencepiece_model), dtype=torch.uint8)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config.to_dict()),
        "units": json.dumps(tokens, ensure_ascii=False),
        "card": json.dumps(dict(card), ensure_ascii=False),
    }
    checksums = {
        name: compute_checksum(str(tensor.dtype), tensor.shape, _get_bytes(tensor))
        for name, tensor in tensors.items()
    }
    metadata["checksums"] = json.dumps({"": compute_header_checksum(metadata), **checksums})
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


def _get_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    data: NDArray[np.uint8] = tensor.flatten().view(torch.uint8).numpy()
    return data
