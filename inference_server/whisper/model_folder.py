"""Folders of Whisper models in the form of CTranslate2: required files, dimensions, and whether they are complete."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gorggle_server.errors import ModelFormatError, NotFoundError

WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE = "model.bin", "tokenizer.json", "config.json"
VOCABULARY_FILES = ("vocabulary.json", "vocabulary.txt")
_SPEC_NAME = "WhisperSpec"
_MAX_NAME_BYTES, _MAX_RANK, _MAX_VARIABLES = 1000, 8, 100_000
_ADVICE = "download or convert the model again"
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d+)/")


@dataclass(frozen=True)
class Dimensions:
    """Dimensions of a network, from the header of its weights."""

    parameter_count: int
    encoder_layers: int
    encoder_width: int
    decoder_layers: int
    decoder_width: int
    vocabulary_size: int


@dataclass(frozen=True)
class ModelFolder:
    """A folder with all files of a model; ``vocabulary`` has the text of every token."""

    path: Path
    dimensions: Dimensions
    vocabulary: tuple[str, ...]


def check_folder(path: Path) -> ModelFolder:
    """Check that a folder holds a complete model, without loading its weights.

    Raises:
        NotFoundError: the folder does not exist.
        ModelFormatError: a file is missing, damaged or cut off, or the model is not Whisper.
    """
    if not path.is_dir():
        raise NotFoundError(f"the model's folder {path} does not exist")
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE) if not (path / name).is_file()]
    if not any((path / name).is_file() for name in VOCABULARY_FILES):
        missing.append(" or ".join(VOCABULARY_FILES))
    if missing:
        raise ModelFormatError(
            f"{path} is not a Whisper model in the form of CTranslate2: it lacks {', '.join(missing)}; {_ADVICE}"
        )
    _read_json(path / CONFIG_FILE)
    dimensions, vocabulary = _read_dimensions(path / WEIGHTS_FILE), _read_vocabulary(path)
    if len(vocabulary) != dimensions.vocabulary_size:
        raise ModelFormatError(
            f"{path} has a vocabulary of {len(vocabulary)} tokens, but weights for {dimensions.vocabulary_size}: {_ADVICE}"
        )
    return ModelFolder(path, dimensions, vocabulary)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{path} is damaged ({error}): {_ADVICE}") from error


def _read_vocabulary(folder: Path) -> tuple[str, ...]:
    path = next(folder / name for name in VOCABULARY_FILES if (folder / name).is_file())
    if path.suffix == ".json":
        tokens = _read_json(path)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ModelFormatError(f"{path} is damaged (it is not a list of tokens): {_ADVICE}")
        return tuple(tokens)
    # Tokens hold characters that ``splitlines`` takes for line breaks.
    return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))


def _read_dimensions(path: Path) -> Dimensions:
    """Read names and shapes of all weights, and check that the file is complete."""
    try:
        with path.open("rb") as file:
            shapes = dict(_iterate_shapes(file, path.stat().st_size))
    except (ValueError, struct.error) as error:
        raise ModelFormatError(f"{path} is damaged ({error}): {_ADVICE}") from error
    try:
        vocabulary_size, decoder_width = shapes["decoder/embeddings/weight"]
        encoder_width = shapes["encoder/conv1/weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFormatError(f"{path} lacks weights of Whisper: {_ADVICE}") from error
    layers = {match[1]: 0 for match in map(_LAYER.match, shapes) if match}
    for match in filter(None, map(_LAYER.match, shapes)):
        layers[match[1]] = max(layers[match[1]], int(match[2]) + 1)
    return Dimensions(
        # Biases and norms included, scales of quantized weights not.
        parameter_count=sum(
            math.prod(shape) for name, shape in shapes.items() if shape and not name.endswith("_scale")
        ),
        encoder_layers=layers.get("encoder", 0),
        encoder_width=encoder_width,
        decoder_layers=layers.get("decoder", 0),
        decoder_width=decoder_width,
        vocabulary_size=vocabulary_size,
    )


def _iterate_shapes(file: BinaryIO, size_bytes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each variable; the format is that of ``ctranslate2.specs.model_spec``, version 6.

    Raises:
        ValueError, struct.error: the file is not in this format, or ends early.
    """
    _, name = _read(file, "<I")[0], _read_string(file)
    if name != _SPEC_NAME:
        raise ValueError(f"it holds {name[:40]!r}, not {_SPEC_NAME}")
    _, count = _read(file, "<II")
    if count > _MAX_VARIABLES:
        raise ValueError(f"it declares {count} variables")
    for _ in range(count):
        variable = _read_string(file)
        (rank,) = _read(file, "<B")
        if rank > _MAX_RANK:
            raise ValueError(f"{variable[:40]!r} has {rank} dimensions")
        shape = _read(file, f"<{rank}I")
        _, variable_bytes = _read(file, "<BI")
        end = file.seek(variable_bytes, 1)
        if end > size_bytes:
            raise ValueError(f"it has {size_bytes} bytes and ends within {variable[:60]!r}")
        yield variable, shape


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _read_string(file: BinaryIO) -> str:
    (length,) = _read(file, "<H")
    if not 0 < length <= _MAX_NAME_BYTES:
        raise ValueError(f"a name has {length} bytes")
    return file.read(length).rstrip(b"\0").decode("utf-8")
