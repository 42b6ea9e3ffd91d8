"""Registry of the served models: locate, fetch, load."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gorggle_server import s3
from gorggle_server.avhubert import Model, load_model
from gorggle_server.errors import NotFoundError
from gorggle_server.model_catalogue.store import ModelStore
from gorggle_server.settings import EMBEDDED_MODEL, ServerSettings

_log = logging.getLogger(__name__)

MAX_MODEL_BYTES = 8 * 2**30
MODEL_FILE_SUFFIXES = frozenset({".pt", ".safetensors"})


@dataclass(frozen=True)
class ServedModel:
    """A loaded model, the name that requests use, and the SHA-256 of its file in hexadecimal."""

    name: str
    model: Model
    sha256: str


class ModelRegistry:
    """Loaded models by name, the default first."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._models = dict(models)

    @property
    def default(self) -> str:
        """Name of the model used if a request names none."""
        return next(iter(self._models))

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._models.values())

    def __getitem__(self, name: str) -> ServedModel:
        try:
            return self._models[name]
        except KeyError:
            available = ", ".join(sorted(self._models))
            raise NotFoundError(f"model {name!r} does not exist; available: {available}") from None


def resolve_model_sources(settings: ServerSettings) -> dict[str, str]:
    """Return the location of each model by name, the default first.

    Raises:
        NotFoundError: a model is neither configured nor installed.
        InvalidRequestError: this server lacks the engine of an installed model.
    """
    sources = {EMBEDDED_MODEL.stem: str(EMBEDDED_MODEL), **settings.models}
    default = settings.default_model or EMBEDDED_MODEL.stem
    sources = {default: sources.get(default, default), **sources}
    store = ModelStore(settings.model_dir)
    return {name: _resolve_source(source, store) for name, source in sources.items()}


def load_models(settings: ServerSettings) -> ModelRegistry:
    """Load every configured model; takes seconds to minutes.

    Raises:
        NotFoundError: a model does not exist at its location.
        ModelFormatError: a file is not a model.
    """
    models = {}
    for name, source in resolve_model_sources(settings).items():
        with tempfile.TemporaryDirectory(prefix="gorggle-model-") as folder:
            path = _fetch_model(source, Path(folder))
            model = load_model(path, device=settings.device, dtype=settings.dtype)
            model.optimize(int8=settings.quantization == "int8")
            models[name] = ServedModel(name, model, _hash_file(path))
        _log.info("loaded model %s from %s", name, source)
    return ModelRegistry(models)


def _resolve_source(source: str, store: ModelStore) -> str:
    """Return the location of a source: itself if it is an address or a path, else where the model of this name is."""
    path = Path(source)
    if "/" in source or path.suffix in MODEL_FILE_SUFFIXES or path.exists():
        return source
    return str(store.locate(source))


def _fetch_model(source: str, folder: Path) -> Path:
    if not source.startswith("s3://"):
        return Path(source)
    address = s3.S3Location.parse(source)
    path = folder / Path(address.key).name
    with path.open("wb") as file:
        for chunk in s3.read_object(address, max_bytes=MAX_MODEL_BYTES):
            file.write(chunk)
    return path


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
