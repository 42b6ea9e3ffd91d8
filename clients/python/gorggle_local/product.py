"""What the product is made of on one machine, and how its parts are told of each other."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gorggle_local.services import Service

SERVER_NAME = "localhost"
OWNER = "you"
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class LocalSettings:
    """How the product is run here.

    Attributes:
        listen: where the page is.
        folder: for logs, certificates and unpacked functions.
        device: where the model runs: "cpu" or "cuda".
    """

    listen: str
    folder: Path
    device: str


class Product:
    """The running product; use it in a ``with`` statement.

    Attributes:
        url: the page's address.
    """

    def __init__(self, settings: LocalSettings, tell: Callable[[str], None]) -> None:
        self.url = ""
        self._settings, self._tell = settings, tell
        self._services: list[Service] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("Ending …")
        self._stack.close()

    def watch(self) -> None:
        """Wait until a service ends by itself.

        Raises:
            ServiceError: it did.
        """
        while True:
            for service in self._services:
                if service.has_ended:
                    raise service.ended()
            time.sleep(LOOK_EVERY_S)

    def _start(self) -> None:
        folder = self._settings.folder
        logs, keys = folder / "logs", folder / "keys"
        for each in (logs, keys):
            each.mkdir(parents=True, exist_ok=True)
        keys.chmod(0o700)
        certificates = _certificates(keys)
        self._tell("Starting the inference server …")
        server = self._service("inference-server", _server_command(keys, self._settings.device), logs)
        self._tell("Starting the pipeline …")
        aws = self._service("pipeline", _module("local_aws", "--cache", str(folder / "cache")), logs)
        token = secrets.token_urlsafe(32)
        self._make_pipeline(aws.told["endpoint_url"], server.told["listening"], certificates, token)
        self._tell("Starting the page …")
        token_file = keys / "api_token"
        _write(token_file, token)
        gateway = self._service("gateway", self._gateway_command(server, aws, keys, token_file), logs)
        self.url = f"http://{gateway.told['listening']}/"

    def _service(self, name: str, command: list[str], logs: Path) -> Service:
        service = Service(name, command, logs)
        self._stack.callback(service.stop)
        service.start()
        self._services.append(service)
        return service

    def _make_pipeline(
        self, endpoint_url: str, server: str, certificates: dict[str, str], token: str
    ) -> None:
        # moto, boto3 and what they bring: seconds, and only here.
        from local_aws.stack import Server, made

        made(
            endpoint_url,
            Server(server, SERVER_NAME, certificates["ca"], certificates["certificate"], certificates["key"]),
            {OWNER: hashlib.sha256(token.encode()).hexdigest()},
            # Amazon's services are not here: the server hears and sees for itself.
            {
                "sound_engine": "server",
                "faces_engine": "server",
                "poll_s": 2,
                "max_jobs": 2,
                "lips_concurrency": 2,
            },
        )

    def _gateway_command(self, server: Service, aws: Service, keys: Path, token_file: Path) -> list[str]:
        return _module(
            "gorggle_gateway",
            *("--listen", self._settings.listen, "--until-stdin-closes"),
            *("--server", server.told["listening"], "--server-name", SERVER_NAME),
            *(
                "--ca",
                str(keys / "ca.pem"),
                "--cert",
                str(keys / "client.pem"),
                "--key",
                str(keys / "client.key"),
            ),
            *("--upstream", aws.told["api_url"], "--upstream-token-file", str(token_file)),
            *("--connect", aws.told["endpoint_url"]),
        )


def _server_command(keys: Path, device: str) -> list[str]:
    return _module(
        "inference_server",
        *("--listen", "127.0.0.1:0", "--announce", "--until-stdin-closes", "--device", device),
        *("--tls-certificate", str(keys / "server.pem"), "--tls-key", str(keys / "server.key")),
        *("--tls-client-ca", str(keys / "ca.pem")),
    )


def _certificates(keys: Path) -> dict[str, str]:
    """Make an authority and what server and clients show each other; the client's, as texts. All last one run."""
    from infrastructure.operations.authority import identity, new_authority

    now = dt.datetime.now(dt.UTC)
    authorities = [new_authority("gorggle local", now)]
    server = identity(authorities, SERVER_NAME, is_server=True, now=now)
    client = identity(authorities, "gorggle-local", is_server=False, now=now)
    texts = {
        "ca.pem": server.ca,
        "server.pem": server.certificate,
        "server.key": server.key,
        "client.pem": client.certificate,
        "client.key": client.key,
    }
    for name, text in texts.items():
        _write(keys / name, text)
    return {"ca": client.ca, "certificate": client.certificate, "key": client.key}


def _write(path: Path, text: str) -> None:
    """Write what nobody else may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", name, *arguments]


def told(product: Product) -> str:
    """What a program that started this reads."""
    return json.dumps({"listening": product.url})
