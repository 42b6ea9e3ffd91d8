"""Installs a model of the catalogue: downloads its files, converts checkpoints, and adds it to the store."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from pathlib import Path
from typing import Any

from gorggle_server.errors import ModelFormatError
from gorggle_server.model_catalogue.catalogue import CatalogueModel, apply_mirror
from gorggle_server.model_catalogue.download import Downloader, DownloadError, check_free_space
from gorggle_server.model_catalogue.store import InstalledModel, ModelStore

# A checkpoint and the converted file are on the disk together. The converted one is not larger.
COPIES_OF_CHECKPOINT = 2


def install(
    model: CatalogueModel, store: ModelStore, downloader: Downloader, mirror: str | None = None
) -> InstalledModel:
    """Install a model whose licence was accepted, and return it; an installed one is left as it is.

    An interrupted installation continues where it stopped.

    Args:
        model: not an embedded one.
        store: to install to.
        downloader: downloads the files.
        mirror: base address used instead of the publishers' hosts; see ``apply_mirror``.

    Raises:
        DownloadError: a file cannot be downloaded or is not what the catalogue states, or the disk is full.
    """
    accepted_at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    report = downloader.observer.report
    with store.lock(
        model.name, lambda: report(f"another process is downloading {model.name}; waiting for it …")
    ):
        if installed := store.find(model.name):
            return installed
        folder = store.get_download_folder(model.name)
        folder.mkdir(parents=True, exist_ok=True)
        if model.size_bytes is not None:
            present_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            check_free_space(folder, model.size_bytes - present_bytes)
        files = _download_files(model, folder, downloader, mirror)
        if model.engine == "avhubert":
            report(f"converting {model.name} …")
            store.add(model, _convert_checkpoint(model, folder), files, accepted_at)
            shutil.rmtree(folder)
        else:
            store.add(model, folder, files, accepted_at)
        installed = store.find(model.name)
        if installed is None:
            raise DownloadError(f"{model.name} was removed from {store.folder} while it was installed")
        return installed


def _download_files(
    model: CatalogueModel, folder: Path, downloader: Downloader, mirror: str | None
) -> list[dict[str, Any]]:
    copies = COPIES_OF_CHECKPOINT if model.engine == "avhubert" else 1
    files = []
    for file in model.files:
        source = dataclasses.replace(file, url=apply_mirror(file.url, mirror))
        digest = downloader.download(source, folder / file.name, copies=copies)
        if file.sha256 is None and not file.size_bytes:
            downloader.observer.report(
                f"{file.name}: no checksum is published; the download has SHA-256 {digest}"
            )
        size_bytes = (folder / file.name).stat().st_size
        files.append({"name": file.name, "url": source.url, "size_bytes": size_bytes, "sha256": digest})
    return files


def _convert_checkpoint(model: CatalogueModel, folder: Path) -> Path:
    """Convert the downloaded checkpoint to a model file without running code from it, and return that file's folder."""
    # torch takes a second to import: `gorggle model list` does not need it.
    from gorggle_server.avhubert.checkpoints.loading import convert

    (checkpoint,) = (folder / file.name for file in model.files)
    converted = folder / "converted"
    converted.mkdir(exist_ok=True)
    card = {
        "name": model.name,
        "description": model.description,
        "trained_on": model.trained_on,
        "languages": list(model.languages),
        "license": dataclasses.asdict(model.license),
    }
    try:
        convert(checkpoint, converted / f"{model.name}.safetensors", card)
    except ModelFormatError as error:
        shutil.rmtree(folder)
        raise DownloadError(f"{error}. The download was deleted: try again, or another mirror") from error
    return converted
