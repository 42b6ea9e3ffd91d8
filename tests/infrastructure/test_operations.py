"""Tests of the operations functions on moto: certificate rotation, token rotation, and the budget action."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from cryptography import x509
from moto import mock_aws

from gorggle_lambdas.operations import certificate_authority, rotate_certificates, rotate_token, stop_fleet

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
SERVER, CLIENT = "gorggle-test/server_certificate", "gorggle-test/server_client"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    variables = {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AUTHORITY_SECRET": "gorggle-test/authority",
        "TOKENS_SECRET": "gorggle-test/api_tokens",
        "SERVER_NAME": "server.gorggle.internal",
        "FLEET": "gorggle-test-gpu",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        secretsmanager = boto3.client("secretsmanager")
        for secret in (
            SERVER,
            CLIENT,
            "gorggle-test/operator_token",
            variables["AUTHORITY_SECRET"],
            variables["TOKENS_SECRET"],
        ):
            secretsmanager.create_secret(Name=secret)
        yield secretsmanager


def rotate_secret(client: Any, handler: Any, secret: str) -> dict[str, Any]:
    token = str(uuid.uuid4())
    for step in STEPS:
        handler({"Step": step, "SecretId": secret, "ClientRequestToken": token}, None)
    return json.loads(client.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"])


def test_only_identities_of_one_authority_pass_the_tls_handshake(client: Any) -> None:
    server = rotate_secret(client, rotate_certificates.handler, SERVER)
    caller = rotate_secret(client, rotate_certificates.handler, CLIENT)
    assert server["ca"] == caller["ca"]
    assert handshake(server, caller) == "server.gorggle.internal"
    other = certificate_authority.issue_identity(
        [certificate_authority.create_authority("other", NOW)], "pipeline", is_server=False, now=NOW
    )
    other_client = {"ca": caller["ca"], "certificate": other.certificate, "key": other.key}
    with pytest.raises(ssl.SSLError):
        handshake(server, other_client)


def test_a_client_certificate_is_rejected_as_a_server_certificate(client: Any) -> None:
    caller = rotate_secret(client, rotate_certificates.handler, CLIENT)
    with pytest.raises(ssl.SSLError):
        handshake(caller, caller)


def handshake(server: dict[str, Any], caller: dict[str, Any]) -> str:
    """Run a mutual TLS handshake in memory; return the server name that the client verified."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_context.verify_mode = ssl.CERT_REQUIRED
    for context, identity in ((server_context, server), (client_context, caller)):
        context.load_verify_locations(cadata=identity["ca"])
        load_identity(context, identity)
    server_in, server_out, client_in, client_out = (ssl.MemoryBIO() for _ in range(4))
    peers = [
        server_context.wrap_bio(server_in, server_out, server_side=True),
        client_context.wrap_bio(client_in, client_out, server_hostname="server.gorggle.internal"),
    ]
    is_done = [False, False]
    for _ in range(10):
        for index, peer in enumerate(peers):
            try:
                peer.do_handshake()
                is_done[index] = True
            except ssl.SSLWantReadError:
                pass
        client_in.write(server_out.read())
        server_in.write(client_out.read())
    assert all(is_done)
    # In TLS 1.3 the client receives the server's rejection with the first read after its handshake.
    peers[0].write(b"x")
    client_in.write(server_out.read())
    assert peers[1].read(1) == b"x"
    return str(peers[1].server_hostname)


def load_identity(context: ssl.SSLContext, identity: dict[str, Any]) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "c.pem", Path(folder) / "k.pem"
        certificate.write_text(identity["certificate"])
        key.write_text(identity["key"])
        context.load_cert_chain(certificate, key)


def test_concurrent_rotations_share_one_authority(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second rotation reads before the first has written, so its conditional write fails and it reads again.
    first = rotate_certificates.load_current_authorities(client, "gorggle-test/authority", NOW)
    stale_reads = iter([[]])
    real = rotate_certificates._read_authorities
    monkeypatch.setattr(
        rotate_certificates, "_read_authorities", lambda *args: next(stale_reads, None) or real(*args)
    )
    second = rotate_certificates.load_current_authorities(client, "gorggle-test/authority", NOW)
    assert [each.pem for each in second] == [each.pem for each in first]


def test_rotation_steps_are_idempotent(client: Any) -> None:
    token = str(uuid.uuid4())
    event = {"SecretId": SERVER, "ClientRequestToken": token}
    for step in ("createSecret", "createSecret", "setSecret", "testSecret", "testSecret", "finishSecret"):
        rotate_certificates.handler({**event, "Step": step}, None)
    value = client.get_secret_value(SecretId=SERVER)["SecretString"]
    for step in STEPS:
        rotate_certificates.handler({**event, "Step": step}, None)
    assert client.get_secret_value(SecretId=SERVER)["SecretString"] == value


def test_finishing_a_rotation_that_was_not_started_fails(client: Any) -> None:
    event = {"SecretId": SERVER, "ClientRequestToken": str(uuid.uuid4()), "Step": "finishSecret"}
    with pytest.raises(ValueError, match="never created"):
        rotate_certificates.handler(event, None)


def test_a_new_authority_is_trusted_before_it_signs() -> None:
    old = [certificate_authority.create_authority("Gorggle", NOW)]
    later = NOW + certificate_authority.AUTHORITY_RENEWAL + dt.timedelta(days=1)
    both = certificate_authority.renew_authorities(old, "Gorggle", later)
    assert len(both) == 2
    assert certificate_authority.select_signer(both, later) is both[1]
    assert (
        certificate_authority.select_signer(
            both, later + certificate_authority.PROPAGATION_DELAY + dt.timedelta(days=1)
        )
        is both[0]
    )
    identity = certificate_authority.issue_identity(both, "server", is_server=True, now=later)
    assert len(x509.load_pem_x509_certificates(identity.ca.encode())) == 2
    certificate_authority.verify_identity(identity, later)


def test_an_expired_authority_is_dropped() -> None:
    old = [certificate_authority.create_authority("Gorggle", NOW)]
    (only,) = certificate_authority.renew_authorities(
        old, "Gorggle", NOW + certificate_authority.AUTHORITY_LIFE
    )
    assert only is not old[0]


@pytest.mark.parametrize("part", ["certificate", "key", "ca"])
def test_a_mismatched_certificate_key_or_ca_is_rejected(part: str) -> None:
    identities = [
        certificate_authority.issue_identity(
            [certificate_authority.create_authority("Gorggle", NOW)], "server", is_server=True, now=NOW
        )
        for _ in range(2)
    ]
    mixed = {**identities[0].__dict__, part: identities[1].__dict__[part]}
    with pytest.raises(ValueError, match=r"does not match its key|signed by none of its"):
        certificate_authority.verify_identity(certificate_authority.Identity(**mixed), NOW)


def test_an_expired_certificate_is_rejected() -> None:
    identity = certificate_authority.issue_identity(
        [certificate_authority.create_authority("Gorggle", NOW)], "server", is_server=True, now=NOW
    )
    with pytest.raises(ValueError, match="is valid from"):
        certificate_authority.verify_identity(identity, NOW + certificate_authority.CERTIFICATE_LIFE)


def test_rotating_the_operator_token_keeps_other_tokens(client: Any) -> None:
    client.put_secret_value(SecretId="gorggle-test/api_tokens", SecretString='{"camera": "00"}')
    secret = "gorggle-test/operator_token"
    first = rotate_secret(client, rotate_token.handler, secret)["token"]
    assert rotate_token.read_token_hashes(client)["operator"] == rotate_token.hash_token(first)
    second = rotate_secret(client, rotate_token.handler, secret)["token"]
    assert first != second
    assert len(second) >= 40
    hashes = json.loads(client.get_secret_value(SecretId="gorggle-test/api_tokens")["SecretString"])
    assert hashes == {"camera": "00", "operator": rotate_token.hash_token(second)}


def test_the_budget_notification_scales_the_fleet_to_zero(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = boto3.client("autoscaling")
    ec2 = boto3.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ec2.create_launch_template(
        LaunchTemplateName="server",
        LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "g5.xlarge"},
    )
    fleet.create_auto_scaling_group(
        AutoScalingGroupName="gorggle-test-gpu", MinSize=1, MaxSize=3, VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "server", "Version": "1"},
    )  # fmt: skip
    stop_fleet.handler({"Records": [{"Sns": {"Subject": "the budget is spent"}}]}, None)
    (group,) = fleet.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 0, 0)
    assert "the budget is spent" in capsys.readouterr().out
