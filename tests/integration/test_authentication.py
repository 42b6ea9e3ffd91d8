"""Authentication with tokens and mutual TLS, and their renewal while the server runs."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gorggle import AuthenticationError, Client, UnavailableError
from gorggle.v1 import lip_reading_pb2_grpc, server_pb2
from gorggle_server.errors import InvalidRequestError
from gorggle_server.security.api_tokens import TokenStore, create_token, main
from gorggle_server.security.secret_sources import FileSecretSource
from tests.integration.conftest import Messages, RunningServer, running_server

INFO_REQUEST = server_pb2.GetServerInfoRequest()
UNKNOWN_TOKEN = "a-token-that-was-never-issued"
Metadata = list[tuple[str, str]]


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens"


@pytest.fixture(scope="module")
def token(token_file: Path) -> str:
    return create_token("camera-1", token_file)


@pytest.fixture(scope="module")
def token_server(token_file: Path, token: str) -> Iterator[RunningServer]:
    with running_server(token_file=token_file, max_streams_per_client=1) as running:
        yield running


@pytest.fixture
def stub(token_server: RunningServer) -> Iterator[lip_reading_pb2_grpc.LipReadingStub]:
    with grpc.insecure_channel(token_server.address) as channel:
        yield lip_reading_pb2_grpc.LipReadingStub(channel)


def bearer(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        bearer(UNKNOWN_TOKEN),
        bearer(""),
        [("authorization", UNKNOWN_TOKEN)],
        [("authorization", f"Basic {UNKNOWN_TOKEN}")],
        [("token", UNKNOWN_TOKEN)],
        [*bearer(UNKNOWN_TOKEN), *bearer(UNKNOWN_TOKEN)],
    ],
    ids=["none", "unknown", "empty", "bare", "another scheme", "wrong place", "twice"],
)
def test_a_call_without_a_known_token_is_refused(stub, metadata, caplog, messages: Messages) -> None:
    caplog.set_level(logging.DEBUG)
    calls: list[Callable[[], object]] = [
        lambda: stub.GetServerInfo(INFO_REQUEST, metadata=metadata, timeout=10),
        lambda: list(stub.StreamingRecognize(messages(b"media"), metadata=metadata, timeout=10)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "oken" in caught.value.details()
        assert UNKNOWN_TOKEN not in caught.value.details()
    assert UNKNOWN_TOKEN not in caplog.text


def test_a_valid_token_sent_twice_is_refused(stub, token: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetServerInfo(INFO_REQUEST, metadata=[*bearer(token), *bearer(token)], timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_known_token_is_served(stub, token: str) -> None:
    assert stub.GetServerInfo(INFO_REQUEST, metadata=bearer(token), timeout=10).version


def test_health_checks_need_no_token(token_server: RunningServer) -> None:
    with grpc.insecure_channel(token_server.address) as channel:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_tokens_are_added_and_removed_without_a_restart(stub, token_file: Path, token: str) -> None:
    second = create_token("camera-2", token_file)
    assert stub.GetServerInfo(INFO_REQUEST, metadata=bearer(second), timeout=10).version
    remaining = [line for line in token_file.read_text().splitlines() if not line.startswith("camera-2")]
    token_file.write_text("\n".join([*remaining, ""]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetServerInfo(INFO_REQUEST, metadata=bearer(second), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert stub.GetServerInfo(INFO_REQUEST, metadata=bearer(token), timeout=10).version


def test_an_unreadable_token_file_keeps_the_previous_tokens(tmp_path: Path, caplog) -> None:
    path = tmp_path / "tokens"
    token = create_token("camera", path)
    tokens = TokenStore(FileSecretSource(path))
    path.write_text(f"camera {UNKNOWN_TOKEN}\n")
    assert tokens.get_client_name(token) == "camera"
    path.unlink()
    assert tokens.get_client_name(token) == "camera"
    assert "line 1" in caplog.text
    assert UNKNOWN_TOKEN not in caplog.text


def test_a_token_file_contains_no_token_and_is_readable_only_by_its_owner(
    token_file: Path, token: str
) -> None:
    assert token not in token_file.read_text()
    assert token_file.stat().st_mode & 0o077 == 0


def test_the_command_creates_a_valid_token(tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "tokens")
    assert main(["editor", path]) == 0
    assert (
        TokenStore(FileSecretSource(Path(path))).get_client_name(capsys.readouterr().out.strip()) == "editor"
    )
    assert main(["editor", path]) == 1
    assert main(["two words", path]) == 1
    assert main(["editor", str(tmp_path / "nowhere" / "tokens")]) == 1
    assert capsys.readouterr().err.count("gorggle: error:") == 3


def test_one_client_cannot_use_all_slots(stub, token_file: Path, token: str, messages: Messages) -> None:
    other = create_token("camera-3", token_file)
    released = threading.Event()
    first_call = stub.StreamingRecognize(
        iter(_pause_after_first(messages(), released)), metadata=bearer(token), timeout=20
    )
    next(first_call)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(messages(), metadata=bearer(token), timeout=20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "camera-1" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(messages(b"x"), metadata=bearer(other), timeout=20))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # it got a slot
    first_call.cancel()
    released.set()


def _pause_after_first(requests, released):
    yield next(requests)
    released.wait(20)


def test_an_unreadable_token_file_is_reported_at_startup(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        TokenStore(FileSecretSource(tmp_path / "missing"))


# ------------------------------------------------------------------------------------------------------- certificates


class TlsFiles:
    """The key and certificate files of a server with mutual TLS and of its clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.certificate, self.key, self.client_ca = (
            folder / name for name in ("server.pem", "server.key", "clients.pem")
        )
        self.authority.cert_pem.write_to_path(str(self.client_ca))
        self.renew(self.authority)

    def renew(self, authority: trustme.CA) -> None:
        """Give the server a new certificate."""
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.key))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.certificate.write_bytes(chain)

    def client(
        self, address: str, issued: trustme.LeafCert | None, trusted: trustme.CA | None = None
    ) -> Client:
        """Return a client with this certificate that trusts this authority (by default the server's)."""
        number = len(list(self.folder.iterdir()))
        root = self.folder / f"root-{number}.pem"
        (trusted or self.authority).cert_pem.write_to_path(str(root))
        client_options = {}
        if issued is not None:
            certificate, key = self.folder / f"client-{number}.pem", self.folder / f"client-{number}.key"
            certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(str(key))
            client_options = {"client_certificate": certificate, "client_key": key}
        return Client(address.replace("127.0.0.1", "localhost"), root_certificates=root, **client_options)


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return TlsFiles(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def mtls_server(tls_files: TlsFiles) -> Iterator[RunningServer]:
    with running_server(
        tls_certificate=tls_files.certificate, tls_key=tls_files.key, tls_client_ca=tls_files.client_ca
    ) as running:
        yield running


def test_a_client_certificate_of_the_trusted_authority_is_accepted(
    mtls_server: RunningServer, tls_files: TlsFiles
) -> None:
    with tls_files.client(mtls_server.address, tls_files.authority.issue_cert("worker.internal")) as client:
        assert client.server_info().version


def two_days_ago() -> dt.datetime:
    return dt.datetime.now(dt.UTC) - dt.timedelta(days=2)


@pytest.mark.parametrize(
    "issue",
    [
        lambda _: None,
        lambda _: trustme.CA().issue_cert("worker.internal"),
        lambda authority: authority.issue_cert("worker.internal", not_after=two_days_ago()),
    ],
    ids=["no certificate", "another authority", "expired"],
)
def test_an_untrusted_client_certificate_fails_the_handshake(
    mtls_server: RunningServer, tls_files: TlsFiles, issue
) -> None:
    with (
        tls_files.client(mtls_server.address, issue(tls_files.authority)) as client,
        pytest.raises(UnavailableError),
    ):
        client.server_info()


def test_the_client_refuses_a_server_of_an_untrusted_authority(
    mtls_server: RunningServer, tls_files: TlsFiles
) -> None:
    issued = tls_files.authority.issue_cert("worker.internal")
    with (
        tls_files.client(mtls_server.address, issued, trustme.CA()) as client,
        pytest.raises(UnavailableError),
    ):
        client.server_info()


def test_a_renewed_certificate_is_used_for_new_connections(
    mtls_server: RunningServer, tls_files: TlsFiles
) -> None:
    another = trustme.CA()
    tls_files.renew(another)
    issued = tls_files.authority.issue_cert("worker.internal")
    with tls_files.client(mtls_server.address, issued, another) as client:
        assert client.server_info().version
    tls_files.certificate.unlink()  # incomplete renewal: the previous certificate stays in use
    with tls_files.client(mtls_server.address, issued, another) as client:
        assert client.server_info().version


def test_tokens_over_tls_are_verified(tls_files: TlsFiles, token_file: Path, token: str) -> None:
    tls_files.renew(tls_files.authority)
    with running_server(
        tls_certificate=tls_files.certificate, tls_key=tls_files.key, token_file=token_file
    ) as running:
        root = tls_files.folder / "authority.pem"
        tls_files.authority.cert_pem.write_to_path(str(root))
        address = running.address.replace("127.0.0.1", "localhost")
        with Client(address, root_certificates=root, token=token) as client:
            assert client.models()
        with (
            Client(address, root_certificates=root, token=UNKNOWN_TOKEN) as client,
            pytest.raises(AuthenticationError),
        ):
            client.models()
