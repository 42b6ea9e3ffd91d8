"""The packages of a stack: zip files and the digests of their contents."""

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
        digest: hexadecimal SHA-256 of the names and contents; independent of the compression.
        unpacked_bytes: total size of the unpacked files.
    """

    path: Path
    digest: str
    unpacked_bytes: int

    @classmethod
    def read(cls, path: Path) -> Package:
        """Compute the digest and the size of an existing zip file."""
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
        """The digest in the encoding that Lambda uses."""
        return base64.b64encode(bytes.fromhex(self.digest)).decode()


@dataclass(frozen=True)
class Packages:
    """All packages of a stack.

    Attributes:
        code: by kind: ``thin`` (handlers, SDK without gRPC), ``full`` (with the whole SDK), ``operations``.
        layers: by name, as in the manifests.
        server: what a GPU instance installs.
    """

    code: Mapping[str, Package]
    layers: Mapping[str, Package]
    server: Package
