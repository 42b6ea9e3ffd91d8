"""The folder of installed models: one folder per model, with the model's files and ``model.json``.

``.downloads`` in it has a folder per unfinished download, and the locks. A model's folder is renamed into place when it is
complete, so a folder with a ``model.json`` is always whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gorggle_server.errors import InvalidRequestError, NotFoundError
from gorggle_server.model_catalogue.catalogue import (
    ASSETS_FOLDER,
    ENGINES,
    CatalogueModel,
    find_missing_extra,
    load_catalogue,
)

RECORD_NAME = "model.json"
DOWNLOADS_NAME = ".downloads"


def get_default_model_dir() -> Path:
    """Return ``models`` in Gorggle's folder of the platform's user cache."""
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        # The XDG specification ignores relative paths.
        configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
        cache = configured if configured.is_absolute() else Path.home() / ".cache"
    return cache / "gorggle" / "models"


def get_model_dir() -> Path:
    """Return the folder of installed models: ``$GORGGLE_MODEL_DIR``, else the default one."""
    return Path(os.environ.get("GORGGLE_MODEL_DIR") or get_default_model_dir())


@dataclass(frozen=True)
class InstalledModel:
    """A model in the store.

    Attributes:
        folder: of the model's files.
        record: the content of ``model.json``: name, engine, license, and the files that were downloaded.
    """

    name: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """What the engine loads: the model file, else the folder."""
        file = self.folder / f"{self.name}.safetensors"
        return file if file.exists() else self.folder

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        return _measure(self.folder)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a folder of the store; empty if it has none, or a damaged one."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        if isinstance(record, dict):
            return record
    return {}


class ModelStore:
    """The installed models of a folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list_models(self) -> dict[str, InstalledModel]:
        """Return the installed models by name; folders with a damaged record are not listed."""
        models = {}
        for record_path in sorted(self.folder.glob(f"*/{RECORD_NAME}")):
            folder = record_path.parent
            if "engine" in (record := read_record(folder)):
                models[folder.name] = InstalledModel(folder.name, folder, record)
        return models

    def find(self, name: str) -> InstalledModel | None:
        """Return an installed model; None if it is not installed."""
        return self.list_models().get(name)

    def locate(self, name: str) -> Path:
        """Return the path of an installed or embedded model that this server can load.

        Raises:
            NotFoundError: no model has the name, or it is not installed.
            InvalidRequestError: this server lacks the model's engine.
        """
        catalogue, installed = load_catalogue(), self.list_models()
        known, model = catalogue.get(name), installed.get(name)
        if known is None and model is None:
            included = [each.name for each in catalogue.values() if each.is_embedded]
            others = [each.name for each in catalogue.values() if each.is_servable and not each.is_embedded]
            raise NotFoundError(
                f"unknown model {name!r}; available: {', '.join([*included, *installed])}; with `gorggle model get`: "
                f"{', '.join(others)}; for a model file, set GORGGLE_MODELS to its name and path"
            )
        engine = model.record["engine"] if model else known.engine if known else ""
        if engine not in ENGINES:
            raise InvalidRequestError(
                f"model {name} needs the engine {engine}, which this version of Gorggle does not have; choose a model of: "
                f"{', '.join(sorted(ENGINES))}"
            )
        if extra := find_missing_extra(engine):
            also = "" if model else f", then `gorggle model get {name}`"
            raise InvalidRequestError(
                f"model {name} needs the engine {engine}, which is not installed: pip install '{extra}'{also}"
            )
        if known and known.is_embedded:
            return ASSETS_FOLDER / f"{name}.safetensors"
        if model is None:
            raise NotFoundError(f"model {name} is not installed: run `gorggle model get {name}`")
        return model.path

    def add(self, model: CatalogueModel, folder: Path, files: list[dict[str, Any]], accepted_at: str) -> None:
        """Move a folder with a model's files into the store.

        Args:
            model: its entry in the catalogue.
            folder: on the store's file system.
            files: name, address, size and SHA-256 of each download.
            accepted_at: when the licence was accepted, in ISO 8601.
        """
        record = {
            "name": model.name,
            "engine": model.engine,
            "license": {
                "name": model.license.name,
                "url": model.license.url,
                "commercial_use": model.license.commercial_use,
                "accepted_at": accepted_at,
            },
            "files": files,
        }
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        target = self.folder / model.name
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)

    def remove(self, name: str) -> int:
        """Remove a model and its unfinished download, and return the freed bytes.

        Raises:
            NotFoundError: neither exists.
            InvalidRequestError: it is being downloaded.
        """
        folders = [self.get_download_folder(name)]
        if model := self.find(name):
            folders.insert(0, model.folder)
        if not any(folder.exists() for folder in folders):
            raise NotFoundError(
                f"model {name!r} is not installed in {self.folder}; installed: {', '.join(self.list_models()) or 'none'}"
            )
        with self.lock(name, on_wait=None):
            freed_bytes = sum(map(_measure, folders))
            for folder in folders:
                # Without its record, a half-removed folder is not a model.
                (folder / RECORD_NAME).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
        return freed_bytes

    def get_download_folder(self, name: str) -> Path:
        """Return the folder of a model's unfinished download."""
        return self.folder / DOWNLOADS_NAME / name

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None) -> Iterator[None]:
        """Hold the lock of a model's download, which also ends with the process.

        Args:
            name: of the model.
            on_wait: called before waiting for another process; None: raise instead of waiting.

        Raises:
            InvalidRequestError: another process downloads the model, and ``on_wait`` is None.
        """
        downloads = self.folder / DOWNLOADS_NAME
        downloads.mkdir(parents=True, exist_ok=True)
        with (downloads / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is None:
                    raise InvalidRequestError(
                        f"another process is downloading {name}: stop it first"
                    ) from None
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _measure(folder: Path) -> int:
    """Return the size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
