"""Certificates, keys and tokens in AWS Secrets Manager, and the absence of secrets in logs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import grpc
import pytest
import trustme
from moto import mock_aws
from moto.server import ThreadedMotoServer

from benchmarks.server_process import ServerProcess
from gorggle.v1 import lip_reading_pb2_grpc, server_pb2
from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server.tls import ReloadingTlsCredentials
from gorggle_server.security.api_tokens import create_token
from gorggle_server.security.secret_sources import FileSecretSource, SecretsManager, open_secret_source
from tests.integration.conftest import running_server

INFO_REQUEST = server_pb2.GetServerInfoRequest()
REGION = "eu-central-1"
UNKNOWN_TOKEN = "a-token-that-was-never-issued"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.client]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield boto3.client("secretsmanager")


@pytest.fixture
def secrets() -> Iterator[SecretsManager]:
    manager = SecretsManager(refresh_interval_s=3600)
    yield manager
    manager.close()


def issue_certificate(authority: trustme.CA) -> tuple[str, str]:
    """Issue a certificate; return its chain and its key in PEM."""
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    return b"".join(
        blob.bytes() for blob in leaf.cert_chain_pems
    ).decode(), leaf.private_key_pem.bytes().decode()


def issue_certificate_secret(authority: trustme.CA) -> str:
    """Issue a certificate; return its chain and its key as the JSON text of one secret."""
    certificate, key = issue_certificate(authority)
    return json.dumps({"certificate": certificate, "key": key})


def get_server_version(address: str, authority: trustme.CA, token: str | None = None) -> str:
    """Call the server over TLS, trusting only this authority; return the server's version."""
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.secure_channel(address.replace("127.0.0.1", "localhost"), credentials, options) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        return stub.GetServerInfo(INFO_REQUEST, metadata=metadata, timeout=10).version


def test_tls_keys_and_tokens_are_read_from_secrets_and_refreshed(aws, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    token = create_token("camera", tmp_path / "tokens")
    new_token = create_token("second", tmp_path / "second")
    aws.create_secret(Name="gorggle/tls", SecretString=issue_certificate_secret(old))
    tokens = aws.create_secret(Name="gorggle/tokens", SecretString=(tmp_path / "tokens").read_text())
    with running_server(
        tls_certificate="aws-secretsmanager://gorggle/tls#certificate",
        tls_key="aws-secretsmanager://gorggle/tls#key",
        token_file=tokens["ARN"],
        secrets_refresh_interval_s=0.2,
    ) as running:
        assert get_server_version(running.address, old, token)
        aws.put_secret_value(SecretId="gorggle/tls", SecretString=issue_certificate_secret(new))
        aws.put_secret_value(SecretId="gorggle/tokens", SecretString=(tmp_path / "second").read_text())
        deadline = time.monotonic() + 15
        while True:
            try:
                assert get_server_version(running.address, new, new_token)
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as caught:
            get_server_version(running.address, new, token)  # no longer in the secret
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError):
            get_server_version(running.address, old, new_token)


def test_binary_secrets_and_arns_of_another_region_are_supported(aws, secrets: SecretsManager) -> None:
    other = boto3.client("secretsmanager", region_name="us-east-1")
    arn = other.create_secret(Name="blob", SecretBinary=b"\x00\x01")["ARN"]
    assert open_secret_source(arn, secrets).read() == b"\x00\x01"
    with pytest.raises(InvalidRequestError, match="ResourceNotFoundException"):
        open_secret_source("aws-secretsmanager://blob", secrets)  # in the default region


@pytest.mark.parametrize(
    "location",
    [
        "aws-secretsmanager://",
        "aws-secretsmanager://unknown",
        "arn:aws:s3:::bucket",
        "arn:aws:secretsmanager:x",
    ],
)
def test_an_invalid_secret_location_is_reported_at_startup(
    aws, secrets: SecretsManager, location: str
) -> None:
    with pytest.raises(InvalidRequestError, match="secret"):
        open_secret_source(location, secrets)


@pytest.mark.parametrize("value", ["no json: hunter2", '{"other": "hunter2"}', '["hunter2"]', '{"key": 1}'])
def test_a_secret_without_the_key_is_refused_and_its_value_is_not_shown(
    aws, secrets: SecretsManager, value: str
) -> None:
    aws.create_secret(Name="odd", SecretString=value)
    source = open_secret_source("aws-secretsmanager://odd#key", secrets)
    with pytest.raises(InvalidRequestError, match="under 'key'") as caught:
        source.read()
    assert "hunter2" not in str(caught.value)


def test_a_failed_refresh_keeps_the_previous_secret(aws, secrets: SecretsManager, caplog) -> None:
    aws.create_secret(Name="kept", SecretString="value")
    source = open_secret_source("aws-secretsmanager://kept", secrets)
    version = source.version()
    aws.delete_secret(SecretId="kept", ForceDeleteWithoutRecovery=True)
    secrets.refresh()
    assert (source.version(), source.read()) == (version, b"value")
    assert "keeping the previous value" in caplog.text


def test_two_keys_of_one_secret_are_fetched_once(aws, monkeypatch: pytest.MonkeyPatch) -> None:
    from gorggle_server.security import secret_sources

    fetched_ids = []
    fetch = secret_sources._fetch
    monkeypatch.setattr(
        secret_sources, "_fetch", lambda secret_id: fetched_ids.append(secret_id) or fetch(secret_id)
    )
    aws.create_secret(Name="both", SecretString='{"a": "1", "b": "2"}')
    secrets = SecretsManager(3600)
    parts = [open_secret_source(f"aws-secretsmanager://both#{key}", secrets) for key in "ab"]
    assert [part.read() for part in parts] == [b"1", b"2"]
    assert fetched_ids == ["both"]
    secrets.close()


def test_closing_the_secrets_manager_stops_its_thread(aws) -> None:
    aws.create_secret(Name="one", SecretString="1")
    secrets = SecretsManager(3600)
    secrets.open_source("aws-secretsmanager://one")
    assert any(thread.name == "secrets" for thread in threading.enumerate())
    secrets.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "secrets" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_key_that_does_not_match_its_certificate_is_reported(tmp_path: Path) -> None:
    authority = trustme.CA()
    (certificate, _), (_, key) = issue_certificate(authority), issue_certificate(authority)
    (tmp_path / "a.pem").write_text(certificate)
    (tmp_path / "b.key").write_text(key)
    parts = FileSecretSource(tmp_path / "a.pem"), FileSecretSource(tmp_path / "b.key")
    with pytest.raises(InvalidRequestError, match="not a certificate and its private key"):
        ReloadingTlsCredentials(*parts, None).create()


def test_a_partial_certificate_renewal_keeps_the_previous_pair(tmp_path: Path, caplog) -> None:
    authority = trustme.CA()
    (certificate, key), (renewed, renewed_key) = issue_certificate(authority), issue_certificate(authority)
    paths = tmp_path / "a.pem", tmp_path / "b.key"
    paths[0].write_text(certificate)
    paths[1].write_text(key)
    credentials = ReloadingTlsCredentials(*map(FileSecretSource, paths), None)
    credentials.create()
    paths[0].write_text(renewed)
    assert credentials._reload_if_changed() is None
    assert "keeping the previous" in caplog.text
    paths[1].write_text(renewed_key)
    assert credentials._reload_if_changed() is not None
    assert credentials._reload_if_changed() is None


# --------------------------------------------------------------------------------------------------------- the log


@pytest.fixture
def moto_server() -> Iterator[str]:
    """Return the URL of a simulated AWS that subprocesses can use."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_the_debug_log_contains_no_secrets(tmp_path: Path, moto_server: str) -> None:
    authority = trustme.CA()
    certificate, key = issue_certificate(authority)
    token = create_token("camera", tmp_path / "tokens")
    environment = {
        "AWS_ACCESS_KEY_ID": "AKIDSECRETSECRET",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-not-for-logs",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto_server,
    }
    client = boto3.client(
        "secretsmanager",
        endpoint_url=moto_server,
        region_name=REGION,
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    client.create_secret(Name="tls", SecretString=json.dumps({"certificate": certificate, "key": key}))
    client.create_secret(Name="tokens", SecretString=(tmp_path / "tokens").read_text())
    location = "aws-secretsmanager://"
    options = ["--tls-certificate", f"{location}tls#certificate", "--tls-key", f"{location}tls#key"]
    options += ["--token-file", f"{location}tokens", "--secrets-refresh-interval-s", "0.5"]
    with ServerProcess(*options, log_level="DEBUG", environment=environment) as server:
        assert get_server_version(server.address, authority, token)
        for wrong in (UNKNOWN_TOKEN, "", None):
            with pytest.raises(grpc.RpcError) as caught:
                get_server_version(server.address, authority, wrong)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # A token that is added later is accepted once the secrets have been fetched again.
        new_token = create_token("later", tmp_path / "tokens")
        client.put_secret_value(SecretId="tokens", SecretString=(tmp_path / "tokens").read_text())
        deadline = time.monotonic() + 15
        while True:
            try:
                assert get_server_version(server.address, authority, new_token)
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        log = server.log
    secret_values = [token, new_token, UNKNOWN_TOKEN, *environment.values()][:-2]
    hashed = (tmp_path / "tokens").read_text().split()[1]
    key_lines = [line for line in key.splitlines() if len(line) > 40]
    assert key_lines
    for text in (*secret_values, hashed, *key_lines, "PRIVATE KEY"):
        assert text not in log, f"the log contains {text[:8]}…"
    assert "DEBUG" in log
    assert "UNAUTHENTICATED" in log


def test_the_command_line_accepts_no_token_value(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gorggle_server", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "--token-file" in output
    assert "--token " not in output


def test_aws_responses_are_not_logged_even_at_debug() -> None:
    code = (
        "import logging; from gorggle_server.logging_setup import configure_logging; configure_logging('DEBUG', 'text');"
        "print([logging.getLogger(n).isEnabledFor(logging.DEBUG) for n in ('botocore.parsers', 'urllib3.x', 'gorggle')])"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert completed.stdout.strip() == "[False, False, True]"
