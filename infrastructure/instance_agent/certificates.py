"""Keeps the server's certificates as the secret has them. The server reads them again when they change."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import time
from pathlib import Path
from typing import Any

NAMES = ("ca", "certificate", "key")
OWNER = "gorggle"
WAIT_S, PAUSE_S = 600.0, 5.0


def refresh(client: Any, secret: str, folder: Path) -> bool:
    """Write what has changed; whether anything had.

    Raises:
        LookupError: the secret has no value yet.
    """
    try:
        value = json.loads(client.get_secret_value(SecretId=secret)["SecretString"])
    except client.exceptions.ResourceNotFoundException as error:
        raise LookupError(f"{secret} has no value yet: its first rotation is not done") from error
    changed = [name for name in NAMES if _text(folder / f"{name}.pem") != value[name]]
    for name in changed:
        _write(folder / f"{name}.pem", value[name])
    return bool(changed)


def await_first(client: Any, secret: str, folder: Path, *, wait_s: float = WAIT_S) -> None:
    """Write them for the first time, as soon as there are any.

    Raises:
        LookupError: there are none after ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            refresh(client, secret, folder)
        except LookupError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if os.geteuid() == 0 and _is_known(OWNER):
        shutil.chown(unfinished, OWNER, OWNER)
    unfinished.replace(path)


def _is_known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
