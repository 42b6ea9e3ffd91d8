"""The functions that operate the stack: certificates, tokens, the budget's brake, on moto's Secrets Manager."""

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
        made = boto3.client("secretsmanager")
        for secret in (
            SERVER,
            CLIENT,
            "gorggle-test/operator_token",
            variables["AUTHORITY_SECRET"],
            variables["TOKENS_SECRET"],
        ):
            made.create_secret(Name=secret)
        yield made


def rotated(client: Any, handler: Any, secret: str) -> dict[str, Any]:
    token = str(uuid.uuid4())
    for step in STEPS:
        handler({"Step": step, "SecretId": secret, "ClientRequestToken": token}, None)
    return json.loads(client.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"])


def test_server_and_client_believe_each_other_and_nobody_else(client: Any) -> None:
    server = rotated(client, rotate_certificates.handler, SERVER)
    caller = rotated(client, rotate_certificates.handler, CLIENT)
    assert server["ca"] == caller["ca"]
    assert handshake(server, caller) == "server.gorggle.internal"
    other = certificate_authority.issue_identity(
        [certificate_authority.create_authority("other", NOW)], "pipeline", is_server=False, now=NOW
    )
    other_client = {"ca": caller["ca"], "certificate": other.certificate, "key": other.key}
    with pytest.raises(ssl.SSLError):
        handshake(server, other_client)


def test_a_client_s_certificate_does_not_make_a_server(client: Any) -> None:
    caller = rotated(client, rotate_certificates.handler, CLIENT)
    with pytest.raises(ssl.SSLError):
        handshake(caller, caller)


def handshake(server: dict[str, Any], caller: dict[str, Any]) -> str:
    """Both sides of TLS in memory; the result is the name that the client believed."""
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    here.verify_mode = ssl.CERT_REQUIRED
    for context, identity in ((here, server), (there, caller)):
        context.load_verify_locations(cadata=identity["ca"])
        load(context, identity)
    a_in, a_out, b_in, b_out = (ssl.MemoryBIO() for _ in range(4))
    ends = [
        here.wrap_bio(a_in, a_out, server_side=True),
        there.wrap_bio(b_in, b_out, server_hostname="server.gorggle.internal"),
    ]
    done = [False, False]
    for _ in range(10):
        for index, end in enumerate(ends):
            try:
                end.do_handshake()
                done[index] = True
            except ssl.SSLWantReadError:
                pass
        b_in.write(a_out.read())
        a_in.write(b_out.read())
    assert all(done)
    # With TLS 1.3 a client learns with the first bytes only that it was refused.
    ends[0].write(b"x")
    b_in.write(a_out.read())
    assert ends[1].read(1) == b"x"
    return str(ends[1].server_hostname)


def load(context: ssl.SSLContext, identity: dict[str, Any]) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "c.pem", Path(folder) / "k.pem"
        certificate.write_text(identity["certificate"])
        key.write_text(identity["key"])
        context.load_cert_chain(certificate, key)


def test_two_secrets_that_are_rotated_at_once_get_one_authority(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both look before either has written: the second finds that it was too late.
    first = rotate_certificates.load_current_authorities(client, "gorggle-test/authority", NOW)
    looks = iter([[]])
    kept = rotate_certificates._read_authorities
    monkeypatch.setattr(
        rotate_certificates, "_read_authorities", lambda *args: next(looks, None) or kept(*args)
    )
    second = rotate_certificates.load_current_authorities(client, "gorggle-test/authority", NOW)
    assert [each.pem for each in second] == [each.pem for each in first]


def test_a_repeated_step_changes_nothing(client: Any) -> None:
    token = str(uuid.uuid4())
    event = {"SecretId": SERVER, "ClientRequestToken": token}
    for step in ("createSecret", "createSecret", "setSecret", "testSecret", "testSecret", "finishSecret"):
        rotate_certificates.handler({**event, "Step": step}, None)
    value = client.get_secret_value(SecretId=SERVER)["SecretString"]
    for step in STEPS:
        rotate_certificates.handler({**event, "Step": step}, None)
    assert client.get_secret_value(SecretId=SERVER)["SecretString"] == value


def test_a_rotation_that_was_never_begun_cannot_be_finished(client: Any) -> None:
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
    bearer = certificate_authority.issue_identity(both, "server", is_server=True, now=later)
    assert len(x509.load_pem_x509_certificates(bearer.ca.encode())) == 2
    certificate_authority.verify_identity(bearer, later)


def test_an_expired_authority_is_dropped() -> None:
    old = [certificate_authority.create_authority("Gorggle", NOW)]
    (only,) = certificate_authority.renew_authorities(
        old, "Gorggle", NOW + certificate_authority.AUTHORITY_LIFE
    )
    assert only is not old[0]


@pytest.mark.parametrize("part", ["certificate", "key", "ca"])
def test_a_certificate_with_a_part_of_another_is_refused(part: str) -> None:
    made = [
        certificate_authority.issue_identity(
            [certificate_authority.create_authority("Gorggle", NOW)], "server", is_server=True, now=NOW
        )
        for _ in range(2)
    ]
    mixed = {**made[0].__dict__, part: made[1].__dict__[part]}
    with pytest.raises(ValueError, match=r"does not match its key|signed by none of its"):
        certificate_authority.verify_identity(certificate_authority.Identity(**mixed), NOW)


def test_an_old_certificate_is_refused() -> None:
    made = certificate_authority.issue_identity(
        [certificate_authority.create_authority("Gorggle", NOW)], "server", is_server=True, now=NOW
    )
    with pytest.raises(ValueError, match="is valid from"):
        certificate_authority.verify_identity(made, NOW + certificate_authority.CERTIFICATE_LIFE)


def test_the_operator_s_token_is_renewed_and_others_keep_theirs(client: Any) -> None:
    client.put_secret_value(SecretId="gorggle-test/api_tokens", SecretString='{"camera": "00"}')
    secret = "gorggle-test/operator_token"
    first = rotated(client, rotate_token.handler, secret)["token"]
    assert rotate_token.read_token_hashes(client)["operator"] == rotate_token.hash_token(first)
    second = rotated(client, rotate_token.handler, secret)["token"]
    assert first != second
    assert len(second) >= 40
    known = json.loads(client.get_secret_value(SecretId="gorggle-test/api_tokens")["SecretString"])
    assert known == {"camera": "00", "operator": rotate_token.hash_token(second)}


def test_the_budget_s_message_puts_the_fleet_to_zero(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
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
