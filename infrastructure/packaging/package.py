"""What packaging hands over: files and the digests of what is in them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A zip file.

    Attributes:
        digest: SHA-256 of names and contents, hexadecimal: the same wherever it is made, whatever compressed it.
        unpacked_bytes: what its contents take when unpacked.
    """

    path: Path
    digest: str
    unpacked_bytes: int

    @classmethod
    def of(cls, path: Path) -> Package:
        """Look into a zip file that is there."""
        digest, size = hashlib.sha256(), 0
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda each: each.filename):
                content = archive.read(entry)
                size += len(content)
                digest.update(f"{entry.filename}\0{len(content)}\0".encode())
                digest.update(content)
        return cls(path, digest.hexdigest(), size)

    @property
    def digest_base64(self) -> str:
        """The digest as Lambda writes such things."""
        return base64.b64encode(bytes.fromhex(self.digest)).decode()


@dataclass(frozen=True)
class Packages:
    """Everything that is published.

    Attributes:
        code: by kind: ``thin`` (handlers), ``full`` (with the SDK), ``operations``.
        layers: by name, as the manifests call them.
        server: what a GPU instance installs.
    """

    code: Mapping[str, Package]
    layers: Mapping[str, Package]
    server: Package
