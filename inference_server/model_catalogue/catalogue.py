"""The catalogue: models that can be downloaded, with their licences and addresses, from ``catalogue.toml``."""

from __future__ import annotations

import functools
import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ASSETS_FOLDER = Path(__file__).parents[1] / "assets"
CATALOGUE_FILE = Path(__file__).with_name("catalogue.toml")
# Engines of this server.
ENGINES = frozenset({"avhubert", "faster-whisper", "moonshine"})
# Optional ones: the packages that they import, and the extra that installs them.
_OPTIONAL_ENGINES = {"faster-whisper": (("faster_whisper", "ctranslate2", "tokenizers"), "gorggle[whisper]")}


def find_missing_extra(engine: str) -> str | None:
    """Return the extra that must be installed to run an engine; None if all its packages are."""
    packages, extra = _OPTIONAL_ENGINES.get(engine, ((), ""))
    return extra if any(importlib.util.find_spec(package) is None for package in packages) else None


@dataclass(frozen=True)
class License:
    """Licence of a model; ``commercial_use`` is whether it allows commercial use."""

    name: str
    url: str
    commercial_use: bool
    summary: str

    @property
    def terms(self) -> str:
        """Whether commercial use is allowed, in two words."""
        return f"commercial use {'permitted' if self.commercial_use else 'forbidden'}"


@dataclass(frozen=True)
class RemoteFile:
    """A file to download; size and SHA-256 (hexadecimal) are None if its publisher does not state them."""

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class CatalogueModel:
    """An entry of the catalogue; ``catalogue.toml`` documents its fields."""

    name: str
    engine: str
    license: License
    description: str
    languages: tuple[str, ...]
    files: tuple[RemoteFile, ...]
    trained_on: str = ""
    is_embedded: bool = False
    word_time_shift_s: float = 0.0

    @property
    def size_bytes(self) -> int | None:
        """Size of the download; None if it is not published."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes is not None]
        return sum(sizes) if sizes and len(sizes) == len(self.files) else None

    @property
    def is_servable(self) -> bool:
        """Whether the model's engine is installed here."""
        return self.engine in ENGINES and find_missing_extra(self.engine) is None


@functools.cache
def load_catalogue(path: Path = CATALOGUE_FILE) -> Mapping[str, CatalogueModel]:
    """Return the models of a catalogue file by name, in its order.

    Raises:
        KeyError, TypeError: an entry lacks a field, or has an unknown one.
    """
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    licenses = {key: License(**fields) for key, fields in document["licenses"].items()}
    models = [_parse_model(fields, licenses) for fields in document["models"]]
    return {model.name: model for model in models}


def apply_mirror(url: str, mirror: str | None) -> str:
    """Return the address of a file on a mirror, which has a folder for each host: ``MIRROR/HOST/PATH``."""
    if not mirror:
        return url
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"


def _parse_model(fields: Mapping[str, Any], licenses: Mapping[str, License]) -> CatalogueModel:
    base_url = fields.get("base_url", "")
    return CatalogueModel(
        name=fields["name"],
        engine=fields["engine"],
        license=licenses[fields["license"]],
        description=fields["description"],
        languages=tuple(fields["languages"]),
        files=tuple(RemoteFile(url=base_url + file["name"], **file) for file in fields.get("files", ())),
        trained_on=fields.get("trained_on", ""),
        is_embedded=fields.get("embedded", False),
        word_time_shift_s=fields.get("word_time_shift_s", 0.0),
    )
