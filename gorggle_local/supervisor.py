"""What the product is made of on one machine, and how its parts are told of each other."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import socket
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gorggle_local.processes import ManagedProcess, ServiceError

SERVER_NAME = "localhost"
OWNER = "you"
POLL_INTERVAL_S = 0.5
# A server that ends by itself is started again: so often within so long, and then no more.
MAX_RESTARTS, RESTART_WINDOW_S = 5, 600.0
RESTORE_TIMEOUT_S = 300.0
MAX_PORT = 65_535


@dataclass(frozen=True)
class LocalSettings:
    """How the product is run here.

    Attributes:
        listen: where the page is.
        data_dir: for videos, transcripts, logs, certificates and unpacked functions.
        device: where the model runs: "cpu" or "cuda".
        max_disk_bytes: the most that videos and transcripts take; then the oldest videos go.
    """

    listen: str
    data_dir: Path
    device: str
    max_disk_bytes: int


class LocalStack:
    """The running product; use it in a ``with`` statement.

    Attributes:
        url: the page's address.
    """

    def __init__(self, settings: LocalSettings, report: Callable[[str], None]) -> None:
        self.url = ""
        self._settings, self._report = settings, report
        self._services: list[ManagedProcess] = []
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)
        self._exit_stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit_stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._report("Ending …")
        self._exit_stack.close()

    def watch(self) -> None:
        """Wait until a service ends by itself; the inference server is then started again.

        Raises:
            ServiceError: another one ended, or this one does not stay.
        """
        while True:
            for service in self._services:
                if service.has_exited:
                    self._restart(service)
            time.sleep(POLL_INTERVAL_S)

    def _restart(self, service: ManagedProcess) -> None:
        """Start the inference server again where it was: all who speak to it wait for it. The others cannot be."""
        now = time.monotonic()
        has_room = len(self._restarts) < MAX_RESTARTS or now - self._restarts[0] > RESTART_WINDOW_S
        if service is not self._server or not has_room:
            raise service.exit_error()
        self._restarts.append(now)
        self._report(f"{service.exit_error()}\nStarting the inference server again …")
        service.restart(
            _server_command(self._settings.data_dir / "keys", self._settings.device, self._server_address)
        )
        service.wait_until_ready()

    def _start(self) -> None:
        _check_port_is_free(self._settings.listen)
        folder = self._settings.data_dir
        _check_data_dir_is_free(folder / "data")
        logs, keys = folder / "logs", folder / "keys"
        for each in (logs, keys):
            each.mkdir(parents=True, exist_ok=True)
        keys.chmod(0o700)
        certificates = _create_certificates(keys)
        self._report("Starting the inference server and the pipeline …")
        command = _server_command(keys, self._settings.device, "127.0.0.1:0")
        server = self._server = self._start_service("inference-server", command, logs)
        aws = self._start_service(
            "pipeline", _module_command("gorggle_local.aws", "--cache", str(folder / "cache")), logs
        )
        server.wait_until_ready()
        aws.wait_until_ready()
        self._server_address = server.ready_info["listening"]
        token = secrets.token_urlsafe(32)
        stack = self._deploy_pipeline(
            aws.ready_info["endpoint_url"], self._server_address, certificates, token
        )
        self._restore(stack, aws.ready_info["api_url"])
        self._report("Starting the page …")
        token_file = keys / "api_token"
        _write_private(token_file, token)
        gateway = self._start_service("gateway", self._gateway_command(server, aws, keys, token_file), logs)
        gateway.wait_until_ready()
        self.url = f"http://{gateway.ready_info['listening']}/"

    def _start_service(self, name: str, command: list[str], logs: Path) -> ManagedProcess:
        service = ManagedProcess(name, command, logs)
        self._exit_stack.callback(service.stop)
        service.start()
        self._services.append(service)
        return service

    def _deploy_pipeline(
        self, endpoint_url: str, server: str, certificates: dict[str, str], token: str
    ) -> Any:
        # moto, boto3 and what they bring: seconds, and only here.
        from gorggle_local.aws.pipeline import Server, deploy

        return deploy(
            endpoint_url,
            Server(server, SERVER_NAME, certificates["ca"], certificates["certificate"], certificates["key"]),
            {OWNER: hashlib.sha256(token.encode()).hexdigest()},
            # Amazon's services are not here: the server hears and sees for itself.
            {
                "audio_engine": "server",
                "face_engine": "server",
                "poll_interval_s": 2,
                "max_concurrent_jobs": 2,
                "max_concurrent_windows": 2,
                "prices": "none",
            },
        )

    def _restore(self, stack: Any, api_url: str) -> None:
        """Give the pipeline what there was when it last ended, and let go on what was cut off.

        Raises:
            ServiceError: it cannot be read, or is in use.
        """
        wanted = {
            "folder": str(self._settings.data_dir / "data"),
            "videos": stack["bucket:uploads"],
            "results": stack["bucket:results"],
            "jobs": stack["table:jobs"],
            "limit_bytes": self._settings.max_disk_bytes,
        }
        # The address is one that the pipeline has just told, on this machine.
        request = urllib.request.Request(f"{api_url}/_local/keep", json.dumps(wanted).encode())  # noqa: S310
        # Within this machine: no proxy of the environment is asked.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=RESTORE_TIMEOUT_S) as answer:
            told = json.load(answer)
        if "error" in told:
            raise ServiceError(told["error"])
        for state, text in (("resumed", "go on"), ("failed", "cannot go on: the page says why")):
            if told[state]:
                self._report(f"{len(told[state])} of the videos that were cut off {text}.")
        # Starts the jobs that wait, as the schedule does on AWS.
        stack.client("lambda").invoke(
            FunctionName=stack["function:reconcile_jobs"], InvocationType="Event", Payload=b"{}"
        )

    def _gateway_command(
        self, server: ManagedProcess, aws: ManagedProcess, keys: Path, token_file: Path
    ) -> list[str]:
        return _module_command(
            "gorggle_gateway",
            *("--listen", self._settings.listen, "--exit-on-stdin-eof"),
            *("--server", server.ready_info["listening"], "--server-name", SERVER_NAME),
            *(
                "--ca",
                str(keys / "ca.pem"),
                "--cert",
                str(keys / "client.pem"),
                "--key",
                str(keys / "client.key"),
            ),
            *("--upstream", aws.ready_info["api_url"], "--upstream-token-file", str(token_file)),
            *("--connect", aws.ready_info["endpoint_url"]),
        )


def _check_port_is_free(listen: str) -> None:
    """Say at once what would otherwise come out when all the rest has started.

    Raises:
        ServiceError: the page cannot be at this address.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > MAX_PORT:
        raise ServiceError(f"{listen!r} is no address: expected HOST:PORT, such as 127.0.0.1:8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        # As the gateway will do it: an address that a process has just left is free.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise ServiceError(
                f"the page cannot be at {listen} ({error.strerror or error}): "
                "end what is there, or name another address with --listen"
            ) from error


def _check_data_dir_is_free(folder: Path) -> None:
    """See that no other Gorggle keeps its data here, before its keys are replaced.

    Raises:
        ServiceError: one does.
    """
    from gorggle_local.aws.state_store import StateFolder, StateStoreError

    try:
        StateFolder(folder).close()
    except StateStoreError as error:
        raise ServiceError(f"{error} (--folder)") from error


def _server_command(keys: Path, device: str, listen: str) -> list[str]:
    return _module_command(
        "gorggle_server",
        *("--listen", listen, "--announce", "--exit-on-stdin-eof", "--device", device),
        *("--tls-certificate", str(keys / "server.pem"), "--tls-key", str(keys / "server.key")),
        *("--tls-client-ca", str(keys / "ca.pem")),
    )


def _create_certificates(keys: Path) -> dict[str, str]:
    """Make an authority and what server and clients show each other; the client's, as texts. All last one run."""
    from gorggle_lambdas.operations.certificate_authority import create_authority, issue_identity

    now = dt.datetime.now(dt.UTC)
    authorities = [create_authority("gorggle local", now)]
    server = issue_identity(authorities, SERVER_NAME, is_server=True, now=now)
    client = issue_identity(authorities, "gorggle-local", is_server=False, now=now)
    texts = {
        "ca.pem": server.ca,
        "server.pem": server.certificate,
        "server.key": server.key,
        "client.pem": client.certificate,
        "client.key": client.key,
    }
    for name, text in texts.items():
        _write_private(keys / name, text)
    return {"ca": client.ca, "certificate": client.certificate, "key": client.key}


def _write_private(path: Path, text: str) -> None:
    """Write what nobody else may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _module_command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", name, *arguments]


def ready_message(stack: LocalStack) -> str:
    """What a program that started this reads."""
    return json.dumps({"listening": stack.url})
