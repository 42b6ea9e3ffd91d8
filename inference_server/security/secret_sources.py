"""Certificates, keys and token hashes from files or AWS Secrets Manager, reloaded when they change.

A location is a path, ``aws-secretsmanager://NAME`` or a secret's ARN. ``#KEY`` selects a value of a secret that is a JSON
object: with certificate and key in one secret, both change at once.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from gorggle_server.errors import InvalidRequestError

SCHEME = "aws-secretsmanager://"
_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:(?P<region>[\w-]+):\d{12}:secret:[^#]+")

_log = logging.getLogger(__name__)


class FileSecretSource:
    """Content of a file. Both methods raise InvalidRequestError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def version(self) -> Hashable:
        """Return a value that differs after the file was written or replaced."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise InvalidRequestError(f"{self._path} cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def read(self) -> bytes:
        """Return the bytes of the file."""
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise InvalidRequestError(f"{self._path} cannot be read: {error.strerror}") from error


class SecretsManagerSource:
    """Value of a secret, or of one key of its JSON object. Neither method waits for the network."""

    def __init__(self, secrets: SecretsManager, secret_id: str, key: str | None) -> None:
        self._secrets, self._secret_id, self._key = secrets, secret_id, key

    def __str__(self) -> str:
        return self._secret_id + (f"#{self._key}" if self._key else "")

    def version(self) -> Hashable:
        """Return the id of the version fetched last."""
        return self._secrets.get_cached(self._secret_id)[0]

    def read(self) -> bytes:
        """Return the value fetched last."""
        value = self._secrets.get_cached(self._secret_id)[1]
        if self._key is None:
            return value
        try:
            selected = json.loads(value)[self._key]
        except (ValueError, KeyError, TypeError):
            selected = None
        if not isinstance(selected, str):
            # Do not include the value: it is secret.
            raise InvalidRequestError(
                f"the secret {self._secret_id} is not a JSON object with a string under {self._key!r}"
            )
        return selected.encode()


class SecretsManager:
    """Cache of AWS Secrets Manager: fetches each secret on first use, and again every ``refresh_interval_s`` on a thread.

    A secret that cannot be fetched again keeps its value. Thread-safe.
    """

    def __init__(self, refresh_interval_s: float) -> None:
        self._refresh_interval_s = refresh_interval_s
        self._cache: dict[str, tuple[str, bytes]] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open_source(self, location: str) -> SecretsManagerSource:
        """Fetch the secret at a location and return its source.

        Raises:
            InvalidRequestError: it does not exist, or the server's role may not read it.
        """
        address, _, key = location.partition("#")
        secret_id = address.removeprefix(SCHEME)
        if not secret_id or (not address.startswith(SCHEME) and not _ARN.fullmatch(address)):
            raise InvalidRequestError(
                f"{location!r} is not a secret: use {SCHEME}NAME or arn:aws:secretsmanager:…, and #KEY for one of its keys"
            )
        if secret_id not in self._cache:
            self._cache[secret_id] = _fetch(secret_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh_periodically, name="secrets", daemon=True)
            self._thread.start()
        return SecretsManagerSource(self, secret_id, key or None)

    def get_cached(self, secret_id: str) -> tuple[str, bytes]:
        """Return the version and the value fetched last."""
        return self._cache[secret_id]

    def refresh(self) -> None:
        """Fetch every secret again; on failure keep the previous value."""
        for secret_id in list(self._cache):
            try:
                self._cache[secret_id] = _fetch(secret_id)
            except InvalidRequestError as error:
                _log.error("secret could not be refreshed, keeping the previous value: %s", error)

    def close(self) -> None:
        """Stop refreshing."""
        self._is_closed.set()

    def _refresh_periodically(self) -> None:
        while not self._is_closed.wait(self._refresh_interval_s):
            self.refresh()


SecretSource = FileSecretSource | SecretsManagerSource


def open_secret_source(location: str, secrets: SecretsManager) -> SecretSource:
    """Open the source at a location: a path or a secret.

    Raises:
        InvalidRequestError: the secret cannot be fetched.
    """
    if location.startswith((SCHEME, "arn:")):
        return secrets.open_source(location)
    return FileSecretSource(Path(location))


def _fetch(secret_id: str) -> tuple[str, bytes]:
    # boto3 takes a third of a second to import: import it only when it is used.
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
