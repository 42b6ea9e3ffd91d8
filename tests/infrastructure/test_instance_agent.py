"""Tests of the instance agent against moto, a fake metadata service and a fake server metrics page."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infrastructure.instance_agent import certificates, log_shipper, metrics
from infrastructure.instance_agent.agent import Clients, InstanceAgent
from infrastructure.instance_agent.environment import AgentConfig, InstanceMetadataClient

METRICS = """\
# HELP gorggle_active_streams recognition calls being served
gorggle_active_streams 3.0
gorggle_gpu_memory_bytes{kind="free"} 6e+09
gorggle_gpu_memory_bytes{kind="total"} 2.4e+10
gorggle_gpu_utilisation_ratio 0.5
gorggle_grpc_requests_total{code="OK",method="Recognize"} 7.0
gorggle_grpc_requests_total{code="INTERNAL",method="Recognize"} 1.0
gorggle_grpc_request_duration_seconds_bucket{le="+Inf",method="Recognize"} 8.0
gorggle_grpc_request_duration_seconds_sum{method="Recognize"} 20.0
gorggle_grpc_request_duration_seconds_count{method="Recognize"} 8.0
"""
FLEET, GROUP, SECRET = "gorggle-test-gpu", "/gorggle/test/server", "gorggle-test/server_certificate"


class FakeInstance:
    """HTTP server that imitates the instance metadata service and the server's health and metrics pages."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {"/latest/meta-data/instance-id": "i-0123456789abcdef0"}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self.respond("the-token")

            def do_GET(self) -> None:
                if (
                    self.path.startswith("/latest/")
                    and self.headers["X-aws-ec2-metadata-token"] != "the-token"
                ):
                    self.send_error(401)
                elif self.path in outer.pages:
                    self.respond(outer.pages[self.path])
                else:
                    self.send_error(404)

            def respond(self, text: str) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def instance() -> Iterator[FakeInstance]:
    fake = FakeInstance()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        clients = Clients(
            *(boto3.client(each) for each in ("autoscaling", "cloudwatch", "logs", "secretsmanager"))
        )
        clients.logs.create_log_group(logGroupName=GROUP)
        value = {"ca": "CA", "certificate": "CERTIFICATE", "key": "KEY"}
        clients.secretsmanager.create_secret(Name=SECRET, SecretString=json.dumps(value))
        yield clients


@pytest.fixture
def config(instance: FakeInstance, tmp_path: Path) -> AgentConfig:
    return AgentConfig(
        fleet=FLEET,
        launch_hook="ready",
        terminate_hook="drain",
        certificate_secret=SECRET,
        certificate_folder=tmp_path,
        metrics_namespace="Gorggle/test",
        log_group=GROUP,
        metrics_url=instance.url,
        imds_url=instance.url,
        journal_cursor_file=tmp_path / "cursor",
    )


class FakeCommands:
    """Replacements of journalctl and systemctl on the PATH that log their calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "commands.log"
        for name, body in {
            "journalctl": f"cat {folder}/journal 2>/dev/null; rm -f {folder}/journal",
            "systemctl": "true",
        }.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{body}\nexit 0\n')
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        self.journal = folder / "journal"

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    folder = tmp_path / "bin"
    folder.mkdir()
    return FakeCommands(folder, monkeypatch)


class FakeAutoScaling:
    """Auto Scaling client that records the completed lifecycle actions."""

    def __init__(self, client: Any) -> None:
        self.client, self.completed = client, list[tuple[str, str]]()

    def complete_lifecycle_action(self, **arguments: str) -> None:
        assert arguments["AutoScalingGroupName"] == FLEET
        assert arguments["InstanceId"] == "i-0123456789abcdef0"
        self.completed.append((arguments["LifecycleHookName"], arguments["LifecycleActionResult"]))


@pytest.fixture
def agent(config: AgentConfig, clients: Clients, commands: FakeCommands) -> InstanceAgent:
    # moto has no CompleteLifecycleAction.
    return InstanceAgent(
        config,
        Clients(
            FakeAutoScaling(clients.autoscaling), clients.cloudwatch, clients.logs, clients.secretsmanager
        ),
    )


def test_the_launch_completes_once_the_server_is_ready(agent: InstanceAgent, instance: FakeInstance) -> None:
    autoscaling = agent._clients.autoscaling
    agent.step()
    assert not agent.is_ready
    assert not autoscaling.completed
    instance.pages["/readyz"] = "ready"
    agent.step()
    agent.step()
    assert autoscaling.completed == [("ready", "CONTINUE")]


def test_streams_and_utilization_are_published(
    agent: InstanceAgent, instance: FakeInstance, clients: Clients
) -> None:
    instance.pages["/metrics"] = METRICS
    agent.step()
    found = {
        each["MetricName"]: each
        for each in clients.cloudwatch.list_metrics(Namespace="Gorggle/test")["Metrics"]
    }
    assert set(found) == {
        "Streams", "GpuUtilization", "GpuMemoryUtilization", "CpuUtilization", "MemoryUtilization", "DiskUtilization",
        "Requests", "RequestTime",
    }  # fmt: skip
    assert found["Streams"]["Dimensions"] == [{"Name": "AutoScalingGroupName", "Value": FLEET}]
    values = {
        each["MetricName"]: each["Value"]
        for each in metrics.build_metric_data(METRICS, metrics.CpuUsage(), FLEET)
    }
    assert (values["Streams"], values["GpuUtilization"], values["GpuMemoryUtilization"]) == (3.0, 50.0, 75.0)
    assert all(0 <= value <= 100 for value in values.values())


def test_server_counters_are_reported_as_increases() -> None:
    counters = metrics.RequestCounters()

    def compute_deltas(page: str) -> dict[str, float]:
        return {name: value for name, value, _ in counters.compute_deltas(metrics.parse_metrics(page))}

    assert compute_deltas(METRICS) == {"Requests": 8.0, "RequestTime": 2.5}
    assert compute_deltas(METRICS) == {"Requests": 0.0}, "no mean should be reported without new requests"
    increased = (
        METRICS.replace("} 7.0", "} 9.0")
        .replace("} 20.0", "} 26.0")
        .replace('_count{method="Recognize"} 8.0', '_count{method="Recognize"} 10.0')
    )
    real_time_factor = "gorggle_real_time_factor_sum 3.0\ngorggle_real_time_factor_count 4.0\n"
    assert compute_deltas(increased + real_time_factor) == {
        "Requests": 2.0,
        "RequestTime": 3.0,
        "RealTimeFactor": 0.75,
    }
    restarted = METRICS + "process_start_time_seconds 2.0\n"
    assert compute_deltas(restarted) == {"Requests": 8.0, "RequestTime": 2.5}, (
        "counters of a restarted server start at zero"
    )


def test_the_server_publishes_every_metric_that_the_agent_reads() -> None:
    from gorggle_server.observability.metrics import ServerMetrics

    families = {family.name for family in ServerMetrics("0").registry.collect()}
    required = {
        metrics.REQUESTS_METRIC.removesuffix("_total"),
        *(name for _, name, _ in metrics.MEAN_METRICS),
    }
    assert required | {"gorggle_active_streams", metrics.START_TIME_METRIC} <= families


def test_a_starting_server_is_reported_as_zero_streams() -> None:
    (streams, *_) = metrics.build_metric_data(None, metrics.CpuUsage(), FLEET)
    assert (streams["MetricName"], streams["Value"]) == ("Streams", 0.0)


def test_log_lines_reach_cloudwatch_once(
    agent: InstanceAgent, commands: FakeCommands, clients: Clients
) -> None:
    now = time.time_ns() // 1000
    lines = [
        {"MESSAGE": message, "__REALTIME_TIMESTAMP": str(now + index * 1000)}
        for index, message in enumerate(("first", list(b"caf\xc3\xa9"), None))
    ]
    commands.journal.write_text("\n".join(json.dumps(each) for each in lines))
    assert agent._log_shipper.ship() == 2
    assert agent._log_shipper.ship() == 0
    events = clients.logs.get_log_events(logGroupName=GROUP, logStreamName=agent.instance_id)["events"]
    assert [each["message"] for each in events] == ["first", "café"]
    assert "--cursor-file=" in commands.calls[0]
    assert "--unit=gorggle.service" in commands.calls[0]


def test_a_log_batch_is_within_the_cloudwatch_limits() -> None:
    events = [{"timestamp": index, "message": "x" * 100_000} for index in range(20)]
    assert len(log_shipper.take_batch(events)) == 10
    assert len(log_shipper.take_batch([{"timestamp": 0, "message": "x"}] * 20_000)) == 10_000


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/latest/meta-data/autoscaling/target-lifecycle-state", "Terminated"),
        ("/latest/meta-data/spot/instance-action", '{"action": "terminate", "time": "2026-11-21T12:00:00Z"}'),
    ],
)
def test_a_terminating_instance_stops_its_server_before_completing_the_hook(
    agent: InstanceAgent, instance: FakeInstance, commands: FakeCommands, path: str, page: str
) -> None:
    autoscaling = agent._clients.autoscaling
    instance.pages["/latest/meta-data/autoscaling/target-lifecycle-state"] = "InService"
    agent.step()
    assert not agent.is_done
    assert "systemctl stop gorggle.service" not in commands.calls
    instance.pages[path] = page
    agent.step()
    assert agent._stop_process is not None
    agent._stop_process.wait()
    agent.step()
    agent.step()
    assert agent.is_done
    assert autoscaling.completed == [("drain", "CONTINUE")]
    assert commands.calls.count("systemctl stop gorggle.service") == 1


def test_certificates_are_readable_by_the_owner_only_and_renewed(clients: Clients, tmp_path: Path) -> None:
    client = clients.secretsmanager
    assert certificates.refresh(client, SECRET, tmp_path)
    assert not certificates.refresh(client, SECRET, tmp_path)
    key = tmp_path / "key.pem"
    assert key.read_text() == "KEY"
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    renewed = json.dumps({"ca": "CA", "certificate": "NEW", "key": "NEW KEY"})
    client.put_secret_value(SecretId=SECRET, SecretString=renewed)
    assert certificates.refresh(client, SECRET, tmp_path)
    assert key.read_text() == "NEW KEY"


def test_waiting_for_missing_certificates_times_out(clients: Clients, tmp_path: Path) -> None:
    clients.secretsmanager.create_secret(Name="empty")
    with pytest.raises(LookupError, match="no value yet"):
        certificates.wait_for_certificates(clients.secretsmanager, "empty", tmp_path, timeout_s=0)


def test_a_failed_step_does_not_prevent_the_others(
    agent: InstanceAgent, instance: FakeInstance, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    clients.secretsmanager.delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)
    instance.pages["/readyz"] = "ready"
    agent.step()
    assert "refresh_certificates failed and will be retried" in caplog.text
    assert agent.is_ready


def test_a_missing_instance_id_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="returned no instance id"):
        _ = InstanceMetadataClient("http://127.0.0.1:9").instance_id


def test_bootstrap_writes_every_setting_that_the_agent_reads(config: AgentConfig) -> None:
    script = (Path(__file__).resolve().parents[2] / "infrastructure/instance_agent/bootstrap.sh").read_text()
    env_file = script.partition('agent.env" <<SETTINGS')[2].partition("\nSETTINGS")[0]
    names = {line.partition("=")[0] for line in env_file.splitlines() if "=" in line}
    assert names == {each.upper() for each in config.__dataclass_fields__} | {
        "AWS_DEFAULT_REGION",
        "PYTHONPATH",
    }


def test_the_bootstrap_script_passes_shellcheck() -> None:
    import sys

    script = Path(__file__).resolve().parents[2] / "infrastructure/instance_agent/bootstrap.sh"
    result = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
