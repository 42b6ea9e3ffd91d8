"""Certificates, keys and tokens' hashes: from files or AWS Secrets Manager, and read anew when they were renewed.

A place is a path, ``aws-secretsmanager://NAME`` or a secret's ARN. A secret that holds several things as a JSON object is
followed by ``#KEY``: one secret for certificate and key changes both at once, as two cannot.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Protocol

from gorggle_server.errors import InvalidRequestError

SCHEME = "aws-secretsmanager://"
_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:(?P<region>[\w-]+):\d{12}:secret:[^#]+")

_log = logging.getLogger(__name__)


class SecretSource(Protocol):
    """Something that the server keeps to itself, wherever it lies."""

    def version(self) -> Hashable:
        """Differs when the material was renewed. Never waits for the network.

        Raises:
            InvalidRequestError: it is not there.
        """
        ...

    def read(self) -> bytes:
        """What it is now. Never waits for the network.

        Raises:
            InvalidRequestError: it cannot be read.
        """
        ...


class FileSecretSource:
    """A file's content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def version(self) -> Hashable:
        """Differs when the file was written or exchanged."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise InvalidRequestError(f"{self._path} cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise InvalidRequestError(f"{self._path} cannot be read: {error.strerror}") from error


class SecretsManagerSource:
    """A secret's value, or what its JSON object holds under a key."""

    def __init__(self, secrets: SecretsManager, secret_id: str, key: str | None) -> None:
        self._secrets, self._secret_id, self._key = secrets, secret_id, key

    def __str__(self) -> str:
        return self._secret_id + (f"#{self._key}" if self._key else "")

    def version(self) -> Hashable:
        """The id of the version that was fetched last."""
        return self._secrets.get_cached(self._secret_id)[0]

    def read(self) -> bytes:
        """The value that was fetched last."""
        value = self._secrets.get_cached(self._secret_id)[1]
        if self._key is None:
            return value
        try:
            held = json.loads(value)[self._key]
        except (ValueError, KeyError, TypeError):
            held = None
        if not isinstance(held, str):
            # Nothing of the value is told: it is a secret.
            raise InvalidRequestError(
                f"the secret {self._secret_id} is no JSON object with a text under {self._key!r}"
            )
        return held.encode()


class SecretsManager:
    """Secrets of AWS Secrets Manager: fetched when they are first named, and again every ``refresh_interval_s`` on a thread.

    A secret that cannot be fetched again stays as it was. Safe to use from several threads.
    """

    def __init__(self, refresh_interval_s: float) -> None:
        self._refresh_interval_s = refresh_interval_s
        self._cache: dict[str, tuple[str, bytes]] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open_source(self, location: str) -> SecretsManagerSource:
        """The secret at a place; it is fetched now.

        Raises:
            InvalidRequestError: there is none, or the server's role may not read it.
        """
        address, _, key = location.partition("#")
        secret_id = address.removeprefix(SCHEME)
        if not secret_id or (not address.startswith(SCHEME) and not _ARN.fullmatch(address)):
            raise InvalidRequestError(
                f"{location!r} is no secret: give {SCHEME}NAME or arn:aws:secretsmanager:…, and #KEY for one of its keys"
            )
        if secret_id not in self._cache:
            self._cache[secret_id] = _fetch(secret_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh_periodically, name="secrets", daemon=True)
            self._thread.start()
        return SecretsManagerSource(self, secret_id, key or None)

    def get_cached(self, secret_id: str) -> tuple[str, bytes]:
        """The version and the value that were fetched last."""
        return self._cache[secret_id]

    def refresh(self) -> None:
        """Fetch every secret again; what cannot be fetched stays as it was."""
        for secret_id in list(self._cache):
            try:
                self._cache[secret_id] = _fetch(secret_id)
            except InvalidRequestError as error:
                _log.error("the secret stays as it was: %s", error)

    def close(self) -> None:
        """Fetch no more."""
        self._is_closed.set()

    def _refresh_periodically(self) -> None:
        while not self._is_closed.wait(self._refresh_interval_s):
            self.refresh()


def open_secret_source(location: str, secrets: SecretsManager) -> SecretSource:
    """What lies at a place: a path, or an address of a secret.

    Raises:
        InvalidRequestError: the secret cannot be fetched.
    """
    if location.startswith((SCHEME, "arn:")):
        return secrets.open_source(location)
    return FileSecretSource(Path(location))


def _fetch(secret_id: str) -> tuple[str, bytes]:
    # boto3 takes a third of a second to import: only those pay who use it.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    arn = _ARN.fullmatch(secret_id)
    try:
        client = boto3.client("secretsmanager", region_name=arn["region"] if arn else None)
        answer: dict[str, Any] = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise InvalidRequestError(
            f"the secret {secret_id} cannot be fetched ({code}): check its name and the server's role"
        ) from error
    except BotoCoreError as error:
        raise InvalidRequestError(f"the secret {secret_id} cannot be fetched: {error}") from error
    value = answer["SecretBinary"] if "SecretBinary" in answer else answer["SecretString"].encode()
    return answer["VersionId"], value
