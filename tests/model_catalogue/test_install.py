"""Installation: resumed, verified, complete or not at all; the folder of installed models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gorggle_server.errors import InvalidRequestError, NotFoundError
from gorggle_server.inference.model_registry import resolve_model_sources
from gorggle_server.model_catalogue import download
from gorggle_server.model_catalogue.catalogue import CatalogueModel, License, RemoteFile, load_catalogue
from gorggle_server.model_catalogue.download import Downloader, DownloadError
from gorggle_server.model_catalogue.install import install
from gorggle_server.model_catalogue.store import ModelStore, get_default_model_dir
from gorggle_server.settings import EMBEDDED_MODEL, ServerSettings
from tests.model_catalogue.file_server import Fault, FileServer

FILES = {"config.json": b"{}", "model.bin": b"w" * 100_000, "tokenizer.json": b"[]"}
DOWNLOADER = Downloader(backoff_s=0)


@pytest.fixture
def whisper(server: FileServer) -> CatalogueModel:
    """Return a model of three small files on the server."""
    server.files.update({f"/{name}": content for name, content in FILES.items()})
    files = tuple(RemoteFile(name, f"{server.url}/{name}", len(body)) for name, body in FILES.items())
    terms = License("MIT", "https://example.com", True, "")
    return CatalogueModel("whisper-tiny", "faster-whisper", terms, "small", ("en",), files)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_an_installed_model_has_its_files_and_a_record(whisper: CatalogueModel, store: ModelStore) -> None:
    installed = install(whisper, store, DOWNLOADER)
    assert {path.name: path.read_bytes() for path in installed.path.iterdir()}.items() >= FILES.items()
    record = json.loads((installed.folder / "model.json").read_text())
    assert record["license"]["name"] == "MIT"
    assert [file["name"] for file in record["files"]] == list(FILES)
    assert all(len(file["sha256"]) == 64 for file in record["files"])
    assert store.list_models() == {"whisper-tiny": installed}


def test_an_installed_model_is_not_downloaded_again(
    whisper: CatalogueModel, store: ModelStore, server: FileServer
) -> None:
    install(whisper, store, DOWNLOADER)
    install(whisper, store, DOWNLOADER)
    assert len(server.requests) == len(FILES)


def test_an_interrupted_installation_continues(
    whisper: CatalogueModel, store: ModelStore, server: FileServer
) -> None:
    server.faults = [Fault(), Fault(close_after=60_000), *[Fault(close_after=0)] * 4]
    with pytest.raises(DownloadError, match="60000 bytes are kept"):
        install(whisper, store, DOWNLOADER)
    assert store.find("whisper-tiny") is None
    installed = install(whisper, store, DOWNLOADER)
    assert (installed.path / "model.bin").read_bytes() == FILES["model.bin"]
    # config.json was complete: it is not requested again.
    assert server.ranges[-2:] == ["bytes=60000-", None]
    assert not store.get_download_folder("whisper-tiny").exists()


def test_space_for_all_files_is_checked_before_the_first(
    whisper: CatalogueModel, store: ModelStore, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=50_000))
    with pytest.raises(DownloadError, match="not enough space"):
        install(whisper, store, DOWNLOADER)
    assert not server.requests


def test_a_file_that_is_no_checkpoint_is_deleted(server: FileServer, store: ModelStore) -> None:
    server.files["/dl.fbaipublicfiles.com/avhubert/model/lrs3/vsr/base_lrs3_30h.pt"] = b"<html>moved</html>"
    with pytest.raises(DownloadError, match=r"not a usable model file.*download was deleted"):
        install(load_catalogue()["avhubert-vsr-base-lrs3-30h"], store, DOWNLOADER, server.url)
    assert not store.get_download_folder("avhubert-vsr-base-lrs3-30h").exists()
    assert not store.list_models()


def test_a_model_that_is_being_downloaded_cannot_be_removed(store: ModelStore) -> None:
    store.get_download_folder("whisper-tiny").mkdir(parents=True)
    with store.lock("whisper-tiny", None), pytest.raises(InvalidRequestError, match="is downloading"):
        store.remove("whisper-tiny")
    store.remove("whisper-tiny")
    assert not store.get_download_folder("whisper-tiny").exists()


def test_the_default_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get_default_model_dir() == tmp_path / "gorggle" / "models"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert get_default_model_dir() == Path.home() / ".cache/gorggle/models"
    monkeypatch.setattr("sys.platform", "darwin")
    assert get_default_model_dir() == Path.home() / "Library/Caches/gorggle/models"


# ------------------------------------------------------------------------------------------------------- names to files


def resolve(store: ModelStore, **settings: Any) -> dict[str, str]:
    return resolve_model_sources(ServerSettings(model_dir=store.folder, **settings))


def test_the_server_finds_an_installed_model_by_name(whisper: CatalogueModel, store: ModelStore) -> None:
    as_engine = CatalogueModel(
        "small", "avhubert", whisper.license, "", ("en",), (RemoteFile("small.safetensors", ""),)
    )
    folder = store.get_download_folder("small")
    folder.mkdir(parents=True)
    (folder / "small.safetensors").write_bytes(EMBEDDED_MODEL.read_bytes())
    store.add(as_engine, folder, [], "2026-01-01")
    path = str(store.folder / "small" / "small.safetensors")
    assert next(iter(resolve(store, default_model="small").items())) == ("small", path)
    assert resolve(store, models={"mine": "small"})["mine"] == path


def test_an_unknown_model_is_answered_with_the_known_ones(store: ModelStore) -> None:
    with pytest.raises(
        NotFoundError,
        match=r"unknown model 'nope'; available: gorggle-mini-1, gorggle-mini-2, moonshine-tiny-en; with .*avhubert-avsr-large-433h",
    ):
        resolve(store, default_model="nope")


def test_a_known_model_is_answered_with_the_command_that_installs_it(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match="run `gorggle model get avhubert-avsr-base-30h`"):
        resolve(store, default_model="avhubert-avsr-base-30h")


def test_a_model_without_its_engine_is_refused(
    whisper: CatalogueModel, store: ModelStore, without_whisper: None
) -> None:
    for steps in ("', then `gorggle model get whisper-tiny`", "'"):
        with pytest.raises(InvalidRequestError, match=rf"pip install 'gorggle\[whisper\]{steps}$"):
            resolve(store, default_model="whisper-tiny")
        install(whisper, store, DOWNLOADER)


def test_a_model_of_an_unknown_engine_is_refused(whisper: CatalogueModel, store: ModelStore) -> None:
    installed = install(dataclasses.replace(whisper, engine="kaldi"), store, DOWNLOADER)
    with pytest.raises(
        InvalidRequestError, match="needs the engine kaldi, which this version of Gorggle does not"
    ):
        resolve(store, default_model=installed.name)


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", "\udcff"])
def test_a_model_with_a_damaged_record_is_not_installed(store: ModelStore, record: str) -> None:
    folder = store.folder / "avhubert-avsr-base-30h"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(record, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(NotFoundError, match="run `gorggle model get avhubert-avsr-base-30h`"):
        resolve(store, default_model="avhubert-avsr-base-30h")


def test_moonshine_can_have_another_name(store: ModelStore) -> None:
    assert resolve(store, models={"speech": "moonshine-tiny-en"})["speech"] == "moonshine-tiny-en"


def test_an_embedded_model_is_found_by_name(store: ModelStore) -> None:
    assert store.locate(EMBEDDED_MODEL.stem) == EMBEDDED_MODEL


def test_paths_and_s3_addresses_are_kept(store: ModelStore) -> None:
    sources = {"a": "./a", "b": "b.safetensors", "c": "s3://bucket/c"}
    assert resolve(store, models=sources).items() >= sources.items()
