"""Starts, connects and supervises the services of ``gorggle local``: inference server, pipeline and gateway."""

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
# The server is restarted up to MAX_RESTARTS times within RESTART_WINDOW_S.
MAX_RESTARTS, RESTART_WINDOW_S = 5, 600.0
RESTORE_TIMEOUT_S = 300.0
MAX_PORT = 65_535


@dataclass(frozen=True)
class LocalSettings:
    """Settings of the local stack.

    Attributes:
        listen: address of the website.
        data_dir: for videos, transcripts, logs, certificates and unpacked functions.
        device: "cpu" or "cuda".
        max_disk_bytes: maximum size of videos and transcripts; above it the oldest videos are deleted.
        model: name of the model to use; None for the server's default.
    """

    listen: str
    data_dir: Path
    device: str
    max_disk_bytes: int
    model: str | None = None


class LocalStack:
    """The running services; a context manager.

    Args:
        settings: of the stack.
        report: called with progress messages for the user.

    Attributes:
        url: of the website.
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
        self._report("Stopping …")
        self._exit_stack.close()

    def watch(self) -> None:
        """Monitor the services and restart the inference server when it exits.

        Raises:
            ServiceError: another service exited, or the server exits repeatedly.
        """
        while True:
            for service in self._services:
                if service.has_exited:
                    self._restart(service)
            time.sleep(POLL_INTERVAL_S)

    def _restart(self, service: ManagedProcess) -> None:
        """Restart the inference server at the same address; its clients wait for it. Other services cannot be restarted."""
        now = time.monotonic()
        can_restart = len(self._restarts) < MAX_RESTARTS or now - self._restarts[0] > RESTART_WINDOW_S
        if service is not self._server or not can_restart:
            raise service.exit_error()
        self._restarts.append(now)
        self._report(f"{service.exit_error()}\nRestarting the inference server …")
        service.restart(_server_command(self._settings, self._server_address))
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
        command = _server_command(self._settings, "127.0.0.1:0")
        server = self._server = self._start_service("inference-server", command, logs)
        aws = self._start_service(
            "pipeline", _module_command("gorggle_local.aws", "--cache-dir", str(folder / "cache")), logs
        )
        server.wait_until_ready()
        aws.wait_until_ready()
        self._server_address = server.ready_info["listening"]
        token = secrets.token_urlsafe(32)
        stack = self._deploy_pipeline(
            aws.ready_info["endpoint_url"], self._server_address, certificates, token
        )
        self._restore(stack, aws.ready_info["api_url"])
        self._report("Starting the website …")
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
        # Imported late: moto and boto3 take seconds.
        from gorggle_local.aws.pipeline import Server, deploy

        return deploy(
            endpoint_url,
            Server(server, SERVER_NAME, certificates["ca"], certificates["certificate"], certificates["key"]),
            {OWNER: hashlib.sha256(token.encode()).hexdigest()},
            # Without Amazon Transcribe and Rekognition.
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
        """Restore the saved state and resume interrupted jobs.

        Raises:
            ServiceError: the state cannot be read, or is in use.
        """
        config = {
            "folder": str(self._settings.data_dir / "data"),
            "uploads_bucket": stack["bucket:uploads"],
            "results_bucket": stack["bucket:results"],
            "jobs_table": stack["table:jobs"],
            "max_bytes": self._settings.max_disk_bytes,
        }
        # The URL comes from our own process on this machine.
        request = urllib.request.Request(f"{api_url}/_local/persist", json.dumps(config).encode())  # noqa: S310
        # Do not use a proxy from the environment.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=RESTORE_TIMEOUT_S) as response:
            result = json.load(response)
        if "error" in result:
            raise ServiceError(result["error"])
        if resumed := len(result["resumed"]):
            self._report(f"Resuming {resumed} interrupted job{'s' * (resumed > 1)}.")
        if failed := len(result["failed"]):
            self._report(
                f"{failed} interrupted job{'s' * (failed > 1)} cannot be resumed; see the website for the reasons."
            )
        # Starts the queued jobs, as the schedule does on AWS.
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
    """Check the address before starting the other services.

    Raises:
        ServiceError: the address is invalid or in use.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > MAX_PORT:
        raise ServiceError(f"{listen!r} is not a valid address: expected HOST:PORT, such as 127.0.0.1:8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        # Like the gateway: a port in TIME_WAIT is free.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {listen} ({error.strerror or error}): "
                "stop the other program, or choose another address with --listen"
            ) from error


def _check_data_dir_is_free(folder: Path) -> None:
    """Check that no other instance uses the data directory, before its keys are replaced.

    Raises:
        ServiceError: another instance uses it.
    """
    from gorggle_local.aws.state_store import StateFolder, StateStoreError

    try:
        StateFolder(folder).close()
    except StateStoreError as error:
        raise ServiceError(f"{error} (--data-dir)") from error


def _server_command(settings: LocalSettings, listen: str) -> list[str]:
    keys = settings.data_dir / "keys"
    return _module_command(
        "gorggle_server",
        *("--listen", listen, "--print-ready", "--exit-on-stdin-eof", "--device", settings.device),
        *(("--default-model", settings.model) if settings.model else ()),
        *("--tls-certificate", str(keys / "server.pem"), "--tls-key", str(keys / "server.key")),
        *("--tls-client-ca", str(keys / "ca.pem")),
    )


def _create_certificates(keys: Path) -> dict[str, str]:
    """Create a CA with server and client certificates for this run, and return the client's as PEM text."""
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
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _module_command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", name, *arguments]
