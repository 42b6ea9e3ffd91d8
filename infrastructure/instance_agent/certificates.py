"""Copies the server's certificates from the secret to files; the server reloads changed files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

NAMES = ("ca", "certificate", "key")
OWNER = "gorggle"
TIMEOUT_S, POLL_INTERVAL_S = 600.0, 5.0


def refresh(client: Any, secret: str, folder: Path) -> bool:
    """Write changed certificates and return whether any changed.

    Raises:
        LookupError: the secret has no value yet.
    """
    try:
        value = json.loads(client.get_secret_value(SecretId=secret)["SecretString"])
    except client.exceptions.ResourceNotFoundException as error:
        raise LookupError(f"{secret} has no value yet: its first rotation has not finished") from error
    changed = [name for name in NAMES if _read_text(folder / f"{name}.pem") != value[name]]
    for name in changed:
        _write_private(folder / f"{name}.pem", value[name])
    return bool(changed)


def wait_for_certificates(client: Any, secret: str, folder: Path, *, timeout_s: float = TIMEOUT_S) -> None:
    """Wait until the secret has a value, and write the certificates.

    Raises:
        LookupError: it has no value after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            refresh(client, secret, folder)
        except LookupError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_INTERVAL_S)
        else:
            return


def _read_text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    draft = path.with_suffix(".part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if os.geteuid() == 0:
        # bootstrap.sh creates the user; it does not exist elsewhere.
        with contextlib.suppress(LookupError):
            shutil.chown(draft, OWNER, OWNER)
    draft.replace(path)
