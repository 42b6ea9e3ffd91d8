"""The header of a Gorggle model file: everything except the weights. Does not need torch.

The safetensors metadata has ``format``, ``version``, and as JSON ``config``, ``units`` (the vocabulary), ``card`` and
``checksums``: the CRC-32 of every tensor, and under "" that of the other entries, because safetensors has no checksums.
The SentencePiece model is the uint8 tensor ``sentencepiece_model``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gorggle_server.avhubert.checkpoints.model_card import validate_card
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.errors import ModelFormatError

FORMAT = "gorggle-avhubert"
VERSION = 1
SENTENCEPIECE = "sentencepiece_model"


@dataclass(frozen=True)
class FileHeader:
    """Configuration, vocabulary, card and the checksum of each tensor."""

    config: ModelConfig
    tokens: list[str]
    card: dict[str, Any]
    checksums: dict[str, Any]

    def verify(self, name: str, dtype: str, shape: Sequence[int], data: NDArray[np.uint8]) -> None:
        """Verify a tensor.

        Args:
            name: of the tensor.
            dtype: in torch's notation, such as "torch.float16".
            shape: of the tensor.
            data: its bytes.

        Raises:
            ModelFormatError: it does not match its checksum.
        """
        if compute_checksum(dtype, shape, data) != self.checksums.get(name):
            raise ModelFormatError(
                f"{name} does not match its checksum: the file is damaged, download it again"
            )


def parse_header(metadata: Mapping[str, str]) -> FileHeader:
    """Parse the metadata of a safetensors file.

    Raises:
        ModelFormatError: it is damaged, of another version or another format.
    """
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
    if compute_header_checksum(metadata) != checksums.get(""):
        raise ModelFormatError(
            "the model file's header does not match its checksum: the file is damaged, download it again"
        )
    tokens = _parse_json(metadata, "units", list)
    if not all(isinstance(token, str) for token in tokens):
        raise ModelFormatError("the model file's vocabulary has entries that are not strings")
    config = ModelConfig.from_dict(_parse_json(metadata, "config", dict))
    return FileHeader(config, tokens, validate_card(_parse_json(metadata, "card", dict)), checksums)


def compute_checksum(dtype: str, shape: Sequence[int], data: NDArray[np.uint8]) -> int:
    """Return the checksum of a tensor; arguments as in ``FileHeader.verify``."""
    return zlib.crc32(data.data, zlib.crc32(f"{dtype}{tuple(shape)}".encode()))


def compute_header_checksum(metadata: Mapping[str, str]) -> int:
    """Return the checksum of the entries of a header, without that of the tensors."""
    covered = [metadata.get(name, "") for name in ("format", "version", "config", "units", "card")]
    return zlib.crc32("\0".join(covered).encode("utf-8", "surrogatepass"))


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
