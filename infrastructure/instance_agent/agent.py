"""The agent: completes lifecycle hooks, publishes metrics, refreshes certificates, and ships logs.

It runs in a loop. A task that fails is logged and retried in the next iteration; the server works without the agent.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infrastructure.instance_agent import certificates, metrics
from infrastructure.instance_agent.environment import AgentConfig, InstanceMetadataClient, http_get
from infrastructure.instance_agent.log_shipper import LogShipper

STEP_INTERVAL_S = 5.0
METRICS_INTERVAL_S = 60.0
CERTIFICATES_INTERVAL_S = 3600.0
STOP_SERVER_COMMAND = ("systemctl", "stop", "gorggle.service")
# Error of CompleteLifecycleAction when the instance waits for no action, for example because it was completed before.
NO_ACTION = "No active Lifecycle Action found"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clients:
    """Clients of the services that the agent calls."""

    autoscaling: Any
    cloudwatch: Any
    logs: Any
    secretsmanager: Any


class InstanceAgent:
    """The agent's state.

    Attributes:
        is_ready: the server was ready, and the launch hook is completed.
        is_done: the server has stopped, and the instance can be terminated.
    """

    def __init__(
        self, config: AgentConfig, clients: Clients, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clients, self._clock = config, clients, clock
        self._imds = InstanceMetadataClient(config.imds_url)
        self.instance_id = self._imds.instance_id
        self._log_shipper = LogShipper(
            clients.logs, config.log_group, self.instance_id, config.journal_cursor_file
        )
        self._cpu, self._request_counters = metrics.CpuUsage(), metrics.RequestCounters()
        self._metrics_published_at = self._certificates_refreshed_at = float("-inf")
        self.is_ready = False
        self.is_done = False
        self._stop_process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run until the instance can be terminated."""
        while not self.is_done:
            self.step()
            time.sleep(STEP_INTERVAL_S)

    def step(self) -> None:
        """Run all tasks that are due."""
        for task in (
            self._report_readiness,
            self._publish_metrics,
            self._refresh_certificates,
            self._drain,
            self._ship_logs,
        ):
            try:
                task()
            except (ClientError, BotoCoreError, OSError, LookupError, subprocess.SubprocessError) as error:
                _log.error("%s failed and will be retried: %s", task.__name__.strip("_"), error)

    def _report_readiness(self) -> None:
        if not self.is_ready and http_get(f"{self._config.metrics_url}/readyz") is not None:
            self._complete_lifecycle_action(self._config.launch_hook)
            self.is_ready = True
            _log.info("the server is ready")

    def _publish_metrics(self) -> None:
        if self._clock() - self._metrics_published_at < METRICS_INTERVAL_S:
            return
        page = http_get(f"{self._config.metrics_url}/metrics")
        data = metrics.build_metric_data(page, self._cpu, self._config.fleet, self._request_counters)
        self._clients.cloudwatch.put_metric_data(Namespace=self._config.metrics_namespace, MetricData=data)
        self._metrics_published_at = self._clock()

    def _refresh_certificates(self) -> None:
        if self._clock() - self._certificates_refreshed_at < CERTIFICATES_INTERVAL_S:
            return
        folder, secret = self._config.certificate_folder, self._config.certificate_secret
        if certificates.refresh(self._clients.secretsmanager, secret, folder):
            _log.info("certificates updated")
        self._certificates_refreshed_at = self._clock()

    def _drain(self) -> None:
        """Stop the server, which finishes its streams, then complete the termination hook."""
        if self.is_done:
            return
        if self._stop_process is None:
            if not self._imds.is_terminating:
                return
            _log.info("the instance is terminating: stopping the server")
            self._stop_process = subprocess.Popen(STOP_SERVER_COMMAND)
        if self._stop_process.poll() is not None:
            self._complete_lifecycle_action(self._config.terminate_hook)
            _log.info("the server has stopped")
            # After a spot interruption notice there may be no lifecycle action yet; the instance terminates anyway.
            self.is_done = True

    def _ship_logs(self) -> None:
        self._log_shipper.ship()

    def _complete_lifecycle_action(self, hook: str) -> None:
        try:
            self._clients.autoscaling.complete_lifecycle_action(
                LifecycleHookName=hook,
                AutoScalingGroupName=self._config.fleet,
                InstanceId=self.instance_id,
                LifecycleActionResult="CONTINUE",
            )
        except ClientError as error:
            if NO_ACTION not in str(error):
                raise


class JsonFormatter(logging.Formatter):
    """The format of the server's log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a JSON object."""
        return json.dumps({"level": record.levelname, "logger": record.name, "message": record.getMessage()})
